"""A Kubernetes API for tests, on a loopback port: pods whose containers are local sandboxes, and exec over WebSockets."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fake_kit import computer, run_there, served
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute

PODS = "/api/v1/namespaces/{namespace}/pods"
FULL_PIPE = 60_000


@dataclass
class FakePod:
    manifest: dict
    sandbox: object = None
    waiting: dict | None = None

    def told(self):
        state = {"waiting": self.waiting} if self.waiting else {"running": {}}
        status = {"name": "sandbox", "ready": not self.waiting, "restartCount": 0, "image": "x", "imageID": "x"}
        return {
            "apiVersion": "v1", "kind": "Pod", "metadata": self.manifest["metadata"], "spec": {"containers": []},
            "status": {"phase": "Running", "containerStatuses": [{**status, "state": state}]},
        }  # fmt: skip


@dataclass
class FakeCluster:
    pods: dict[str, FakePod] = field(default_factory=dict)
    policies: list[dict] = field(default_factory=list)
    failing: list[int] = field(default_factory=list)
    """Statuses that the next requests to make a pod are answered with."""

    async def pods_of(self, request):
        if request.method == "GET":
            items = [pod.told() for pod in self.pods.values()]
            return JSONResponse({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": items})
        if self.failing:
            return status(self.failing.pop(0))
        manifest = await request.json()
        if manifest["metadata"]["name"] in self.pods:
            return status(409)
        pod = FakePod(manifest)
        self.pods[manifest["metadata"]["name"]] = pod
        if "missing" in manifest["spec"]["containers"][0]["image"]:
            pod.waiting = {"reason": "ErrImagePull", "message": "there is no such image"}
        else:
            pod.sandbox = await computer()
        return JSONResponse(pod.told(), 201)

    async def pod(self, request):
        pod = self.pods.get(request.path_params["name"])
        if pod is None:
            return status(404)
        if request.method == "DELETE":
            del self.pods[request.path_params["name"]]
            if pod.sandbox is not None:
                await pod.sandbox.kill()
        return JSONResponse(pod.told())

    async def policies_of(self, request):
        self.policies.append(await request.json())
        return JSONResponse(self.policies[-1], 201)

    async def exec(self, websocket):
        """Read as much as the command is known to read, run it, and say what it printed."""
        await websocket.accept(subprotocol="v5.channel.k8s.io")
        argv = websocket.query_params.getlist("command")
        wanted, data = int(argv[2].partition("head -c ")[2].split(")")[0].split()[0]), b""
        while len(data) < wanted:
            message = await websocket.receive_bytes()
            assert message[0] == 0
            data += message[1:]
        out = await run_there(self.pods[websocket.path_params["name"]].sandbox, argv, data)
        if out is None:
            await websocket.close()
            return
        out = out.encode()
        for start in range(0, len(out), FULL_PIPE):
            await websocket.send_bytes(b"\1" + out[start : start + FULL_PIPE])
        await websocket.send_bytes(b"\3" + json.dumps({"status": "Success"}).encode())
        await websocket.close()

    def app(self):
        return Starlette(routes=[
            Route(PODS, self.pods_of, methods=["GET", "POST"]),
            Route(PODS + "/{name}", self.pod, methods=["GET", "DELETE"]),
            WebSocketRoute(PODS + "/{name}/exec", self.exec),
            Route("/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies", self.policies_of,
                  methods=["POST"]),
        ])  # fmt: skip


def status(code):
    return JSONResponse({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}, code)


def kubeconfig(port):
    return json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "fake",
        "clusters": [{"name": "fake", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "fake", "user": {"token": "secret-token-of-the-cluster"}}],
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake", "namespace": "training"}}],
    })  # fmt: skip


@asynccontextmanager
async def fake_cluster(config_file):
    """A cluster that a kubeconfig file points to."""
    cluster = FakeCluster()
    async with served(cluster.app()) as port:
        config_file.write_text(kubeconfig(port))
        try:
            yield cluster
        finally:
            for pod in cluster.pods.values():
                if pod.sandbox is not None:
                    await pod.sandbox.kill()

"""Pods of a Kubernetes cluster, through its own client `kubernetes`. KUBECONFIG's current context says which, or the pod
that this runs in; pods are made in that context's namespace.

Without a network means: a NetworkPolicy that lets nothing in or out. Only a cluster whose network plugin keeps such
policies does so, which can't be found out from here.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from ludus.errors import LudusError, MissingExtra, SandboxFailed, SandboxUnavailable
from ludus.sandbox.remote.calls import in_thread, patiently, said
from ludus.sandbox.remote.engine import FIRST, IMAGE, KEPT_CAPABILITIES, PASSING
from ludus.sandbox.remote.owners import LABEL, is_orphan, owner
from ludus.sandbox.remote.sandbox import RemoteSandbox

PART = 256 << 10
"""Bytes of one message to a pod."""
POLICY = "ludus-no-network"
NETWORK = "ludus.network"
START_S = 600.0
POLL_S = 0.3
REQUEST_S = (10.0, 60.0)
"""To connect, and for an answer."""
HOPELESS = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
}
IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

_connecting = threading.Lock()
_clusters: dict[int, Cluster] = {}


class Cluster(msgspec.Struct, frozen=True):
    """What a pod is made and asked through."""

    configuration: Any
    namespace: str
    core: Any


class Pod(RemoteSandbox):
    """A pod with one container, made for one rollout and removed after it."""

    tier = "kubernetes"
    unlimited = "processes and inodes, and keep a pod from the network only if the cluster keeps NetworkPolicies"
    _cluster: Cluster | None = None

    @classmethod
    def transient(cls, error: Exception) -> bool:
        from urllib3.exceptions import HTTPError
        from websocket import WebSocketException

        status = getattr(error, "status", None)
        return status in PASSING or (
            status in (None, 0) and isinstance(error, HTTPError | WebSocketException | OSError)
        )

    @classmethod
    async def check(cls) -> None:
        await in_thread(_connected)

    async def _start(self) -> None:
        if self.spec.network not in ("none", ()):
            raise SandboxUnavailable(f"tier {self.tier!r} keeps no allow-list of hosts: network is 'none' or () there")
        if Path(self.spec.image).is_absolute():
            raise SandboxUnavailable("a cluster builds no images: push it to a registry and give its name as `image`")
        self._cluster = await in_thread(_connected)
        await patiently("start a pod", lambda: in_thread(self._make), self.transient)
        await self._until_ready()

    def _make(self) -> None:
        assert self._cluster is not None
        try:
            self._cluster.core.create_namespaced_pod(
                self._cluster.namespace, self._manifest(), _request_timeout=REQUEST_S
            )
        except Exception as error:
            if getattr(error, "status", None) != 409:  # there already, from a try whose answer was lost
                raise

    def _manifest(self) -> dict[str, Any]:
        limits = self.spec.limits
        container = {
            "name": "sandbox",
            "image": self.spec.image or IMAGE,
            "command": ["/bin/sh", "-c", FIRST],
            "resources": {
                "limits": {"memory": str(limits.memory_bytes), "ephemeral-storage": str(limits.disk_bytes)},
                "requests": {"cpu": "100m"},
            },
            "securityContext": {
                "runAsUser": 0,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"], "add": KEPT_CAPABILITIES},
            },
        }
        spec = {
            "containers": [container],
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 0,
        }
        return {"metadata": {"name": self.name, "labels": {LABEL: owner(), NETWORK: "none"}}, "spec": spec}

    async def _until_ready(self) -> None:
        """Raises SandboxFailed for a pod that can't start."""
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            status = (await patiently("look at a pod", lambda: in_thread(self._look), self.transient)).status
            states = [one.state.waiting for one in status.container_statuses or () if one.state.waiting]
            if any(one.ready for one in status.container_statuses or ()):
                return
            for state in states:
                if state.reason in HOPELESS:
                    raise SandboxFailed(f"a pod can't start: {state.reason}: {state.message or ''}", "environment")
            if status.phase in ("Failed", "Succeeded"):
                raise SandboxFailed(f"a pod ended before it was ready: {status.reason or status.message or ''}")
            await asyncio.sleep(POLL_S)
        raise SandboxFailed(f"a pod was not ready after {START_S:g} s")

    def _look(self) -> Any:
        assert self._cluster is not None
        return self._cluster.core.read_namespaced_pod(self.name, self._cluster.namespace, _request_timeout=REQUEST_S)

    async def _shell(self, script: str) -> bytes:
        # a script goes through the stream, as addresses may not be long; its end can't be told there
        data = script.encode(errors="surrogateescape")
        return await in_thread(lambda: self._exec(f'eval "$(head -c {len(data)})"', data))

    async def _put(self, path: str, data: bytes) -> None:
        answer = await in_thread(lambda: self._exec(f"head -c {len(data)} >{path} && echo ok", data))
        if answer != b"ok\n":
            raise ConnectionError("the pod did not take a file")

    def _exec(self, script: str, data: bytes) -> bytes:
        from kubernetes import client
        from kubernetes.stream import stream

        assert self._cluster is not None
        # the client's `stream` changes the object it is given while it connects: one for each call
        with client.ApiClient(self._cluster.configuration) as api:
            open_stream = stream(
                client.CoreV1Api(api).connect_get_namespaced_pod_exec, self.name, self._cluster.namespace,
                container="sandbox", command=["/bin/sh", "-c", script], stdin=True, stdout=True, stderr=False, tty=False,
                binary=True, _preload_content=False,
            )  # fmt: skip
            try:
                for start in range(0, len(data), PART):
                    open_stream.write_stdin(data[start : start + PART])
                open_stream.run_forever()
                return bytes(open_stream.read_channel(1))
            finally:
                open_stream.sock.shutdown()  # its own `close` waits for seconds, and leaves the socket open

    async def _remove(self) -> None:
        if self._cluster is not None:
            cluster, name = self._cluster, self.name
            await in_thread(lambda: _remove(cluster, name))


def forget_clusters() -> None:
    """Close the connections of this process to clusters; the next sandbox connects anew."""
    with _connecting:
        while _clusters:
            _clusters.popitem()[1].core.api_client.close()


def _connected() -> Cluster:
    """The cluster, known from when it was first needed. Raises MissingExtra, SandboxUnavailable."""
    try:
        from kubernetes import client, config
    except ImportError:
        raise MissingExtra("a sandbox in Kubernetes", "kubernetes") from None
    with _connecting:
        if os.getpid() not in _clusters:
            configuration = client.Configuration()
            try:
                namespace = _load(config, configuration)
                cluster = Cluster(configuration, namespace, client.CoreV1Api(client.ApiClient(configuration)))
                _forbid_network(client, cluster)
                _remove_orphans(cluster)
            except LudusError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever its client raises, there is no cluster
                raise SandboxUnavailable(
                    f"no Kubernetes cluster can be used; see `kubectl auth can-i create pods` ({said(error)})"
                ) from None
            _clusters[os.getpid()] = cluster
        return _clusters[os.getpid()]


def _load(config: Any, configuration: Any) -> str:
    """Fill in where the cluster is and who we are; the namespace."""
    if IN_CLUSTER.exists() and "KUBECONFIG" not in os.environ:
        config.load_incluster_config(client_configuration=configuration)
        return IN_CLUSTER.read_text().strip()
    file = os.environ.get("KUBECONFIG")
    config.load_kube_config(config_file=file, client_configuration=configuration)
    _, active = config.list_kube_config_contexts(config_file=file)
    return str(active["context"].get("namespace") or "default")


def _forbid_network(client: Any, cluster: Cluster) -> None:
    policy = {
        "metadata": {"name": POLICY},
        "spec": {"podSelector": {"matchLabels": {NETWORK: "none"}}, "policyTypes": ["Ingress", "Egress"]},
    }
    try:
        client.NetworkingV1Api(cluster.core.api_client).create_namespaced_network_policy(
            cluster.namespace, policy, _request_timeout=REQUEST_S
        )
    except client.ApiException as error:
        if error.status != 409:
            raise


def _remove_orphans(cluster: Cluster) -> None:
    """Pods of processes that are no more."""
    found = cluster.core.list_namespaced_pod(cluster.namespace, label_selector=LABEL, _request_timeout=REQUEST_S)
    for pod in found.items:
        if is_orphan(pod.metadata.labels.get(LABEL, "")):
            _remove(cluster, pod.metadata.name)


def _remove(cluster: Cluster, name: str) -> None:
    try:
        cluster.core.delete_namespaced_pod(name, cluster.namespace, grace_period_seconds=0, _request_timeout=REQUEST_S)
    except Exception as error:
        if getattr(error, "status", None) != 404:
            raise

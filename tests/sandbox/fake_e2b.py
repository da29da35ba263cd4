"""E2B's API and the daemon of its machines, for tests: each machine is a local sandbox."""

from __future__ import annotations

import itertools
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from e2b.envd.process import process_pb as pb
from e2b.envd.process.process_connect import ProcessASGIApplication
from fake_kit import computer, run_there, served
from protobuf import Oneof
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

PART = 30_000
KEY = "e2b_" + "0123456789abcdef" * 2


@dataclass
class FakeE2B:
    machines: dict = field(default_factory=dict)
    asked: list[dict] = field(default_factory=list)
    renewed: list[str] = field(default_factory=list)
    failing: list[int] = field(default_factory=list)
    numbers: itertools.count = field(default_factory=itertools.count)

    async def create(self, request):
        if request.headers.get("x-api-key") != KEY:
            return JSONResponse({"code": 401, "message": "invalid key"}, 401)
        if self.failing:
            return JSONResponse({"code": 0, "message": "no luck"}, self.failing.pop(0))
        self.asked.append(await request.json())
        name = f"machine{next(self.numbers)}"
        self.machines[name] = await computer()
        told = {"templateID": "base", "sandboxID": name, "clientID": "c", "envdVersion": "0.5.0",
                "envdAccessToken": "token-of-the-machine"}  # fmt: skip
        return JSONResponse(told, 201)

    async def remove(self, request):
        machine = self.machines.pop(request.path_params["name"], None)
        if machine is None:
            return JSONResponse({"code": 404, "message": "no such sandbox"}, 404)
        await machine.kill()
        return Response(status_code=204)

    async def renew(self, request):
        self.renewed.append(request.path_params["name"])
        return Response(status_code=204)

    async def write(self, request):
        async with request.form() as form:
            data = await form["file"].read()
        path = request.query_params["path"]
        assert request.query_params["username"] == "root"
        await self.machines[request.headers["e2b-sandbox-id"]].write(path, data)
        return JSONResponse([{"name": path, "path": path, "type": "file"}])

    async def unknown(self, request, ctx):
        raise NotImplementedError

    list = update = stream_input = send_input = send_signal = close_stdin = connect = unknown

    async def start(self, request, ctx):
        """What the daemon says of a process: that it started, what it prints, and how it ended."""
        machine = self.machines[ctx.request_headers["e2b-sandbox-id"]]
        yield said("start", pb.ProcessEvent.StartEvent(pid=1))
        out = await run_there(machine, [request.process.cmd, *request.process.args]) or ""
        for begin in range(0, len(out), PART):
            part = Oneof("stdout", out[begin : begin + PART].encode())
            yield said("data", pb.ProcessEvent.DataEvent(output=part))
        yield said("end", pb.ProcessEvent.EndEvent(exit_code=0 if out else 137, exited=True, status="exit"))

    def app(self):
        return Starlette(routes=[
            Route("/v2/sandboxes", self.create, methods=["POST"]),
            Route("/sandboxes/{name}", self.remove, methods=["DELETE"]),
            Route("/sandboxes/{name}/timeout", self.renew, methods=["POST"]),
            Route("/files", self.write, methods=["POST"]),
            Route("/health", lambda request: Response(status_code=204)),
            Mount("/", ProcessASGIApplication(self)),
        ])  # fmt: skip


def said(kind, what):
    return pb.StartResponse(event=pb.ProcessEvent(event=Oneof(kind, what)))


@asynccontextmanager
async def fake_e2b(monkeypatch):
    """The service, with the variables of its client set."""
    service = FakeE2B()
    async with served(service.app()) as port:
        for name in ("E2B_API_URL", "E2B_SANDBOX_URL"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        monkeypatch.setenv("E2B_API_KEY", KEY)
        try:
            yield service
        finally:
            for machine in service.machines.values():
                await machine.kill()

"""Daytona's API and the toolbox of its machines, for tests: each machine is a local sandbox."""

from __future__ import annotations

import itertools
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fake_kit import computer, run_there, served
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

KEY = "dtn_0123456789abcdef0123456789abcdef"


@dataclass
class FakeDaytona:
    port: int = 0
    machines: dict = field(default_factory=dict)
    asked: dict[str, dict] = field(default_factory=dict)
    failing: list[int] = field(default_factory=list)
    numbers: itertools.count = field(default_factory=itertools.count)

    def told(self, name):
        asked = self.asked[name]
        return {
            "id": name, "organizationId": "o", "name": asked.get("name", name), "user": "root", "env": {},
            "labels": asked["labels"], "public": False, "networkBlockAll": False, "target": "t", "cpu": 1, "gpu": 0,
            "memory": 1, "disk": 1, "state": "started", "desiredState": "started", "kvm": False, "recoverable": False,
            "toolboxProxyUrl": f"http://127.0.0.1:{self.port}/toolbox", "sandboxClass": "container",
        }  # fmt: skip

    async def create(self, request):
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return JSONResponse({"message": "who are you?", "statusCode": 401}, 401)
        if self.failing:
            return JSONResponse({"message": "no luck"}, self.failing.pop(0))
        name = f"machine{next(self.numbers)}"
        self.asked[name] = await request.json()
        self.machines[name] = await computer()
        return JSONResponse(self.told(name))

    async def machine(self, request):
        name = request.path_params["name"]
        if name not in self.machines:
            return JSONResponse({"message": "no such sandbox", "statusCode": 404}, 404)
        if request.method == "DELETE":
            await self.machines.pop(name).kill()
        return JSONResponse(self.told(name))

    async def execute(self, request):
        asked = await request.json()
        argv = ["/bin/sh", "-c", asked["command"]]
        out = await run_there(self.machines[request.path_params["name"]], argv)
        return JSONResponse({"exitCode": 0 if out is not None else 137, "result": out or ""})

    async def upload(self, request):
        async with request.form() as form:
            path, data = form["files[0].path"], await form["files[0].file"].read()
        await self.machines[request.path_params["name"]].write(path, data)
        return JSONResponse({})

    def app(self):
        return Starlette(routes=[
            Route("/api/sandbox", self.create, methods=["POST"]),
            Route("/api/sandbox/{name}", self.machine, methods=["GET", "DELETE"]),
            Route("/toolbox/{name}/process/execute", self.execute, methods=["POST"]),
            Route("/toolbox/{name}/files/bulk-upload", self.upload, methods=["POST"]),
        ])  # fmt: skip


@asynccontextmanager
async def fake_daytona(monkeypatch):
    """The service, with the variables of its client set."""
    service = FakeDaytona()
    async with served(service.app()) as service.port:
        monkeypatch.setenv("DAYTONA_API_URL", f"http://127.0.0.1:{service.port}/api")
        monkeypatch.setenv("DAYTONA_API_KEY", KEY)
        try:
            yield service
        finally:
            for machine in service.machines.values():
                await machine.kill()

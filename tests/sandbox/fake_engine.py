"""A container engine for tests: Docker's and Podman's HTTP API on a Unix socket, each container a local sandbox.

What a container runs really runs, in namespaces of its own; its first process and its signals are real as well.
"""

from __future__ import annotations

import asyncio
import fcntl
import io
import itertools
import json
import re
import struct
import tarfile
import termios
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from fake_kit import computer, run_there

from ludus.sandbox import LocalSandbox

VERSION = {"ApiVersion": "1.48", "MinAPIVersion": "1.24", "Version": "28", "Components": []}


@dataclass
class FakeContainer:
    id: str
    name: str
    asked: dict
    sandbox: LocalSandbox | None = None
    first: asyncio.Task | None = None

    @property
    def labels(self):
        return self.asked.get("Labels") or self.asked.get("labels") or {}

    async def start(self):
        self.sandbox = await computer()
        asked = {key.lower(): value for key, value in self.asked.items()}
        argv = [*asked["entrypoint"], *(asked.get("cmd") or asked.get("command"))]
        begun = ["sh", "-c", 'echo $$ >/tmp/first; exec "$@"', "sh", *argv]
        self.first = asyncio.create_task(self.sandbox.exec(begun, timeout_s=600))
        await self.sandbox.exec("while [ ! -s /tmp/first ]; do sleep 0.005; done")

    async def end(self):
        if self.sandbox is not None:
            await self.sandbox.kill()
            await asyncio.gather(self.first, return_exceptions=True)

    def told(self):
        state = {"Status": "running", "Running": True}
        return {"Id": self.id, "Name": f"/{self.name}", "State": state, "Config": {"Labels": self.labels}}


@dataclass
class FakeEngine:
    """`failing` are (method and path pattern, status) pairs that the next matching requests are answered with."""

    images: set[str] = field(default_factory=lambda: {"docker.io/library/python:3.12-slim"})
    containers: dict[str, FakeContainer] = field(default_factory=dict)
    failing: list[tuple[str, int]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    built: list[list[str]] = field(default_factory=list)
    execs: dict[str, tuple[FakeContainer, list[str]]] = field(default_factory=dict)
    numbers: itertools.count = field(default_factory=itertools.count)
    starting: int = 0
    most_starting: int = 0

    async def answer(self, method, path, query, body):
        """(status, content); None where the answer is streamed by `exec_start`."""
        path, podman = re.sub(r"^/v[\d.]+", "", path).removeprefix("/libpod"), "/libpod/" in path
        self.requests.append(f"{method} {path}")
        for rule in self.failing:
            if re.search(rule[0], f"{method} {path}"):
                self.failing.remove(rule)
                return rule[1], {"message": "no luck", "cause": "no luck", "response": rule[1]}
        if path in ("/_ping", "/version"):
            return 200, VERSION
        kind, _, rest = path.lstrip("/").partition("/")
        if kind == "images" or kind == "build":
            return self.image(method, unquote(rest), query, body, podman)
        if kind == "exec":
            return 200, {"ExitCode": 0, "Running": False}
        return await self.container(method, rest, query, body)

    def image(self, method, rest, query, body, podman):
        if method == "GET":
            name = rest.removesuffix("/json")
            return (200, {"Id": f"sha256:{name}"}) if name in self.images else (404, {"message": "no such image"})
        if not rest:
            with tarfile.open(fileobj=io.BytesIO(body)) as tar:
                self.built.append(sorted(tar.getnames()))
            self.images |= {query["t"][0], "0123456789ab"}
            return 200, {"stream": ("" if podman else "Successfully built ") + "0123456789ab\n"}
        name = (query.get("reference") or [f"{query['fromImage'][0]}:{query['tag'][0]}"])[0] if query else ""
        if "missing" in name:
            return 404, {"message": f"no image {name} to be pulled", "cause": ""}
        self.images.add(name)
        return 200, {"id": name, "status": "pulled"}

    async def container(self, method, rest, query, body):
        name, _, action = rest.partition("/")
        if name == "create":
            asked = json.loads(body)
            name = (query.get("name") or [asked.get("name")])[0]
            new = FakeContainer(f"{next(self.numbers):064x}", name, asked)
            self.containers[name] = new
            return 201, {"Id": new.id, "Warnings": []}
        if rest == "json":
            found = [{"Id": one.id, "Names": [one.name], "Labels": one.labels} for one in self.containers.values()]
            return 200, found
        found = self.containers.get(name) or next((c for c in self.containers.values() if c.id == name), None)
        if found is None:
            return 404, {"message": f"no such container: {name}", "cause": "", "response": 404}
        return await getattr(self, f"_{method.lower()}_{action}")(found, query, body)

    async def _get_json(self, found, query, body):
        return 200, found.told()

    async def _post_start(self, found, query, body):
        self.starting += 1
        self.most_starting = max(self.most_starting, self.starting)
        await found.start()
        self.starting -= 1
        return 204, None

    async def _post_kill(self, found, query, body):
        name = query["signal"][0].removeprefix("SIG")
        await found.sandbox.exec(f"kill -{name} $(cat /tmp/first)")
        return 204, None

    async def _post_exec(self, found, query, body):
        number = f"{next(self.numbers):064x}"
        self.execs[number] = found, json.loads(body)["Cmd"]
        return 201, {"Id": number}

    async def _put_archive(self, found, query, body):
        with tarfile.open(fileobj=io.BytesIO(body)) as tar:
            for member in tar:
                await found.sandbox.write(f"{query['path'][0]}/{member.name}", tar.extractfile(member).read())
        return 200, None

    async def _delete_(self, found, query, body):
        del self.containers[found.name]
        await found.end()
        return 204, None

    async def exec_start(self, number, writer):
        """Headers at once, then the output in frames, then the end of the connection.

        Docker's client loses what comes together with the headers, which no engine is fast enough for; here they wait.
        """
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n")
        await writer.drain()
        found, argv = self.execs.pop(number)
        out = await run_there(found.sandbox, argv)
        while unread(writer):
            await asyncio.sleep(0.001)
        if out:
            writer.write(struct.pack(">BxxxL", 1, len(out.encode())) + out.encode())

    async def serve(self, reader, writer):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            method, target, _ = head.split(" ", 2)
            headers = dict(re.findall(r"^([\w-]+): *(.*?)\r$", head.lower(), re.MULTILINE))
            body = await _body(reader, headers)
            url = urlsplit(target)
            if match := re.search(r"/exec/(\w+)/start$", url.path):
                await self.exec_start(match[1], writer)
                return
            status, content = await self.answer(method, url.path, parse_qs(url.query), body)
            text = b"" if content is None or method == "HEAD" else json.dumps(content).encode()
            writer.write(f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nApi-Version: 1.48\r\n"
                         f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n".encode() + text)  # fmt: skip
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def unread(writer):
    """Bytes that the other side has not taken yet; 0 where it has hung up."""
    try:
        return struct.unpack("i", fcntl.ioctl(writer.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4)))[0]
    except OSError:
        return 0


async def _body(reader, headers):
    if headers.get("transfer-encoding") == "chunked":
        parts = []
        while size := int(await reader.readline(), 16):
            parts.append(await reader.readexactly(size))
            await reader.readline()
        await reader.readline()
        return b"".join(parts)
    return await reader.readexactly(int(headers.get("content-length", 0)))


@asynccontextmanager
async def fake_engine(path):
    """An engine at a Unix socket; its containers end with it."""
    engine = FakeEngine()
    server = await asyncio.start_unix_server(engine.serve, path)
    try:
        yield engine
    finally:
        server.close()
        for container in list(engine.containers.values()):
            await container.end()
        await server.wait_closed()

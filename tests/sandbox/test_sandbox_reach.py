"""Addresses of the host in a remote sandbox, by messages. The computer is a folder of this machine: it needs a loopback."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from fake_kit import served
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from ludus.errors import ConfigError, SandboxUnavailable
from ludus.sandbox import SandboxSpec
from ludus.sandbox.remote.calls import in_thread
from ludus.sandbox.remote.sandbox import RemoteSandbox


class Folder(RemoteSandbox):
    """It contains nothing, and runs only what these tests wrote."""

    tier, unlimited = "none", ""

    @classmethod
    async def check(cls):
        pass

    async def _start(self):
        self.home = f"{self._folder}/work"

    async def _shell(self, script):
        def run():
            streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            return subprocess.run(["/bin/sh", "-c", script], check=False, start_new_session=True, **streams).stdout

        return await in_thread(run)

    async def _end_processes(self):
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and self._folder in (await asyncio.to_thread(_command_of, entry)):
                try:
                    os.kill(int(entry.name), signal.SIGKILL)
                except ProcessLookupError:
                    pass

    async def _remove(self):
        await self._end_processes()
        shutil.rmtree(self._folder, ignore_errors=True)

    @classmethod
    def transient(cls, error):
        return False


def _command_of(process):
    try:
        return (process / "cmdline").read_text(errors="replace")
    except OSError:
        return ""


ASK = """
import sys, urllib.request as r
data = sys.stdin.buffer.read()
print(r.urlopen(r.Request(sys.argv[1] + "/echo", data, {"X-Name": "me"})).read().decode())
"""


async def echo(request):
    body = await request.body()
    return PlainTextResponse(f"{request.headers['x-name']} sent {len(body)}")


async def parts(request):
    async def numbers():
        for number in range(20):
            yield f"{number}\n"
            await asyncio.sleep(0.01)

    return StreamingResponse(numbers())


APP = Starlette(routes=[Route("/v1/echo", echo, methods=["POST"]), Route("/v1/parts", parts)])


@pytest.fixture
async def sandbox():
    async with await Folder.create(SandboxSpec(network=())) as made:
        yield made


@pytest.mark.slow
async def test_programs_there_reach_an_address_here(sandbox):
    async with served(APP) as port:
        url = await sandbox.reach(f"http://127.0.0.1:{port}/v1")
        assert url.startswith("http://127.0.0.1:") and url.endswith("/v1") and str(port) not in url
        assert await sandbox.reach(f"http://127.0.0.1:{port}/other") == url.replace("v1", "other")
        asked = await asyncio.gather(
            *(sandbox.exec(["python3", "-c", ASK, url], stdin="x" * size) for size in (0, 10, 300_000))
        )
        assert [one.stdout for one in asked] == ["me sent 0\n", "me sent 10\n", "me sent 300000\n"]
        code = f"import urllib.request as r; len(r.urlopen('{url}/parts').read().splitlines())"
        assert (await sandbox.python(code)).stdout == "20\n"


@pytest.mark.slow
async def test_it_works_again_after_a_time_out_has_killed_everything(sandbox):
    async with served(APP) as port:
        url = await sandbox.reach(f"http://127.0.0.1:{port}/v1")
        assert (await sandbox.exec("sleep 60", timeout_s=0.2)).timed_out
        until = 'until python3 -c "$0" "$1" </dev/null 2>/dev/null; do sleep 0.1; done'
        asked = await sandbox.exec(["sh", "-c", until, ASK, url], timeout_s=20)
        assert asked.stdout == "me sent 0\n"


@pytest.mark.slow
async def test_who_is_not_there_is_not_there(sandbox):
    url = await sandbox.reach("http://127.0.0.1:9")
    said = await sandbox.exec(["python3", "-c", ASK, url], timeout_s=20)
    assert said.exit_code == 1 and "closed connection" in said.stderr


JUNK = """
import os, socket, sys
os.unlink(sys.argv[1])
with socket.socket(socket.AF_UNIX) as server:
    server.bind(sys.argv[1])
    server.listen()
    for _ in range(2):
        connection, _ = server.accept()
        connection.recv(1 << 16)
        connection.sendall(sys.argv[2].encode() + b"\\n")
        connection.close()
"""


@pytest.mark.slow
@pytest.mark.parametrize("answer", ['{"number": 1, "events": [[1, 2, "?"]]}', "{"])
async def test_a_server_there_that_was_replaced_hurts_nobody_else(sandbox, answer):
    await sandbox.reach("http://127.0.0.1:9")
    socket = f"{sandbox.relay_folder}/socket"
    await sandbox._end_processes()
    await sandbox.exec(["python3", "-c", JUNK, socket, answer], timeout_s=1)
    assert (await sandbox.exec("echo fine")).stdout == "fine\n"


async def test_what_can_not_be_reached():
    async with await Folder.create(SandboxSpec()) as made:
        with pytest.raises(SandboxUnavailable, match=r"network=\(\)"):
            await made.reach("http://127.0.0.1:1")
    async with await Folder.create(SandboxSpec(network=())) as made:
        with pytest.raises(ConfigError, match="begins with http://"):
            await made.reach("https://127.0.0.1:1")


@pytest.mark.slow
async def test_nothing_goes_on_after_the_end():
    before = asyncio.all_tasks()
    async with served(APP) as port:
        async with await Folder.create(SandboxSpec(network=())) as made:
            await made.reach(f"http://127.0.0.1:{port}/v1")
        assert not Path(made._folder).exists()
        names = {task.get_name() for task in asyncio.all_tasks() - before}
        assert not {name for name in names if "sandbox" in name}

"""The part of Modal's client that is used, for tests: sandboxes are local ones. Its own API is gRPC with a key exchange.

Each call is checked against the signature of the installed client, so that a name that has changed there is found here.
"""

from __future__ import annotations

import inspect
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import modal as real
from fake_kit import computer, run_there


class Checked:
    """A function of the client: `.aio`, as that of the client has it, with its arguments bound to its signature."""

    def __init__(self, like, work, bound=False):
        assert hasattr(like, "aio")
        self.signature = inspect.signature(like)
        self.work, self.first = work, (None,) if bound else ()

    async def aio(self, *args, **named):
        self.signature.bind(*self.first, *args, **named)
        return await self.work(*args, **named)


class FakeModal:
    def __init__(self):
        self.machines, self.asked, self.failing = {}, [], []
        self.App = SimpleNamespace(lookup=Checked(real.App.lookup, self.lookup))
        self.Sandbox = SimpleNamespace(create=Checked(real.Sandbox.create, self.create))
        self.Image = real.Image  # descriptions of images: nothing is built until a sandbox is made
        self.exception = real.exception

    async def lookup(self, name, create_if_missing):
        return name

    async def create(self, *argv, name, **asked):
        if self.failing:
            raise self.failing.pop(0)
        assert argv[:2] == ("/bin/sh", "-c")
        self.asked.append(asked)
        machine = self.machines[name] = await computer()

        async def execute(*argv, text):
            assert sum(map(len, argv)) <= 1 << 16  # more, the service refuses
            out = await run_there(machine, list(argv))

            async def read():
                return (out or "").encode()

            async def wait():
                return 0

            stream = SimpleNamespace(read=Checked(real.io_streams.StreamReader.read, read, bound=True))
            return SimpleNamespace(
                stdout=stream, wait=Checked(real.container_process.ContainerProcess.wait, wait, bound=True)
            )

        async def terminate():
            self.machines.pop(name, None)
            await machine.kill()

        async def write_bytes(data, remote_path):
            await machine.write(remote_path, data)

        files = real.Sandbox.filesystem.fget.__annotations__.get("return")
        return SimpleNamespace(
            exec=Checked(real.Sandbox.exec, execute, bound=True),
            terminate=Checked(real.Sandbox.terminate, terminate, bound=True),
            filesystem=SimpleNamespace(write_bytes=Checked(write_bytes_of(files), write_bytes, bound=True)),
        )


def write_bytes_of(_):
    from modal.sandbox._filesystem import _SandboxFilesystem  # its public face is made by a generator

    method = _SandboxFilesystem.write_bytes
    method.aio = method
    return method


@contextmanager
def fake_modal(monkeypatch):
    """The client in whose place an adapter finds this one."""
    service = FakeModal()
    monkeypatch.setitem(sys.modules, "modal", service)
    yield service

"""Containers of an engine on this machine or another: what Docker's and Podman's clients have in common.

The first process of a container is a shell that does nothing but to kill all others when it is told so, which takes no
new process, and to end after a day: what a process that died in the middle left behind goes away by itself, if the next
one on the same machine does not find it before.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import posixpath
import threading
from abc import abstractmethod
from collections import defaultdict
from pathlib import Path
from typing import Any, ClassVar

from ludus.errors import LudusError, SandboxFailed, SandboxUnavailable
from ludus.sandbox.remote import archive
from ludus.sandbox.remote.calls import in_thread, patiently, said
from ludus.sandbox.remote.owners import LABEL, is_orphan, owner
from ludus.sandbox.remote.sandbox import RemoteSandbox
from ludus.sandbox.spec import SandboxSpec

log = logging.getLogger(__name__)

IMAGE = "docker.io/library/python:3.12-slim"
POOL = 64
"""Connections that are kept."""
KEPT_CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID"]
"""What root in an image needs to install things; a container has no others, and no way to more."""
ENDED = "/tmp/.ludus-ended"
"""Where the first process notes how often it has killed all others."""
FIRST = f"""
ended=0
trap 'kill -9 -1; ended=$((ended + 1)); echo $ended >{ENDED}' USR1; trap exit TERM
end=$(($(date +%s) + 86400))
while [ "$(date +%s)" -lt "$end" ]; do sleep 60 & wait $!; done
"""
POLL_S = 0.02
PASSING = (409, 429, 500, 502, 503, 504)
"""Statuses of an engine under load, too."""

_connecting = threading.Lock()
_clients: dict[tuple[str, int], Any] = {}
_building: defaultdict[tuple[str, str], threading.Lock] = defaultdict(threading.Lock)
_images: dict[tuple[str, str], str] = {}


class Container(RemoteSandbox):
    """A container that is made for one rollout and removed after it."""

    unlimited = "disk_bytes and inodes"
    start_engine: ClassVar[str]
    """What to do where none answers."""
    _container: Any = None

    def __init__(self, spec: SandboxSpec) -> None:
        super().__init__(spec)
        self._ending_processes = asyncio.Lock()
        self._num_ended = 0

    @classmethod
    @abstractmethod
    def connect(cls) -> Any:
        """The engine's client. Raises MissingExtra, or what the client raises."""

    @classmethod
    @abstractmethod
    def options(cls) -> dict[str, Any]:
        """How this engine's client says that no process gains rights."""

    @classmethod
    def transient(cls, error: Exception) -> bool:
        status = status_of(error)
        return status in PASSING or (status is None and isinstance(error, OSError))

    @classmethod
    async def check(cls) -> None:
        await in_thread(cls._engine)

    async def _start(self) -> None:
        if self.spec.network not in ("none", ()):
            raise SandboxUnavailable(f"tier {self.tier!r} keeps no allow-list of hosts: network is 'none' or () there")
        client = await in_thread(self._engine)
        image = await in_thread(lambda: self._image(client))
        await patiently("start a container", lambda: in_thread(lambda: self._run_new(client, image)), self.transient)

    def _run_new(self, client: Any, image: str) -> None:
        remove(client, self.name)  # of a try before, whose answer was lost
        limits = self.spec.limits
        files = {"Name": "nofile", "Soft": limits.open_files, "Hard": limits.open_files}
        self._container = client.containers.create(
            image, entrypoint=["/bin/sh"], command=["-c", FIRST], name=self.name, labels={LABEL: owner()}, user="0",
            network_mode="none", auto_remove=True, mem_limit=limits.memory_bytes, memswap_limit=limits.memory_bytes,
            pids_limit=limits.processes, ulimits=[files], cap_drop=["ALL"], cap_add=KEPT_CAPABILITIES, **self.options(),
        )  # fmt: skip
        self._container.start()

    @classmethod
    def _engine(cls) -> Any:
        """The client, connected when first needed. Raises SandboxUnavailable, MissingExtra."""
        key = (cls.tier, os.getpid())  # a fork must not share its parent's connections
        with _connecting:
            if key not in _clients:
                try:
                    client = cls.connect()
                    client.ping()
                except LudusError:
                    raise
                except Exception as error:  # noqa: BLE001 - whatever its client raises, there is no engine
                    raise SandboxUnavailable(f"no {cls.tier} answers; {cls.start_engine} ({said(error)})") from None
                _remove_orphans(client)
                _clients[key] = client
            return _clients[key]

    def _image(self, client: Any) -> str:
        """The image that is asked for: there, pulled, or built from a folder. Raises SandboxFailed."""
        wanted = self.spec.image or IMAGE
        key = (self.tier, wanted)
        with _building[key]:  # of hundreds that ask for it, one does it
            if key not in _images:
                try:
                    _images[key] = (
                        _built(client, Path(wanted)) if Path(wanted).is_absolute() else _there(client, wanted)
                    )
                except Exception as error:  # noqa: BLE001 - whatever its client raises, there is no such image
                    raise SandboxFailed(f"there is no image {wanted}: {said(error)}", "environment") from None
            return _images[key]

    async def _shell(self, script: str) -> bytes:
        _, (out, _) = await in_thread(lambda: self._container.exec_run(["/bin/sh", "-c", script], user="0", demux=True))
        return out or b""

    async def _put(self, path: str, data: bytes) -> None:
        folder, name = posixpath.split(path)
        if not await in_thread(lambda: self._container.put_archive(folder, archive.one_file(name, data))):
            raise ConnectionError("the engine did not take an archive")

    async def _end_processes(self) -> None:
        """Have the first process do it, and wait until it has: what is run before that is killed as well."""
        async with self._ending_processes:  # two signals at once are one
            self._num_ended += 1
            await patiently("end processes", lambda: in_thread(lambda: self._container.kill("SIGUSR1")), self.transient)
            while int(await self._shell(f"cat {ENDED} 2>/dev/null") or 0) < self._num_ended:  # noqa: ASYNC110 - another computer
                await asyncio.sleep(POLL_S)

    async def _remove(self) -> None:
        client = _clients.get((self.tier, os.getpid()))
        if client is not None:
            await in_thread(lambda: remove(client, self.name))


def forget_clients() -> None:
    """Close the connections of this process to engines; the next sandbox connects anew."""
    with _connecting:
        while _clients:
            _clients.popitem()[1].close()
        _images.clear()


def remove(client: Any, name: str) -> None:
    """Remove a container, unless it is not there."""
    try:
        client.containers.get(name).remove(force=True, v=True)
    except Exception as error:
        if status_of(error) != 404:
            raise


def status_of(error: Exception) -> int | None:
    """The engine's answer, where an error is one."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _there(client: Any, name: str) -> str:
    try:
        client.images.get(name)
    except Exception as error:
        if status_of(error) != 404:
            raise
        log.info("pulling the image %s", name)
        client.images.pull(name)
        client.images.get(name)  # not every client says that there is no such image
    return name


def _built(client: Any, folder: Path) -> str:
    """An image from a folder with a Dockerfile, named after the content of its files."""
    digest = hashlib.blake2b(digest_size=12)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            for part in (path.relative_to(folder).as_posix().encode(), path.read_bytes()):
                digest.update(len(part).to_bytes(8, "big") + part)
    name = f"ludus-image:{digest.hexdigest()}"
    try:
        client.images.get(name)
    except Exception as error:
        if status_of(error) != 404:
            raise
        log.info("building an image from %s", folder)
        client.images.build(path=str(folder), tag=name, rm=True)
    return name


def _remove_orphans(client: Any) -> None:
    """Containers of processes that are no more. It is no harm if that fails: they end by themselves."""
    try:
        found = client.containers.list(all=True, filters={"label": [LABEL]}, ignore_removed=True)
        for container in found:
            if is_orphan(container.labels.get(LABEL, "")):
                log.warning("removing the container %s of a process that is no more", container.name)
                remove(client, container.name)
    except Exception as error:  # noqa: BLE001 - said, and done again by the next process
        log.warning("can't look for containers of processes that are no more: %s", said(error))

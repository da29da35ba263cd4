"""Sandboxes of Daytona, through its own client `daytona`. DAYTONA_API_KEY is the key; `image` is a name in a registry, or
a folder with a Dockerfile."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from ludus.errors import MissingExtra
from ludus.sandbox.remote.service import LIFETIME_S, Service

GIB = 1 << 30
START_S = 600
IDLE_MINUTES = 60
"""After so long without a call it is stopped, and with that removed."""

_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, Shared] = WeakKeyDictionary()


class Shared:
    """A client and the number of sandboxes that use it; the last one closes it."""

    def __init__(self, client: Any) -> None:
        self.client, self.users = client, 0


class DaytonaMachine(Service):
    """A sandbox at Daytona for one rollout."""

    tier = "daytona"
    unlimited = "processes and inodes, and memory and disk only in whole GiB of an `image`"
    key = "DAYTONA_API_KEY"
    unauthorised = ("DaytonaAuthenticationError", "DaytonaForbiddenError")
    passing = (
        "DaytonaRateLimitError",
        "DaytonaConnectionError",
        "DaytonaBadGatewayError",
        "DaytonaServiceUnavailableError",
    )
    _shared: Shared | None = None

    async def _make(self) -> Any:
        try:
            import daytona
        except ImportError:
            raise MissingExtra("a sandbox at Daytona", "daytona") from None
        self._use(daytona)
        assert self._shared is not None
        asked: dict[str, Any] = {
            "name": self.name, "labels": self.labels, "os_user": "root", "ephemeral": True,
            "auto_stop_interval": IDLE_MINUTES, "ttl_minutes": LIFETIME_S // 60, "network_block_all": not self.hosts,
            "domain_allow_list": ",".join(self.hosts) or None,
        }  # fmt: skip
        return await self._shared.client.create(self._params(daytona, asked), timeout=START_S)

    def _params(self, daytona: Any, asked: dict[str, Any]) -> Any:
        image, limits = self.spec.image, self.spec.limits
        if not image:
            return daytona.CreateSandboxFromSnapshotParams(**asked)
        resources = daytona.Resources(memory=-(-limits.memory_bytes // GIB), disk=-(-limits.disk_bytes // GIB))
        source = daytona.Image.from_dockerfile(Path(image) / "Dockerfile") if Path(image).is_absolute() else image
        return daytona.CreateSandboxFromImageParams(image=source, resources=resources, **asked)

    def _use(self, daytona: Any) -> None:
        """Take part in this loop's client."""
        if self._shared is None:
            loop = asyncio.get_running_loop()
            self._shared = _clients.get(loop) or _clients.setdefault(loop, Shared(daytona.AsyncDaytona()))
            self._shared.users += 1

    async def _shell(self, script: str) -> bytes:
        # its answer has what is said to stderr in it as well
        command = f"exec /bin/sh -c {shlex.quote(script)} 2>/dev/null"
        result = await self._machine.process.exec(command, timeout=LIFETIME_S)
        return str(result.result or "").encode()

    async def _put(self, path: str, data: bytes) -> None:
        await self._machine.fs.upload_file(data, path)

    async def _remove(self) -> None:
        if self._machine is not None:
            machine, self._machine = self._machine, None
            try:
                await machine.delete()
            except Exception as error:
                if type(error).__name__ != "DaytonaNotFoundError":
                    self._machine = machine
                    raise
        if self._shared is not None:
            shared, self._shared = self._shared, None
            shared.users -= 1
            if not shared.users:
                _clients.pop(asyncio.get_running_loop(), None)
                await shared.client.close()

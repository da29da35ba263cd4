"""Machines of E2B, through its own client `e2b`. E2B_API_KEY is the key; `image` is the name of a template."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Any

from ludus.errors import MissingExtra, SandboxUnavailable
from ludus.sandbox.remote.service import Service

LEASE_S = 3600
"""The longest that every plan allows; it is extended while the sandbox is used."""
RENEW_S = 600


class Machine(Service):
    """A virtual machine for one rollout."""

    tier = "e2b"
    unlimited = "memory, processes, disk and inodes: its template does"
    key = "E2B_API_KEY"
    unauthorised = ("AuthenticationException",)
    passing = ("RateLimitException", "ServiceBusyException", "TransportError")
    _renew_at = 0.0

    async def _make(self) -> Any:
        try:
            from e2b import ALL_TRAFFIC, AsyncSandbox
        except ImportError:
            raise MissingExtra("a sandbox at E2B", "e2b") from None
        if Path(self.spec.image).is_absolute():
            raise SandboxUnavailable("E2B makes machines from templates: build one, and give its name as `image`")
        network: Any = {"deny_out": [ALL_TRAFFIC]} | ({"allow_out": self.hosts} if self.hosts else {})
        self._renew_at = time.monotonic() + RENEW_S
        return await AsyncSandbox.create(
            self.spec.image or None, timeout=LEASE_S, metadata=self.labels, network=network,
            allow_internet_access=bool(self.hosts), lifecycle={"on_timeout": "kill"}, idempotency_key=self.name,
        )  # fmt: skip

    async def _shell(self, script: str) -> bytes:
        from e2b import CommandExitException

        if time.monotonic() > self._renew_at:
            self._renew_at = time.monotonic() + RENEW_S
            await self._machine.set_timeout(LEASE_S)
        command = f"exec /bin/sh -c {shlex.quote(script)}"
        try:
            result = await self._machine.commands.run(command, user="root", timeout=0)
        except CommandExitException as ended:
            result = ended
        return str(result.stdout).encode()

    async def _put(self, path: str, data: bytes) -> None:
        await self._machine.files.write(path, data, user="root")

    async def _remove(self) -> None:
        if self._machine is not None:
            await self._machine.kill()

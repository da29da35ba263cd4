"""What the services that rent out computers have in common. Each finds its key in the environment, as its client says.

Keys stay in this process: what a computer there is given is the spec's own environment and nothing else.
"""

from __future__ import annotations

from abc import abstractmethod
from importlib import import_module
from typing import Any, ClassVar

from ludus.errors import MissingExtra, SandboxUnavailable
from ludus.sandbox.remote.calls import patiently, said
from ludus.sandbox.remote.owners import LABEL, owner
from ludus.sandbox.remote.sandbox import RemoteSandbox

LIFETIME_S = 86_400
"""After that a service removes a computer that nobody has removed."""


class Service(RemoteSandbox):
    """A computer at a service."""

    alone = False
    key: ClassVar[str]
    """The variable that has the key."""
    unauthorised: ClassVar[tuple[str, ...]]
    """Names of the client's errors that mean: no key, or a wrong one."""
    passing: ClassVar[tuple[str, ...]]
    """Names of the client's errors that may pass."""
    _machine: Any = None

    @classmethod
    async def check(cls) -> None:
        try:
            import_module(cls.tier)
        except ImportError:
            raise MissingExtra(f"a sandbox of the tier {cls.tier!r}", cls.tier) from None

    @abstractmethod
    async def _make(self) -> Any:
        """The client's object for a new computer."""

    async def _start(self) -> None:
        try:
            self._machine = await patiently(f"start a sandbox at {self.tier}", self._attempt, self.transient)
        except _Unauthorised as error:
            raise SandboxUnavailable(f"{self.tier} lets nobody in: set {self.key} to a valid key ({error})") from None

    async def _attempt(self) -> Any:
        try:
            return await self._make()
        except Exception as error:
            if _is_one_of(error, self.unauthorised):
                raise _Unauthorised(said(error)) from None
            raise

    @classmethod
    def transient(cls, error: Exception) -> bool:
        return _is_one_of(error, cls.passing) or isinstance(error, OSError)

    @property
    def labels(self) -> dict[str, str]:
        """What a computer is found by if this process dies."""
        return {LABEL: owner(), "ludus.name": self.name}

    @property
    def hosts(self) -> list[str]:
        """Names of hosts that may be reached. Raises SandboxUnavailable for single ports, which nobody can limit."""
        hosts = [] if self.spec.network == "none" else list(self.spec.network)
        for host in hosts:
            if ":" in host:
                raise SandboxUnavailable(
                    f"tier {self.tier!r} can allow hosts but no single ports: {host!r} in `network`"
                )
        return hosts


class _Unauthorised(SandboxUnavailable):
    pass


def _is_one_of(error: Exception, names: tuple[str, ...]) -> bool:
    return any(kind.__name__ in names for kind in type(error).__mro__)

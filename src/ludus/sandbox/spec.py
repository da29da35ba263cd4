"""What a sandbox may use, and what it is to contain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from ludus.errors import ConfigError, UnknownName

MIB = 1 << 20
Tier = Literal["auto", "namespaces", "landlock", "none"]
TIERS = ("auto", "namespaces", "landlock", "none")
MOST_OUTPUT = 16 * MIB


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What all processes of a sandbox may use together, unless it says "each"."""

    memory_bytes: int = 512 * MIB
    """Main memory, files in the sandbox included; swap is not used."""
    processes: int = 64
    """Processes and threads."""
    disk_bytes: int = 256 * MIB
    """Files that are written; they live in memory."""
    inodes: int = 10_000
    """Files, folders and links."""
    file_bytes: int = 128 * MIB
    """Size of each file."""
    open_files: int = 256
    """Descriptors of each process."""
    output_bytes: int = MIB
    """Kept of each call's stdout and of its stderr; what is beyond is dropped and the result says `truncated`."""
    cpu_s: int = 3600
    """Processor time of each process, in seconds."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"Limits: {name} must be a whole number of at least 1, got {value!r}")
        if self.output_bytes > MOST_OUTPUT:
            raise ConfigError(f"Limits: output_bytes may be {MOST_OUTPUT} at most, got {self.output_bytes}")
        if self.memory_bytes < 16 * MIB:
            raise ConfigError(f"Limits: memory_bytes must be {16 * MIB} (16 MiB) at least, got {self.memory_bytes}")


class SandboxSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One sandbox."""

    limits: Limits = Limits()
    network: str = "none"
    """Only "none": no address can be reached, not even the machine's own."""
    env: Mapping[str, str] = {}
    """Environment variables beside PATH, HOME, LANG and TMPDIR; nothing of the host's environment is passed on."""
    files: Mapping[str, str | bytes] = {}
    """Contents by path, relative to the sandbox's home; they are there before code runs."""
    tier: Tier = "auto"
    """How it is contained: "namespaces", "landlock", or the better of the two that this machine can do ("auto").
    "none" contains nothing, and is used only where it is asked for."""

    def __post_init__(self) -> None:
        if self.network != "none":
            raise ConfigError(
                f"network={self.network!r}: sandboxes of this machine have no network; use network='none'"
            )
        if self.tier not in TIERS:
            raise UnknownName("tier", str(self.tier), TIERS)
        checked_environment(self.env)


def checked_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The variables, if a process can be given them. Raises ConfigError."""
    for name, value in env.items():
        text = isinstance(name, str) and isinstance(value, str)
        if not text or not name or "=" in name or "\0" in name + value:
            raise ConfigError(f"env: expected names without '=' and values of text; {name!r} is not so")
    return dict(env)

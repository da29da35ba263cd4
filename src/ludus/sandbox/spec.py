"""What a sandbox may use, and what it is to contain."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Literal

import msgspec

from ludus.errors import ConfigError, UnknownName
from ludus.sandbox.hosts import parse_host

MIB = 1 << 20
LOCAL = ("auto", "namespaces", "landlock", "none")
"""Tiers of this machine itself."""
REMOTE = ("docker", "podman", "kubernetes", "e2b", "modal", "daytona")
"""Container engines and services, each behind an extra of its own."""
MOST_OUTPUT = 16 * MIB
MOST_FOLDERS, LONGEST_FOLDER = 64, 255
LEAST = {"memory_bytes": 16 * MIB, "inodes": 16, "open_files": 16}
"""Below these a sandbox itself does not work."""


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
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise ConfigError(f"Limits: {name} must be {least} at least, got {getattr(self, name)}")


class SandboxSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One sandbox."""

    limits: Limits = Limits()
    network: Literal["none"] | tuple[str, ...] = "none"
    """ "none": no address can be reached, not even its own. Names of hosts: these alone can be reached, through a proxy
    that the usual environment variables name; `pypi.org` is its ports 80 and 443, `pypi.org:8080` that one,
    `*.pypi.org` every name below. () is no host, but then `reach` may open single addresses."""
    folders: tuple[str, ...] = ()
    """Absolute paths of folders that are there, empty and writable, beside its home, /tmp and /dev/shm."""
    packages: tuple[str, ...] = ()
    """Folders of this machine with Python packages, such as `sysconfig.get_path("purelib")`: code can read and import what
    is in them, and nothing else of this Python's packages."""
    image: str = ""
    """What a container is made from; "" is the programs of this machine, or a service's own image."""
    env: Mapping[str, str] = {}
    """Environment variables beside PATH, HOME, LANG and TMPDIR; nothing of the host's environment is passed on."""
    files: Mapping[str, str | bytes] = {}
    """Contents by path, relative to the sandbox's home; they are there before code runs."""
    tier: str = "auto"
    """How it is contained: "namespaces", "landlock", or the better of the two that this machine can do ("auto"); one of
    `REMOTE`. "none" contains nothing, and is used only where it is asked for."""

    def __post_init__(self) -> None:
        if self.tier not in LOCAL + REMOTE:
            raise UnknownName("tier", str(self.tier), LOCAL + REMOTE)
        if self.network != "none" and (
            isinstance(self.network, str) or not all(isinstance(host, str) and host for host in self.network)
        ):
            raise ConfigError(f"network: expected 'none' or names of hosts, got {self.network!r}")
        for host in () if self.network == "none" else self.network:
            parse_host(host)
        if isinstance(self.folders, str) or len(self.folders) > MOST_FOLDERS:
            raise ConfigError(f"folders: expected at most {MOST_FOLDERS} absolute paths, got {self.folders!r:.200}")
        for folder in self.folders:
            if not _is_folder(folder):
                raise ConfigError(f"folders: expected absolute paths such as /app, got {folder!r:.200}")
        if isinstance(self.packages, str) or not all(map(_is_folder, self.packages)):
            raise ConfigError(f"packages: expected absolute paths of folders, got {self.packages!r:.200}")
        checked_environment(self.env)


def _is_folder(path: object) -> bool:
    if not isinstance(path, str) or not path.startswith("/") or path.startswith("//") or "\0" in path:
        return False
    try:
        return posixpath.normpath(path) == path and len(path.encode()) <= LONGEST_FOLDER
    except UnicodeEncodeError:
        return False


def checked_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The variables, if a process can be given them. Raises ConfigError."""
    for name, value in env.items():
        text = isinstance(name, str) and isinstance(value, str)
        if not text or not name or "=" in name or "\0" in name + value:
            raise ConfigError(f"env: expected names without '=' and values of text; {name!r} is not so")
    return dict(env)

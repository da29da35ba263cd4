"""Landlock: which of the host's files a process may open, by path, where the kernel refuses namespaces."""

# System calls by their own names: these processes are forked often, and are small.
# ruff: noqa: PTH112
from __future__ import annotations

import os
import struct

from . import linux

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
MAKE_CHAR, MAKE_BLOCK = 1 << 6, 1 << 11
TCP = 0b11
"""bind and connect; of ABI 4."""
SCOPES = 0b11
"""Abstract unix sockets and signals of processes outside; of ABI 6."""
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV


def abi() -> int:
    """The version that this kernel has; 0 for none."""
    try:
        return linux.syscall("landlock_create_ruleset", None, 0, 1)
    except OSError:
        return 0


def restrict(readable: list[str], writable: list[str], devices: list[str]) -> None:
    """Refuse all files but these, TCP, and signals to processes outside. Raises OSError."""
    version = abi()
    if version < 6:
        raise OSError(f"the landlock tier needs Landlock ABI 6 (Linux 6.12), this kernel has {version}")
    files = (1 << 16) - 1
    attributes = struct.pack("<QQQ", files, TCP, SCOPES)
    rules = linux.syscall("landlock_create_ruleset", attributes, len(attributes), 0)
    try:
        for path in readable:
            _allow(rules, path, EXECUTE | READ_FILE | READ_DIR)
        for path in writable:
            _allow(rules, path, files & ~(MAKE_CHAR | MAKE_BLOCK))
        for path in devices:
            _allow(rules, path, READ_FILE | WRITE_FILE)
        linux.syscall("landlock_restrict_self", rules, 0)
    finally:
        os.close(rules)


def _allow(rules: int, path: str, rights: int) -> None:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        allowed = rights if os.path.isdir(path) else rights & FILE_RIGHTS
        linux.syscall("landlock_add_rule", rules, 1, struct.pack("<Qi", allowed, fd), 0)
    finally:
        os.close(fd)

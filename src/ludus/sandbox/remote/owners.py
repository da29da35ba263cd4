"""Whose sandboxes are whose: a label on each, so that those of a process that died in the middle can be found."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path

LABEL = "ludus.owner"


def owner() -> str:
    """This process, in letters, digits and dots; "" where a process can't be told from a later one of its number."""
    return f"{_place()}.{os.getpid()}.{_begun(os.getpid())}" if _place() else ""


def is_orphan(label: str) -> bool:
    """Whether a label names a process of this machine that is no more."""
    place, _, rest = label.partition(".")
    pid, _, begun = rest.partition(".")
    return bool(place) and place == _place() and pid.isdigit() and _begun(int(pid)) != begun


@cache
def _place() -> str:
    """This machine since it was started, and the process namespace here."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        namespace = Path("/proc/self/ns/pid").readlink()
    except OSError:
        return ""
    return hashlib.blake2b(f"{boot}{namespace}".encode(), digest_size=8).hexdigest()


def _begun(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return words[19]

"""The file tree that a sandbox sees: built once by the zygote, completed in each sandbox.

The zygote moves into a small read-only tree: the host's programs, the Python that runs this, five devices and nothing
else. Each sandbox starts from a copy of it, so that all it has to add is its own writable memory disk (at its home,
/tmp and /dev/shm) and its own /proc; the host's files are not hidden there, they are absent.
"""

# System calls by their own names: these processes are forked often, and are small.
# ruff: noqa: PTH102, PTH110, PTH112, PTH114, PTH115, PTH211
from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from . import linux

HOME = "/work"
PROGRAMS = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin")
SETTINGS = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime")
DEVICES = ("null", "zero", "full", "random", "urandom")
LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}
WRITABLE = {"home": HOME, "tmp": "/tmp", "shm": "/dev/shm"}
FILES = {
    "/etc/passwd": "user:x:1000:1000::/work:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    "/etc/group": "user:x:1000:\nnogroup:x:65534:\n",
    "/etc/hosts": "127.0.0.1 localhost sandbox\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
INSIDE_ID = 1000


def read_only_paths() -> list[str]:
    """What of the host is visible: programs, libraries and the Python that runs this."""
    wanted = [*PROGRAMS, *SETTINGS, str(Path(sys.base_prefix).resolve())]
    kept: list[str] = []
    for path in wanted:
        inside_another = any(Path(path).is_relative_to(other) for other in kept)
        if os.path.exists(path) and not inside_another:
            kept.append(path)
    return kept


def enter_template() -> None:
    """Move this process, whose mounts must be its own already, into the read-only tree. Raises OSError."""
    paths = read_only_paths()
    for path in (*paths, sys.base_prefix):
        if any(Path(path).is_relative_to(place) for place in WRITABLE.values()):
            raise OSError(f"the Python in {path} is hidden in a sandbox, which has a /{Path(path).parts[1]} of its own")
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    base = _place_outside(paths)
    linux.mount("tmpfs", base, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "size=1m,nr_inodes=512,mode=0755")
    for path in paths:
        _show(path, base)
    named = Path(base + sys.base_prefix)  # its libraries are looked up by this name, which may be a link
    if not named.exists():
        named.parent.mkdir(parents=True, exist_ok=True)
        named.symlink_to(Path(sys.base_prefix).resolve())
    for name in DEVICES:
        _bind(f"/dev/{name}", f"{base}/dev/{name}")
    _bind("/proc", f"{base}/proc")
    for name, target in LINKS.items():
        os.symlink(target, f"{base}/dev/{name}")
    for path, text in FILES.items():
        Path(base + path).parent.mkdir(exist_ok=True)
        Path(base + path).write_text(text)
    for folder in ("/box", "/empty", "/etc", *WRITABLE.values()):
        Path(base + folder).mkdir(exist_ok=True)
    os.chdir(base)
    linux.syscall("pivot_root", b".", b".")
    linux.unmount(".")
    os.chdir("/")
    remount = linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY | linux.MS_NOSUID | linux.MS_NODEV
    linux.mount("none", "/", flags=remount)


def complete() -> None:
    """Add a sandbox's own disk and /proc to its copy of the tree. Raises OSError."""
    flags = linux.MS_NOSUID | linux.MS_NODEV
    owner = f"uid={INSIDE_ID},gid={INSIDE_ID},mode=0700"
    linux.mount("tmpfs", "/box", "tmpfs", flags, f"size=64k,nr_inodes=16,{owner}")
    for name, place in WRITABLE.items():
        os.mkdir(f"/box/{name}", 0o755)
        linux.mount(f"/box/{name}", place, flags=linux.MS_BIND)
    linux.mount("/empty", "/box", flags=linux.MS_BIND)
    # only processes: the machine's own files in /proc say much about the host
    linux.mount("proc", "/proc", "proc", flags | linux.MS_NOEXEC, "subset=pid")
    os.chdir(HOME)


def set_size(disk_bytes: int, inodes: int) -> None:
    """Give a sandbox's own disk its size. Raises OSError."""
    flags = linux.MS_REMOUNT | linux.MS_NOSUID | linux.MS_NODEV
    linux.mount("tmpfs", HOME, "tmpfs", flags, f"size={disk_bytes},nr_inodes={inodes}")


def _place_outside(paths: list[str]) -> str:
    """A folder to build the tree on that hides nothing of what goes into it."""
    for place in ("/mnt", "/media", "/srv", "/opt", "/home", "/tmp"):
        if os.path.isdir(place) and not any(Path(path).is_relative_to(place) for path in paths):
            return place
    raise OSError("no folder to mount the sandboxes' file tree on; expected one of /mnt, /media, /srv, /opt, /tmp")


def _show(path: str, base: str) -> None:
    """The host's `path` at the same place in the tree, read-only; a link stays a link."""
    target = Path(base + path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if os.path.islink(path) and path in PROGRAMS:
        os.symlink(os.readlink(path), target)
        return
    _bind(os.path.realpath(path), str(target))
    linux.lock_mount(str(target))


def _bind(source: str, target: str) -> None:
    if os.path.isdir(source):
        Path(target).mkdir(parents=True, exist_ok=True)
    else:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            Path(target).touch(exist_ok=False)
    linux.mount(source, target, flags=linux.MS_BIND | linux.MS_REC)

"""The file tree that a sandbox sees: built once by the zygote, completed in each sandbox.

The zygote moves into a small read-only tree: the host's programs, the Python that runs this, five devices and nothing
else. Each sandbox starts from a copy of it, so that all it has to add is its own writable memory disk (at its home,
/tmp and /dev/shm) and its own /proc; the host's files are not hidden there, they are absent.
"""

# System calls by their own names: these processes are forked often, and are small.
# ruff: noqa: PTH102, PTH103, PTH110, PTH112, PTH114, PTH115, PTH208, PTH211
from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from . import linux

HOME = "/work"
PROGRAMS = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin")
SETTINGS = (
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime",
    "/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/pki/tls/certs", "/etc/pki/ca-trust/extracted",
)  # fmt: skip
DEVICES = ("null", "zero", "full", "random", "urandom")
LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}
WRITABLE = {"home": HOME, "tmp": "/tmp", "shm": "/dev/shm"}
FILES = {
    "/etc/passwd": "user:x:1000:1000::/work:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    "/etc/group": "user:x:1000:\nnogroup:x:65534:\n",
    "/etc/hosts": "127.0.0.1 localhost sandbox\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
PACKAGES = "/packages"
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


def package_paths(tier: str, packages: Sequence[str]) -> list[str]:
    """Where a sandbox finds the folders of the host that hold packages."""
    return [f"{PACKAGES}/{number}" if tier == "namespaces" else path for number, path in enumerate(packages)]


def enter_template(packages: Sequence[str]) -> None:
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
    for path, place in zip(packages, package_paths("namespaces", packages), strict=True):
        _bind(path, base + place)
        linux.lock_mount(base + place)
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
    _move_into(base)


def complete() -> None:
    """Add a sandbox's own disk and /proc to its copy of the tree. Raises OSError."""
    flags = linux.MS_NOSUID | linux.MS_NODEV
    owner = f"uid={INSIDE_ID},gid={INSIDE_ID},mode=0700"
    linux.mount("tmpfs", "/box", "tmpfs", flags, f"size=64k,nr_inodes=16,{owner}")
    for name, place in WRITABLE.items():
        os.mkdir(f"/box/{name}", 0o755)
        linux.mount(f"/box/{name}", place, flags=linux.MS_BIND)
    # only processes: the machine's own files in /proc say much about the host
    linux.mount("proc", "/proc", "proc", flags | linux.MS_NOEXEC, "subset=pid")
    os.chdir(HOME)


def finish(disk_bytes: int, inodes: int, folders: Sequence[str]) -> None:
    """Give a sandbox's own disk its size, and show it at these folders as well. Raises OSError."""
    flags = linux.MS_REMOUNT | linux.MS_NOSUID | linux.MS_NODEV
    linux.mount("tmpfs", "/box", "tmpfs", flags, f"size={disk_bytes},nr_inodes={inodes}")
    there = tuple(WRITABLE.values())
    places = [path for path in folders if not any(is_below(path, other) for other in (*there, *folders))]
    if set(places) - set(there):
        _add_places(sorted(set(places) - set(there)))
    else:
        linux.mount("/empty", "/box", flags=linux.MS_BIND)
    for path in folders:
        os.makedirs(path, exist_ok=True)  # those within another


def unusable(folder: str) -> str:
    """Why the tree can't have a writable folder at this place; "" where it can."""
    if any(folder == place or is_below(folder, place) for place in WRITABLE.values()):
        return ""
    for path in (*read_only_paths(), sys.base_prefix, *FILES, PACKAGES, "/dev", "/proc"):
        if folder == path or is_below(path, folder):
            return f"it would hide {path}"
        if is_below(folder, path):
            return f"it is in {path}, which is read-only"
    return ""


def is_below(path: str, folder: str) -> bool:
    """Whether an absolute path leads to something in a folder."""
    return path != folder and path.startswith(folder.rstrip("/") + "/")


def _add_places(places: list[str]) -> None:
    """Move this process from its copy of the tree into another that has places for these folders too."""
    base = "/empty"
    linux.mount("tmpfs", base, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "size=1m,nr_inodes=1024,mode=0755")
    for name in sorted({*os.listdir("/")} - {"box", "empty"}):
        _repeat(f"/{name}", base, places)
    for number, place in enumerate(places):
        os.mkdir(f"/box/{number}", 0o755)
        os.makedirs(base + place, exist_ok=True)
        linux.mount(f"/box/{number}", base + place, flags=linux.MS_BIND)
    _move_into(base)
    os.chdir(HOME)


def _repeat(path: str, base: str, places: list[str]) -> None:
    """Show something of the tree at the same place of another; what places are in is made anew."""
    if os.path.islink(path):
        os.symlink(os.readlink(path), base + path)
    elif any(is_below(place, path) for place in places):
        os.mkdir(base + path)
        for name in os.listdir(path):
            _repeat(f"{path}/{name}", base, places)
    else:
        _bind(path, base + path)


def _move_into(base: str) -> None:
    """Make a tree the root of this process, read-only, and forget the one before."""
    os.chdir(base)
    linux.syscall("pivot_root", b".", b".")
    linux.unmount(".")
    os.chdir("/")
    remount = linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY | linux.MS_NOSUID | linux.MS_NODEV
    linux.mount("none", "/", flags=remount)


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

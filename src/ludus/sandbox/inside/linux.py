"""The system calls that Python has no name for, by number, for x86_64 and aarch64."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct

MACHINE = os.uname().machine

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x00020000, 0x02000000, 0x04000000
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x08000000, 0x10000000, 0x20000000, 0x40000000
CLONE_PIDFD = 0x1000
SIGCHLD = 17

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 0x20, 0x1000, 0x4000, 0x40000
MNT_DETACH = 2

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP = 1, 4, 22, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 36, 38, 47, 4

# name: (x86_64, aarch64); from 424 on all architectures agree
_NUMBERS = {"clone": (56, 220), "pivot_root": (155, 41), "capset": (126, 91), "mount_setattr": (442, 442)}
_NUMBERS |= {"landlock_create_ruleset": (444, 444), "landlock_add_rule": (445, 445)}
_NUMBERS |= {"landlock_restrict_self": (446, 446), "close_range": (436, 436), "openat2": (437, 437)}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc_with_gil = ctypes.PyDLL(None, use_errno=True)  # the child of a clone must own the interpreter when it wakes up
_libc_with_gil.syscall.restype = ctypes.c_long


def number(name: str) -> int:
    """The number of a system call on this machine. Raises OSError on other architectures."""
    if MACHINE not in ("x86_64", "aarch64"):
        raise OSError(f"sandboxes know the system calls of x86_64 and aarch64; this machine is {MACHINE}")
    return _NUMBERS[name][MACHINE == "aarch64"]


def _checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def syscall(name: str, *args: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """One system call. Raises OSError."""
    words = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    return _checked(_libc.syscall(ctypes.c_long(number(name)), *words), name)


def clone(flags: int) -> tuple[int, int]:
    """Fork into new namespaces, in a process of one thread.

    Returns:
        (0, -1) in the child; in the parent the child's pid and a pidfd of it.
    """
    pidfd = ctypes.c_int(-1)
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = _libc_with_gil.syscall(
        ctypes.c_long(number("clone")),
        ctypes.c_ulong(flags | CLONE_PIDFD | SIGCHLD),
        ctypes.c_long(0),
        ctypes.byref(pidfd),
        ctypes.c_long(0),
        ctypes.c_long(0),
    )
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0, -1
    code = ctypes.get_errno()
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(code, f"clone into new namespaces: {os.strerror(code)}")
    return pid, pidfd.value


def unshare(flags: int) -> None:
    """Leave the shared namespaces. Raises OSError."""
    _checked(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2). Raises OSError that names the target."""
    code = _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode())
    _checked(code, f"mount {kind or source} on {target}")


def unmount(target: str) -> None:
    """Take a mount away once nobody uses it. Raises OSError."""
    _checked(_libc.umount2(target.encode(), MNT_DETACH), f"umount {target}")


def lock_mount(path: str) -> None:
    """Make a mount and all below it read-only, without set-user-id programs or device files. Raises OSError."""
    read_only, nosuid, nodev = 1, 2, 4
    attributes = struct.pack("<QQQQ", read_only | nosuid | nodev, 0, 0, 0)
    recursive, here = 0x8000, -100
    syscall("mount_setattr", here, path.encode(), recursive, attributes, len(attributes))


def prctl(option: int, value: int = 0, third: int = 0) -> None:
    """prctl(2) with the arguments that are needed here. Raises OSError."""
    words = [ctypes.c_ulong(word) for word in (value, third, 0, 0)]
    _checked(_libc.prctl(option, *words), f"prctl {option}")


def drop_capabilities() -> None:
    """Give up all capabilities, also those that a later program could bring. Raises OSError."""
    for capability in range(64):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:  # past the last one that this kernel knows
            break
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    version_3 = struct.pack("<Ii", 0x20080522, 0)
    syscall("capset", version_3, bytes(24))
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def install_filter(program: bytes) -> None:
    """Put a seccomp program, 8 bytes an instruction, before all further system calls. Raises OSError."""
    buffer = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    filtered = 2
    code = _libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(filtered), ctypes.c_char_p(head), ctypes.c_ulong(0))
    _checked(code, "seccomp")


def open_below(folder: int, path: str) -> int:
    """A descriptor of a folder below another, on a way without links. Raises OSError."""
    no_links, below = 0x06, 0x08
    how = struct.pack("<QQQ", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, 0, no_links | below)
    return syscall("openat2", folder, os.fsencode(path), how, len(how))


def loopback_up() -> None:
    """Let programs of this network namespace reach each other. Raises OSError."""
    set_flags, up = 0x8914, 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sh22x", b"lo", up))


def close_all_but(keep: set[int]) -> None:
    """Close every descriptor from 3 on but these."""
    low, last = 3, (1 << 31) - 1
    for fd in [*sorted(keep - {0, 1, 2}), last]:
        if fd > low:
            syscall("close_range", low, fd - 1, 0)
        low = fd + 1

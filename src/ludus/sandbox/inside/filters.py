"""The system-call filter: what the kernel refuses to code in a sandbox whatever else fails (seccomp, classic BPF).

A deny list, because model-written code may use any ordinary program. Refused are ways to the kernel's rarely tested
parts, to other processes' memory, to the host's keys and clock, and to new namespaces; sockets only of AF_UNIX, and TCP
and UDP where a sandbox has a network. Call numbers that are newer than this list answer "no such call", for which C
libraries have their own way round.
"""

from __future__ import annotations

import struct

ALLOW, KILL = 0x7FFF0000, 0x80000000
EPERM, ENOSYS, EAFNOSUPPORT = 1, 38, 97
AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10
STREAM, DATAGRAM, KINDS = 1, 2, 0xF
PROTOCOLS = (0, 6, 17)
"""Of internet sockets: the kind's own, TCP, UDP."""
NEWEST = 462
"""mseal, of Linux 6.10: the last call that was looked at."""

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32 = 0x40000000

# name: (x86_64, aarch64); 42, nfsservctl, where aarch64 has none
DENIED: dict[str, tuple[int, int]] = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442), "statmount": (457, 457), "listmount": (458, 458),
    "unshare": (272, 97), "setns": (308, 268), "sethostname": (170, 161), "setdomainname": (171, 162),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263), "quotactl": (179, 60), "quotactl_fd": (443, 443), "acct": (163, 89),
    "swapon": (167, 224), "swapoff": (168, 225), "lookup_dcookie": (212, 18),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "memfd_secret": (447, 447),
    "lsm_set_self_attr": (460, 460),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "reboot": (169, 142), "syslog": (103, 116), "vhangup": (153, 58),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171),
    "personality": (135, 92), "move_pages": (279, 239), "migrate_pages": (256, 238), "mbind": (237, 235),
    "set_mempolicy": (238, 237), "nfsservctl": (180, 42),
    "iopl": (172, 42), "ioperm": (173, 42), "modify_ldt": (154, 42), "uselib": (134, 42), "ustat": (136, 42),
    "sysfs": (139, 42), "_sysctl": (156, 42),
}  # fmt: skip
UNCOUNTED: dict[str, tuple[int, int]] = {
    "memfd_create": (319, 279), "shmget": (29, 194), "msgget": (68, 186), "mq_open": (240, 180),
}  # fmt: skip
"""Memory that belongs to no process; refused where no cgroup counts it."""
CLONE, CLONE3, IOCTL, PRLIMIT = (56, 220), (435, 435), (16, 29), (302, 261)
SOCKETS = ((41, 198), (53, 199))
NEW_NAMESPACES = 0x7E020000
TERMINAL_INPUT = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX: typing on behalf of others."""

_NUMBER, _ARCHITECTURE, _FIRST, _SECOND, _THIRD = 0, 4, 16, 24, 32  # offsets in struct seccomp_data


def program(machine: str, counted: bool, unix_sockets: bool = True, internet: bool = False) -> bytes:
    """The filter for a machine, 8 bytes an instruction.

    Args:
        machine: "x86_64" or "aarch64".
        counted: whether a cgroup counts all memory.
        unix_sockets: whether AF_UNIX sockets can be made by name; pairs always can.
        internet: whether sockets of TCP and UDP can be made.

    Raises:
        KeyError: another machine.
    """
    arm = machine == "aarch64"
    code = [_load(_ARCHITECTURE), _equal(ARCHITECTURES[machine], 1, 0), _answer(KILL), _load(_NUMBER)]
    if not arm:
        code += [_at_least(X32, 0, 1), _refuse(ENOSYS)]
    code += [_more_than(NEWEST, 0, 1), _refuse(ENOSYS)]
    code += [_equal(CLONE3[arm], 0, 1), _refuse(ENOSYS)]  # its flags are out of a filter's sight; clone's are not
    refused = {**DENIED, **({} if counted else UNCOUNTED)}
    for number in sorted({numbers[arm] for numbers in refused.values()}):
        code += [_equal(number, 0, 1), _refuse(EPERM)]
    code += [_equal(CLONE[arm], 0, 4), _load(_FIRST), _any_bit(NEW_NAMESPACES, 0, 1), _refuse(EPERM), _answer(ALLOW)]
    # of itself alone: the sandbox's first process has the same user
    code += [_equal(PRLIMIT[arm], 0, 4), _load(_FIRST), _equal(0, 1, 0), _refuse(EPERM), _answer(ALLOW)]
    by_name, pair = (numbers[arm] for numbers in SOCKETS)
    sockets = _sockets(unix_sockets, internet)
    code += [_equal(by_name, 0, len(sockets)), *sockets]
    code += [_equal(pair, 0, 4), _load(_FIRST), _equal(AF_UNIX, 1, 0), _refuse(EAFNOSUPPORT), _answer(ALLOW)]
    code += [_equal(IOCTL[arm], 0, 4), _load(_SECOND)]
    code += [_equal(TERMINAL_INPUT[0], 1, 0), _equal(TERMINAL_INPUT[1], 0, 1), _refuse(EPERM)]
    code += [_answer(ALLOW)]
    return b"".join(code)


def _sockets(unix: bool, internet: bool) -> list[bytes]:
    """Which sockets can be made; begins with the first argument of the call to come, and answers in any case."""
    family = _equal(AF_UNIX if unix else 0xFFFFFFFF, 11 if internet else 1, 0)
    if not internet:
        return [_load(_FIRST), family, _refuse(EAFNOSUPPORT), _answer(ALLOW)]
    to_refusal, to_the_end = (8, 4), (3, 2, 1)
    return [
        _load(_FIRST), family, _equal(AF_INET, 1, 0), _equal(AF_INET6, 0, to_refusal[0]),
        _load(_SECOND), _keep(KINDS), _equal(STREAM, 1, 0), _equal(DATAGRAM, 0, to_refusal[1]),
        _load(_THIRD), *(_equal(protocol, far, 0) for protocol, far in zip(PROTOCOLS, to_the_end, strict=True)),
        _refuse(EAFNOSUPPORT), _answer(ALLOW),
    ]  # fmt: skip


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)


def _load(offset: int) -> bytes:
    return _instruction(0x20, offset)


def _keep(mask: int) -> bytes:
    return _instruction(0x54, mask)


def _equal(value: int, if_true: int, if_false: int) -> bytes:
    return _instruction(0x15, value, if_true, if_false)


def _more_than(value: int, if_true: int, if_false: int) -> bytes:
    return _instruction(0x25, value, if_true, if_false)


def _at_least(value: int, if_true: int, if_false: int) -> bytes:
    return _instruction(0x35, value, if_true, if_false)


def _any_bit(mask: int, if_true: int, if_false: int) -> bytes:
    return _instruction(0x45, mask, if_true, if_false)


def _answer(action: int) -> bytes:
    return _instruction(0x06, action)


def _refuse(errno: int) -> bytes:
    return _answer(0x00050000 | errno)

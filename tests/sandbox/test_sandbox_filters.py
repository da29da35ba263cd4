"""The system-call filter, instruction by instruction, for both machines."""

from __future__ import annotations

import struct

import pytest

from ludus.sandbox.inside import filters

ALLOW, EPERM, ENOSYS, NO_FAMILY = filters.ALLOW, 0x50001, 0x50026, 0x50061
MACHINES = ("x86_64", "aarch64")


def decide(program: bytes, architecture: int, number: int, *args: int) -> int:
    """What the kernel would answer to a system call."""
    data = struct.pack("<IIQ6Q", number, architecture, 0, *args, *[0] * (6 - len(args)))
    value, at = 0, 0
    while True:
        code, yes, no, word = struct.unpack_from("<HBBI", program, at * 8)
        at += 1
        if code == 0x06:
            return word
        if code == 0x20:
            value = struct.unpack_from("<I", data, word)[0]
            continue
        if code == 0x54:
            value &= word
            continue
        test = {0x15: value == word, 0x25: value > word, 0x35: value >= word, 0x45: bool(value & word)}[code]
        at += yes if test else no


@pytest.fixture(params=MACHINES)
def ask(request):
    arm = request.param == "aarch64"

    def ask(numbers, *args, counted=True, unix_sockets=True, internet=False):
        program = filters.program(request.param, counted, unix_sockets, internet)
        return decide(program, filters.ARCHITECTURES[request.param], numbers[arm], *args)

    return ask


@pytest.mark.parametrize("name", filters.DENIED)
def test_what_is_denied(ask, name):
    assert ask(filters.DENIED[name]) == EPERM


def test_ordinary_calls_are_allowed(ask):
    for numbers in {"read": (0, 63), "write": (1, 64), "openat": (257, 56), "execve": (59, 221), "exit": (60, 93),
                    "mmap": (9, 222), "futex": (202, 98), "prctl": (157, 167), "mseal": (462, 462)}.values():  # fmt: skip
        assert ask(numbers) == ALLOW


def test_only_unix_sockets(ask):
    for numbers in filters.SOCKETS:
        assert ask(numbers, 1) == ALLOW
        for family in (0, 2, 10, 16, 17, 38, 40, 0xFFFFFFFF):
            assert ask(numbers, family) == NO_FAMILY
    assert ask(filters.SOCKETS[0], 1, unix_sockets=False) == NO_FAMILY
    assert ask(filters.SOCKETS[1], 1, unix_sockets=False) == ALLOW


def test_tcp_and_udp_where_there_is_a_network(ask):
    by_name, pair = filters.SOCKETS
    close_on_exec, non_blocking = 0x80000, 0x800
    for family in (2, 10):
        for kind, protocol in ((1, 0), (1, 6), (2, 0), (2, 17), (1 | close_on_exec, 0), (2 | non_blocking, 17)):
            assert ask(by_name, family, kind, protocol, internet=True) == ALLOW
            assert ask(by_name, family, kind, protocol) == NO_FAMILY
            assert ask(pair, family, kind, protocol, internet=True) == NO_FAMILY
        for kind, protocol in ((3, 0), (3, 255), (1, 132), (1, 262), (2, 1), (2, 58), (2, 136), (5, 0), (6, 0), (0, 0)):
            assert ask(by_name, family, kind, protocol, internet=True) == NO_FAMILY
    assert ask(by_name, 1, 5, 0, internet=True) == ALLOW
    for family in (0, 16, 17, 38, 40, 0xFFFFFFFF):
        assert ask(by_name, family, 1, 0, internet=True) == NO_FAMILY
    assert ask((0, 63), internet=True) == ALLOW and ask(filters.DENIED["mount"], internet=True) == EPERM


def test_no_new_namespaces_but_new_processes_and_threads(ask):
    assert ask(filters.CLONE, 17) == ALLOW
    assert ask(filters.CLONE, 0x3D0F00) == ALLOW  # what threads are made with
    for bit in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert ask(filters.CLONE, 17 | bit) == EPERM
    assert ask(filters.CLONE3) == ENOSYS


def test_nobody_types_for_others(ask):
    assert ask(filters.IOCTL, 0, 0x5412) == EPERM
    assert ask(filters.IOCTL, 0, 0x541C) == EPERM
    assert ask(filters.IOCTL, 0, 0x5401) == ALLOW


def test_memory_that_nobody_counts(ask):
    for numbers in filters.UNCOUNTED.values():
        assert ask(numbers) == ALLOW
        assert ask(numbers, counted=False) == EPERM


def test_calls_newer_than_the_list_and_other_architectures(ask):
    assert ask((filters.NEWEST + 1, filters.NEWEST + 1)) == ENOSYS
    for machine in MACHINES:
        assert decide(filters.program(machine, True), 0x40000003, 11) == filters.KILL  # 32-bit x86
    assert decide(filters.program("x86_64", True), filters.ARCHITECTURES["x86_64"], filters.X32 | 59) == ENOSYS


def test_limits_of_others_are_out_of_reach(ask):
    assert ask(filters.PRLIMIT, 0) == ALLOW
    assert ask(filters.PRLIMIT, 1) == EPERM

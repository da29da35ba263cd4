"""How a sandbox comes into being: a clone in its own namespaces and control groups, then confined, then given a stream.

Moving a process into a control group may wait for the kernel for milliseconds, but many can be moved in one such wait.
So sandboxes are made in batches, and a few in advance: a spare has everything but its limits and its stream.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import confine, frames, linux, root
from .cgroups import Group, Groups
from .guest import Guest

FIRST_UID, UIDS_PER_ZYGOTE, ZYGOTES = 0x70000000, 1 << 12, 1 << 14


@dataclass
class Child:
    """One sandbox, as the zygote sees it."""

    pid: int
    pidfd: int
    line: socket.socket
    """To its first process, until that has its limits and stream."""
    group: Group
    slot: int
    folder: str
    """The files on the host of the tiers that have no file tree of their own."""
    number: int = -1
    """What the host calls it."""
    channel: socket.socket | None = None
    """Our copy of the stream to the host; None for a spare."""

    def signal(self, number: int) -> None:
        """Signal its first process."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)


class Births:
    """Makes sandboxes of one tier.

    Args:
        tier: "namespaces", "landlock" or "none".
        groups: where its control groups go.
    """

    def __init__(self, tier: str, groups: Groups) -> None:
        self.tier, self.groups = tier, groups
        self.root, self.pid = os.getuid() == 0, os.getpid()
        self._free: list[int] = []
        self._num_slots = 0
        first, _, count = Path("/proc/self/uid_map").read_text().split()[:3]
        self._last_id = int(first) + int(count) - 1

    def batch(self, count: int) -> list[Child]:
        """So many sandboxes that wait for limits and a stream. Raises OSError, and then there are none."""
        made: list[Child] = []
        try:
            for _ in range(count):
                made.append(self._clone())
                self._map_ids(made[-1])
            for child in made:
                child.group.add(child.pid)
            return made
        except OSError:
            for child in made:
                child.signal(signal.SIGKILL)
                os.waitpid(child.pid, 0)
                self.forget(child)
            raise

    def assign(self, child: Child, wanted: dict[str, Any], channels: list[socket.socket]) -> None:
        """Let a sandbox begin. Raises OSError."""
        limits = wanted["limits"]
        child.group.limit(limits["memory_bytes"], limits["processes"] + 1, wanted["network"])
        socket.send_fds(child.line, [json.dumps(wanted).encode()], [channel.fileno() for channel in channels])
        child.line.close()
        child.number = wanted["number"]
        child.channel, *others = channels  # ours to close from now on
        for other in others:
            other.close()

    def forget(self, child: Child) -> bool:
        """Take away what is left of an ended sandbox; False while the kernel still holds some of it."""
        if not child.group.remove():
            return False
        if child.folder:
            import shutil  # not needed by the best tier, whose sandboxes are all the lighter for it

            shutil.rmtree(child.folder, ignore_errors=True)
        heapq.heappush(self._free, child.slot)
        os.close(child.pidfd)
        child.line.close()
        if child.channel is not None:
            child.channel.close()
        return True

    def _clone(self) -> Child:
        slot = heapq.heappop(self._free) if self._free else self._new_slot()
        uid = self._uid(slot)
        line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        group, folder, events = Group(""), "", -1
        try:
            group = self.groups.new(f"box-{slot}")
            events = group.open_events()
            folder = self._folder(uid)
            pid, pidfd = linux.clone(confine.NAMESPACES if self.tier == "namespaces" else 0)
            if pid == 0:
                self._live(theirs, events, folder, uid)
        except OSError:
            group.remove()
            heapq.heappush(self._free, slot)
            line.close()
            raise
        finally:
            theirs.close()
            if events >= 0:
                os.close(events)
        return Child(pid, pidfd, line, group, slot, folder)

    def _map_ids(self, child: Child) -> None:
        """Give the one user of a sandbox's namespace its id outside, and let the sandbox go on."""
        if self.tier == "namespaces":
            for file in ("uid_map", "gid_map"):
                _put(f"/proc/{child.pid}/{file}", f"{root.INSIDE_ID} {self._uid(child.slot) or 0} 1")
        child.line.send(b"mapped")

    def _live(self, line: socket.socket, events: int, folder: str, uid: int | None) -> None:
        """In the new process, and for good."""
        try:
            linux.close_all_but({line.fileno(), events} - {-1})
            if not line.recv(16):  # whoever made us has failed, and says so
                return
            problem = ""
            try:
                confine.prepare(self.tier, folder, uid)
            except OSError as error:
                problem = str(error)
            packet, fds, _, _ = socket.recv_fds(line, 1 << 16, 2)
            line.close()
            if packet and fds:
                self._serve(json.loads(packet), [socket.socket(fileno=fd) for fd in fds], events, folder, problem)
        finally:
            os._exit(1)

    def _serve(
        self, wanted: dict[str, Any], channels: list[socket.socket], events: int, folder: str, problem: str
    ) -> None:
        try:
            if problem:
                raise OSError(problem)
            home, before_code = confine.lock(self.tier, wanted, not self.groups.missing, folder)
            guest = Guest(channels, wanted["limits"], events, self.tier, before_code)
            guest.serve({"home": home, "uncounted": self.groups.missing})
        except BaseException as error:  # noqa: BLE001 - whatever it is, the host is told and the process ends
            with contextlib.suppress(OSError):
                channels[0].sendall(frames.pack({"failed": str(error) or type(error).__name__}))

    def _folder(self, uid: int | None) -> str:
        if self.tier == "namespaces":
            return ""
        import tempfile

        folder = tempfile.mkdtemp(prefix="ludus-sandbox-")
        if uid is not None:
            os.chown(folder, uid, uid)
        return folder

    def _uid(self, slot: int) -> int | None:
        """A user id of the host that nobody else has: root's limits are not enforced, and root's files are its own.

        None where an ordinary user makes sandboxes, who has but one.
        """
        if not self.root:
            return None
        last = self._last_id
        if last >= FIRST_UID + UIDS_PER_ZYGOTE * ZYGOTES:
            return FIRST_UID + self.pid % ZYGOTES * UIDS_PER_ZYGOTE + slot % UIDS_PER_ZYGOTE
        return last // 2 + (self.pid * 61 + slot) % max(1, last // 2)

    def _new_slot(self) -> int:
        self._num_slots += 1
        return self._num_slots


def _put(path: str, text: str) -> None:
    """Write to one of the kernel's files, with as few calls as it takes. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)

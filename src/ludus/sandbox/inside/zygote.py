"""The process that all sandboxes are forked from: an interpreter that is warm and knows nothing.

It is started with an empty environment and one socket, prepares what all sandboxes share once, and then makes one per
request. A request is a packet with JSON and one descriptor, the sandbox's end of a stream; all answers come through
that stream, the first from `_first_words`. The stream is also the sandbox's life: once the other side shuts it down the
zygote kills the sandbox, takes its control groups away, and only then closes its own copy, so that whoever reads to the
end of the stream knows that nothing is left. When the host process dies, the zygote and all sandboxes go with it.
"""

from __future__ import annotations

import contextlib
import gc
import heapq
import json
import os
import resource
import select
import shutil
import signal
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import confine, frames, linux, root
from .cgroups import Group, Groups
from .guest import Guest
from .processes import kill_below

RETRY_S = 0.005
FIRST_UID, UIDS_PER_ZYGOTE = 0x70000000, 1 << 12


@dataclass
class Child:
    """One living sandbox, as the zygote sees it."""

    pid: int
    pidfd: int
    channel: socket.socket
    group: Group
    slot: int
    folder: str = ""
    """The landlock tier's files on the host."""


class Zygote:
    """Makes sandboxes of one tier.

    Args:
        control: packets with requests come from here.
        tier: "namespaces", "landlock" or "none".
        host: pid of the process that asks.
    """

    def __init__(self, control: socket.socket, tier: str, host: int) -> None:
        self.control, self.tier = control, tier
        self.root, self.pid = os.getuid() == 0, os.getpid()
        self.host = os.pidfd_open(host)
        self.children: dict[int, Child] = {}  # by pidfd
        self.channels: dict[int, Child] = {}  # by the descriptor of the stream
        self.leaving: list[Child] = []
        self.free_slots: list[int] = []
        self.num_slots = 0
        self.problem = ""
        self.groups = Groups()
        try:
            self._prepare()
        except OSError as error:
            self.problem = str(error)
        self.epoll = select.epoll()
        self.epoll.register(self.host, select.EPOLLIN)
        self.epoll.register(control, select.EPOLLIN)

    def serve(self) -> None:
        """Make and bury sandboxes until the host closes the socket or dies."""
        gc.freeze()  # collections in the children would copy the pages of all that is shared
        while True:
            for fd, _ in self.epoll.poll(RETRY_S if self.leaving else -1):
                if fd == self.host:
                    return
                if fd == self.control.fileno():
                    if not self._answer():
                        return
                elif fd in self.children:
                    self._reap(self.children.pop(fd))
                elif fd in self.channels:
                    self._kill(self.channels[fd])
            self._reap_orphans()
            self.leaving = [child for child in self.leaving if not self._forget(child)]

    def close(self) -> None:
        """Kill what still lives and take all control groups away."""
        for child in list(self.children.values()):
            self._kill(child)
        for child in list(self.children.values()):
            self._reap(child)
        for _ in range(1000):
            self.leaving = [child for child in self.leaving if not self._forget(child)]
            if not self.leaving:
                break
            select.select([], [], [], RETRY_S)
        self.groups.close()

    def _prepare(self) -> None:
        linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        if self.tier != "namespaces":
            return
        if self.root:
            linux.unshare(linux.CLONE_NEWNS)
        else:
            uid, gid = os.getuid(), os.getgid()
            linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
            Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
        root.enter_template()

    def _answer(self) -> bool:
        """Make the sandbox that one packet asks for; False at the end."""
        packet, fds, _, _ = socket.recv_fds(self.control, 1 << 16, 1)
        if not packet:
            return False
        if not fds:  # no descriptor was free to receive it; the asker sees its stream end
            return True
        channel = socket.socket(fileno=fds[0])
        try:
            if self.problem:
                raise OSError(self.problem)
            self._make(json.loads(packet), channel)
        except OSError as error:
            with contextlib.suppress(OSError):
                channel.sendall(frames.pack({"failed": str(error)}))
            child = self.channels.get(channel.fileno())
            if child is None:
                channel.close()
            else:
                self._kill(child)
        return True

    def _make(self, limits: dict[str, Any], channel: socket.socket) -> None:
        slot = heapq.heappop(self.free_slots) if self.free_slots else self._new_slot()
        group, folder = Group(""), ""
        events, go_out, go_in = -1, -1, -1
        try:
            group = self.groups.new(f"box-{slot}")
            group.limit(limits["memory_bytes"], limits["processes"] + 1)
            events = group.open_events()
            go_out, go_in = os.pipe()
            if self.tier != "namespaces":
                folder = tempfile.mkdtemp(prefix="ludus-sandbox-")
                if self.root:
                    os.chown(folder, self._outer_id(slot), self._outer_id(slot))
            pid, pidfd = linux.clone(confine.NAMESPACES if self.tier == "namespaces" else 0)
            if pid == 0:
                self._become_sandbox(limits, channel, events, go_out, folder, slot)
            self._add(Child(pid, pidfd, channel, group, slot, folder))
            if self.tier == "namespaces":
                outer = self._outer_id(slot)
                Path(f"/proc/{pid}/uid_map").write_text(f"{root.INSIDE_ID} {outer} 1")
                Path(f"/proc/{pid}/gid_map").write_text(f"{root.INSIDE_ID} {outer} 1")
            os.write(go_in, b"m")
            group.add(pid)  # may wait for the kernel; the sandbox mounts its files meanwhile
            os.write(go_in, b"c")
        except OSError:
            if channel.fileno() not in self.channels:
                self._give_back(group, slot, folder)
            raise
        finally:
            for fd in (events, go_out, go_in):
                if fd >= 0:
                    os.close(fd)

    def _become_sandbox(
        self, limits: dict[str, Any], channel: socket.socket, events: int, go: int, folder: str, slot: int
    ) -> None:
        """In the child, and for good."""
        try:
            linux.close_all_but({channel.fileno(), events, go} - {-1})
            if os.read(go, 1) != b"m":  # whoever makes us has failed and says so
                return
            home, before_code = confine.enter(self.tier, limits, not self.groups.missing, folder, self._own_id(slot))
            if os.read(go, 1) != b"c":
                return
            os.close(go)
            guest = Guest(channel, limits, events, self.tier == "namespaces", before_code)
            guest.serve({"home": home, "uncounted": self.groups.missing})
        except BaseException as error:  # noqa: BLE001 - whatever it is, the host is told and the process ends
            with contextlib.suppress(OSError):
                channel.sendall(frames.pack({"failed": f"{type(error).__name__}: {error}"}))
        finally:
            os._exit(1)

    def _own_id(self, slot: int) -> int | None:
        return self._outer_id(slot) if self.root else None

    def _outer_id(self, slot: int) -> int:
        """A user id of the host that nobody else has: root's limits are not enforced, and others' files are theirs."""
        if not self.root:
            return 0
        last = _last_mapped_id()
        span = UIDS_PER_ZYGOTE * (1 << 14)
        if last >= FIRST_UID + span:
            return FIRST_UID + self.pid % (1 << 14) * UIDS_PER_ZYGOTE + slot % UIDS_PER_ZYGOTE
        return last // 2 + (self.pid * 61 + slot) % max(1, last // 2)

    def _new_slot(self) -> int:
        self.num_slots += 1
        return self.num_slots

    def _add(self, child: Child) -> None:
        self.children[child.pidfd] = child
        self.channels[child.channel.fileno()] = child
        self.epoll.register(child.pidfd, select.EPOLLIN)
        self.epoll.register(child.channel, select.EPOLLRDHUP)

    def _kill(self, child: Child) -> None:
        if self.tier != "namespaces":
            kill_below(child.pid)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
        with contextlib.suppress(OSError, KeyError):
            self.epoll.unregister(child.channel)
        self.channels.pop(child.channel.fileno(), None)

    def _reap(self, child: Child) -> None:
        """The first process has ended, and with it all that were in its namespace."""
        self._kill(child)
        self.children.pop(child.pidfd, None)
        self.epoll.unregister(child.pidfd)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child.pid, 0)
        os.close(child.pidfd)
        self.leaving.append(child)

    def _reap_orphans(self) -> None:
        """Without a namespace of their own, what a sandbox left behind dies as a child of this process."""
        with contextlib.suppress(ChildProcessError):
            while self.tier != "namespaces" and os.waitpid(-1, os.WNOHANG)[0]:
                pass

    def _forget(self, child: Child) -> bool:
        """Whether the kernel let go of everything; the host learns it by the end of the stream."""
        if not child.group.remove():
            return False
        self._give_back(child.group, child.slot, child.folder)
        child.channel.close()
        return True

    def _give_back(self, group: Group, slot: int, folder: str) -> None:
        group.remove()
        heapq.heappush(self.free_slots, slot)
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _last_mapped_id() -> int:
    """The last user id that exists in this namespace from 0 on."""
    first, _, count = Path("/proc/self/uid_map").read_text().split()[:3]
    return int(first) + int(count) - 1


def main(control: int, tier: str, host: int) -> None:
    """Serve until the host is gone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a Ctrl-C is the host's to handle; it then closes the socket
    zygote = Zygote(socket.socket(fileno=control), tier, host)
    try:
        zygote.serve()
    finally:
        zygote.close()

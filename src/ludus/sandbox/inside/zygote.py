"""The process that all sandboxes are forked from: an interpreter that is warm and knows nothing.

It is started with an empty environment and one socket, prepares what all sandboxes share once, and then makes one per
request. A request is a packet with JSON and the sandbox's end of a stream, and with that of a second socket, through
which descriptors go to the host, where the sandbox has a network. All answers come through the stream. It is also the
sandbox's life: once the other side shuts it down, or a packet says so, the zygote kills the sandbox, takes its control
groups away, and only then closes its own copy, so that whoever reads to the end of the stream knows that nothing is left.
When the host process dies, the zygote and all sandboxes go with it.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from . import code, confine, frames, linux, root
from .birth import Births, Child
from .cgroups import Groups
from .processes import kill_below, kill_strays

RETRY_S = 0.005
SPARES = 4
AT_ONCE = 16

Request = tuple[dict[str, Any], list[socket.socket]]


class Zygote:
    """Makes and buries sandboxes of one tier.

    Args:
        control: packets with requests come from here.
        tier: "namespaces", "landlock" or "none".
        host: pid of the process that asks.
        packages: folders of the host with Python packages that its sandboxes can read.
    """

    def __init__(self, control: socket.socket, tier: str, host: int, packages: list[str]) -> None:
        self.control, self.tier, self.packages = control, tier, packages
        self.host = os.pidfd_open(host)
        self.spares: list[Child] = []
        self.children: dict[int, Child] = {}  # by pidfd, spares included
        self.channels: dict[int, Child] = {}  # by the descriptor of the stream
        self.numbers: dict[int, Child] = {}  # by what the host calls them
        self.leaving: list[Child] = []
        self.problem = ""
        self.groups = Groups()
        self.births = Births(tier, self.groups)
        try:
            self._prepare()
        except OSError as error:
            self.problem = str(error)
        self.most_spares = SPARES if tier == "namespaces" and not self.problem else 0
        self.epoll = select.epoll()
        self.epoll.register(self.host, select.EPOLLIN)
        self.epoll.register(control, select.EPOLLIN)

    def serve(self) -> None:
        """Until the host closes the socket or dies."""
        confine.warm_up()
        code.own_modules()
        gc.freeze()  # collections in the children would copy the pages of all that is shared
        while True:
            events = self.epoll.poll(0 if len(self.spares) < self.most_spares else RETRY_S if self.leaving else -1)
            if not events:
                self._refill()
            for fd, _ in events:
                if fd == self.host or (fd == self.control.fileno() and not self._answer()):
                    return
                if fd in self.children:
                    self._reap(self.children[fd])
                elif fd in self.channels:
                    self._kill(self.channels[fd])
            self._reap_orphans()
            self.leaving = [child for child in self.leaving if not self.births.forget(child)]

    def close(self) -> None:
        """Kill what still lives and take all control groups away."""
        for child in self.children.values():
            self._kill(child)
        for child in list(self.children.values()):
            self._reap(child)
        for _ in range(1000):
            self.leaving = [child for child in self.leaving if not self.births.forget(child)]
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
        if self.births.root:
            linux.unshare(linux.CLONE_NEWNS)
        else:
            uid, gid = os.getuid(), os.getgid()
            linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
            Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
        root.enter_template(self.packages)

    # --- requests -----------------------------------------------------------------------------------------------

    def _answer(self) -> bool:
        """Do what the waiting packets ask for; False at the end."""
        requests: list[Request] = []
        dismissed: list[int] = []
        over = False
        while len(requests) < AT_ONCE and not over:
            try:
                packet, fds, _, _ = socket.recv_fds(self.control, 1 << 16, 2)
            except BlockingIOError:
                break
            over = not packet
            channels = [socket.socket(fileno=fd) for fd in fds]
            wanted = json.loads(packet) if packet else {"kill": []}
            if "kill" in wanted:
                dismissed += wanted["kill"]
            elif channels and len(channels) == 1 + wanted["network"]:
                requests.append((wanted, channels))
            else:  # no descriptor was free to receive them; the asker sees its stream end
                for channel in channels:
                    channel.close()
        self._make(requests)
        for number in dismissed:
            if number in self.numbers:
                self._kill(self.numbers[number])
        return not over

    def _make(self, requests: list[Request]) -> None:
        problem = self.problem
        try:
            self._add(0 if problem else len(requests) - len(self.spares))
        except OSError as error:
            problem = str(error)
        for wanted, channels in requests:
            try:
                self._begin(wanted, channels, problem)
            except OSError as error:
                with contextlib.suppress(OSError):
                    channels[0].sendall(frames.pack({"failed": str(error)}))
                for channel in channels:
                    channel.close()

    def _begin(self, wanted: dict[str, Any], channels: list[socket.socket], problem: str) -> None:
        """Give one of the spares to who asks. Raises OSError, also where there is none because of a problem."""
        if not self.spares:
            raise OSError(problem or "no sandbox could be made")
        child = self.spares.pop()
        try:
            self.births.assign(child, wanted, channels)
        except OSError:
            self._kill(child)
            raise
        self.numbers[child.number] = child
        self.channels[channels[0].fileno()] = child
        self.epoll.register(channels[0], select.EPOLLRDHUP)

    def _refill(self) -> None:
        """Nobody asks at the moment: make spares."""
        try:
            self._add(self.most_spares - len(self.spares))
        except OSError:  # a request that fails for the same reason says why
            self.most_spares = 0

    def _add(self, count: int) -> None:
        for child in self.births.batch(max(0, count)):
            self.spares.append(child)
            self.children[child.pidfd] = child
            self.epoll.register(child.pidfd, select.EPOLLIN)

    # --- ends ---------------------------------------------------------------------------------------------------

    def _kill(self, child: Child) -> None:
        if self.tier != "namespaces":
            kill_below(child.pid)
        child.signal(signal.SIGKILL)
        if child.channel is not None and child.channel.fileno() in self.channels:
            del self.channels[child.channel.fileno()]
            self.epoll.unregister(child.channel)

    def _reap(self, child: Child) -> None:
        """The first process has ended, and with it all that were in its namespace."""
        self._kill(child)
        self.epoll.unregister(child.pidfd)
        del self.children[child.pidfd]
        self.numbers.pop(child.number, None)
        with contextlib.suppress(ValueError):
            self.spares.remove(child)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child.pid, 0)
        if self.tier != "namespaces":  # its first process may have died before the others
            kill_strays({other.pid for other in self.children.values()})
        self.leaving.append(child)

    def _reap_orphans(self) -> None:
        """Without a namespace of their own, what a sandbox left behind dies as a child of this process."""
        with contextlib.suppress(ChildProcessError):
            while self.tier != "namespaces" and os.waitpid(-1, os.WNOHANG)[0]:
                pass


def main(control: int, tier: str, host: int, packages: list[str]) -> None:
    """Serve until the host is gone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a Ctrl-C is the host's to handle; it then closes the socket
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    os.dup2(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), 0)
    requests = socket.socket(fileno=control)
    requests.setblocking(False)
    zygote = Zygote(requests, tier, host, packages)
    sys.path += root.package_paths(tier, packages)
    try:
        zygote.serve()
    finally:
        zygote.close()

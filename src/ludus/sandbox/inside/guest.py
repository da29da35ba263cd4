"""The first process of a sandbox: starts what is asked for, collects what it says, and ends it.

It runs no code of a model itself and holds nothing worth stealing; code in the sandbox can't read its memory, signal it
or find its stream. Requests are frames with an `id`, a word `do` and arguments; each gets one frame with the same `id`.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from . import files, frames
from .apart import apart
from .cgroups import killed_for_memory
from .jobs import Job, Launch, start
from .processes import kill_all, resident_bytes

BACKLOG = 4096
WATCH_S = 0.1
"""How often memory is counted where no control group does it."""


class Guest:
    """Serves one stream until it ends.

    Args:
        channels: the stream to the host, and where there is a network a socket that descriptors go to the host through.
        limits: the fields of `Limits`.
        events: descriptor of the file that counts processes killed for memory, or -1.
        tier: "namespaces", where this is the first process of its own, "landlock" or "none".
        confine: what each process that runs code does first.
    """

    def __init__(
        self, channels: list[socket.socket], limits: dict[str, Any], events: int, tier: str, confine: Callable[[], None]
    ) -> None:
        self.channel, *self.doors = channels
        self.limits, self.events, self.confine = limits, events, confine
        self.own_pids = tier == "namespaces"
        self.unlocked = tier == "landlock"  # itself: its processes are locked one by one
        self.jobs: dict[int, Job] = {}  # by pid
        self.session: Job | None = None
        self.killed = 0  # for memory, by the watch below
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.channel, selectors.EVENT_READ, self._request)

    def serve(self, first: dict[str, Any]) -> None:
        """Say the first words, and answer until the host hangs up."""
        ended, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.selector.register(ended, selectors.EVENT_READ, lambda: os.read(ended, 4096))
        self._say(first)
        while True:
            for key, _ in self.selector.select(self._patience()):
                key.data()
            self._reap()
            self._enforce()

    def _say(self, words: dict[str, Any], data: bytes = b"") -> None:
        self.channel.sendall(frames.pack(words, data))

    def _request(self) -> None:
        received = frames.receive(self.channel)
        if received is None:
            kill_all(self.own_pids)
            os._exit(0)
        words, data = received
        try:
            answer = getattr(self, f"_do_{words['do']}")(words, data)
        except OSError as error:
            answer = {"error": error.strerror or str(error)}, b""
        except (ValueError, MemoryError) as error:  # such as a path that is no text
            answer = {"error": str(error) or type(error).__name__}, b""
        if answer is None:
            return
        try:
            self._say({"id": words["id"], **answer[0]}, answer[1])
        except frames.BadFrame as error:
            self._say({"id": words["id"], "error": str(error)})

    # --- requests: an answer, or None where it comes later ------------------------------------------------------

    def _do_exec(self, words: dict[str, Any], data: bytes) -> None:
        length = words.get("source")
        source = None if length is None else data[:length].decode(errors="replace")
        self._begin(Launch(words.get("argv"), source, words["env"], words["cwd"], data[length or 0 :]), words)

    def _do_python(self, words: dict[str, Any], data: bytes) -> None:
        if self.session is None or self.session.channel is None:
            self.session = self._begin(Launch(None, None, words["env"], None, b""), None)
            session = self.session
            assert session.channel is not None
            self.selector.register(session.channel, selectors.EVENT_READ, lambda: self._session_says(session))
        elif self.session.call is not None:
            raise OSError(0, "the Python session runs other code at the moment; wait for it")
        self._set_call(self.session, words)
        try:
            assert self.session.channel is not None
            self.session.channel.sendall(frames.pack({}, data))
        except OSError:  # its end answers the call
            self._end_session(self.session)

    def _do_stop(self, words: dict[str, Any], data: bytes) -> None:
        """Nobody waits for that call any longer."""
        for job in self.jobs.values():
            if job.call == words["call"]:
                job.signal_group(signal.SIGKILL)

    def _do_listen(self, words: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        """A socket on the loopback, for the host to answer at."""
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(BACKLOG)
            socket.send_fds(self.doors[0], [b"listener"], [listener.fileno()])
        return {}, b""

    def _do_read(self, words: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        return {}, self._with_files(lambda: files.read(words["path"], words["offset"], words["count"]))

    def _do_write(self, words: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        self._with_files(lambda: files.write(words["path"], words["offset"], data, words.get("mode")))
        return {}, b""

    def _do_list(self, words: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        listed = self._with_files(lambda: files.listing(words["path"], words["most"]))
        kind, _, names = listed.partition(b" ")
        return {"kind": kind.decode()}, names

    def _with_files(self, work: Callable[[], bytes]) -> bytes:
        """Do something with files that code in the sandbox may have planted links among."""
        return apart(work, self.confine) if self.unlocked else work()

    # --- processes ----------------------------------------------------------------------------------------------

    def _begin(self, launch: Launch, words: dict[str, Any] | None) -> Job:
        job = start(launch, self.limits["output_bytes"], self.confine)
        self.jobs[job.pid] = job
        for fd in job.outputs:
            self.selector.register(fd, selectors.EVENT_READ, lambda fd=fd: self._output(job, fd))
        if job.input >= 0:
            self.selector.register(job.input, selectors.EVENT_WRITE, lambda: self._input(job))
        if words is not None:
            self._set_call(job, words)
        return job

    def _set_call(self, job: Job, words: dict[str, Any]) -> None:
        job.call, job.timed_out, job.killed_before = words["id"], False, self._num_killed()
        job.deadline = time.monotonic() + words["timeout_s"]

    def _output(self, job: Job, fd: int) -> None:
        if not job.collect(fd):
            self._leave(fd)
            job.outputs.pop(fd)

    def _input(self, job: Job) -> None:
        if not job.feed():
            self._leave(job.input)
            job.input = -1

    def _leave(self, fd: int) -> None:
        with contextlib.suppress(KeyError):
            self.selector.unregister(fd)
        os.close(fd)

    def _session_says(self, job: Job) -> None:
        assert job.channel is not None
        try:
            answer = frames.receive(job.channel)
        except (frames.BadFrame, OSError):
            answer = None
        status = answer[0].get("status") if answer else None
        if not isinstance(status, int):  # it exits, or its code meddled with our stream: its end answers
            self._end_session(job)
            return
        if job.call is not None:
            self._answer_call(job, status)

    def _end_session(self, job: Job) -> None:
        if job.channel is not None:
            self.selector.unregister(job.channel)
            job.channel.close()
            job.channel = None
        job.signal_group(signal.SIGKILL)

    def _reap(self) -> None:
        """Bury the dead; orphans are ours as well."""
        # so many can be dead at once; who dies meanwhile wakes us again
        for _ in range(self.limits["processes"] + 1):
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            job = self.jobs.pop(pid, None)
            if job is not None:
                self._ended(job, os.waitstatus_to_exitcode(status))

    def _ended(self, job: Job, status: int) -> None:
        if job.call is not None:
            self._answer_call(job, status, over=True)
        for fd in [*job.outputs, *([job.input] if job.input >= 0 else [])]:
            self._leave(fd)
        if job.channel is not None:
            self.selector.unregister(job.channel)
            job.channel.close()
        if job is self.session:
            self.session = None

    def _answer_call(self, job: Job, status: int, over: bool = False) -> None:
        for fd in list(job.outputs):
            job.drain(fd)
        out, err, truncated = job.take()
        words = {"id": job.call, "status": status, "out": len(out), "timed_out": job.timed_out, "over": over}
        words |= {"truncated": truncated, "oom_killed": self._num_killed() > job.killed_before}
        job.call = job.deadline = None
        self._say(words, out + err)

    # --- limits that only a watch can keep ----------------------------------------------------------------------

    def _patience(self) -> float | None:
        deadlines = [job.deadline for job in self.jobs.values() if job.deadline is not None]
        if self.jobs and self.events < 0:
            deadlines.append(time.monotonic() + WATCH_S)
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _enforce(self) -> None:
        now = time.monotonic()
        late = [job for job in self.jobs.values() if job.deadline is not None and job.deadline <= now]
        for job in late:
            job.timed_out, job.deadline = True, None
        if late:
            kill_all(self.own_pids)
        elif self.jobs and self.events < 0 and resident_bytes(self.own_pids) > self.limits["memory_bytes"]:
            self.killed += 1
            kill_all(self.own_pids)

    def _num_killed(self) -> int:
        return self.killed + killed_for_memory(self.events)

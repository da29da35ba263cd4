"""The event loop's lag: how late it wakes, and which function held it up.

A sleeping task measures lateness; a daemon thread looks at the loop's stack when the loop has not answered for a while,
so that the function that blocks is named while it blocks.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from types import FrameType

log = logging.getLogger(__name__)

BEAT_S = 0.05
BLOCKED_S = 0.5


class LagMonitor:
    """Measures one event loop between `start` and `stop`."""

    def __init__(self) -> None:
        self.worst_s = 0.0
        """How late the loop has woken at most."""
        self._last_beat = time.monotonic()
        self._task: asyncio.Task[None] | None = None
        self._ended = threading.Event()

    def start(self) -> None:
        """Begin, in the running event loop."""
        self._last_beat = time.monotonic()
        self._ended.clear()
        self._task = asyncio.get_running_loop().create_task(self._beat())
        thread = threading.Thread(target=self._watch, args=(threading.get_ident(),), name="ludus-lag", daemon=True)
        thread.start()

    async def stop(self) -> None:
        """End; `worst_s` stays."""
        self._ended.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _beat(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(BEAT_S)
            self._last_beat = time.monotonic()
            self.worst_s = max(self.worst_s, self._last_beat - began - BEAT_S)

    def _watch(self, loop_thread: int) -> None:
        reported = 0.0
        while not self._ended.wait(BEAT_S):
            beat = self._last_beat
            if time.monotonic() - beat < BLOCKED_S or beat == reported:
                continue
            reported = beat
            frame = sys._current_frames().get(loop_thread)
            if frame is not None:
                blocked_s = time.monotonic() - beat
                log.warning("the event loop has been blocked for %.1f s by %s", blocked_s, _blocking_function(frame))


def _blocking_function(frame: FrameType) -> str:
    """The innermost function outside the standard library that the loop is in."""
    stack = traceback.extract_stack(frame)
    own = [entry for entry in stack if "/lib/python" not in entry.filename or "site-packages" in entry.filename]
    entry = (own or stack)[-1]
    return f"{entry.name} ({entry.filename}:{entry.lineno})"

"""Code that never comes back: which rollouts show it, and where in somebody's code it is."""

from __future__ import annotations

import faulthandler
import re
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

import ludus
from ludus.types import Rollout

STILL_S = 30.0
"""Without a model call before a rollout ran out of time: what is slow asks, or comes to an end, meanwhile."""
CURE = "give whatever may take long a limit, such as a sandbox's timeout_s, and patterns no repeats within repeats"
FRAME = re.compile(r'^  File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<function>\S+)', re.MULTILINE)
FOLDERS = (str(Path(ludus.__file__).parent), *map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")))
NOBODYS = tuple(f"{Path(folder).resolve()}/" for folder in FOLDERS)
"""Where no author's code is."""


class NeverReturns(Exception):
    """Most rollouts of a strategy hang in the environment's code; the text says where, and what to do."""

    def __init__(self, strategy: str, why: str) -> None:
        super().__init__(f"{strategy}: {why}")
        self.strategy, self.why = strategy, why


def hangs(rollout: Rollout) -> bool:
    """Whether a rollout ran out of time inside the environment's own code, and not because it had much to do."""
    failure = rollout.failure
    if failure is None or failure.boundary != "timeout" or failure.blame != "environment":
        return False
    return rollout.seconds - max((call.began_s + call.seconds for call in rollout.calls), default=0.0) >= STILL_S


def raise_if_stuck(strategy: str, rollouts: Sequence[Rollout]) -> None:
    """Raises NeverReturns where more than half of a strategy's rollouts hang."""
    stuck = [rollout for rollout in rollouts if hangs(rollout)]
    if len(stuck) <= len(rollouts) / 2:
        return
    failed = stuck[0].failure
    error = failed.error if failed else ""
    raise NeverReturns(
        strategy, f"{len(stuck)} of {len(rollouts)} rollouts never come back{_in(here())} ({error}); {CURE}"
    )


def silence(seconds: float, dump: str) -> str:
    """What to say of a process that did not even say that it is alive, given what `faulthandler` wrote of it."""
    return f"never comes back{_in(place_in(dump))}: for {seconds:g} s nothing else could run in its process; {CURE}"


def here() -> str:
    """Where somebody's code is in this process now, in threads that are not the caller's; "" if nowhere."""
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return place_in(file.read().decode(errors="replace"))


def place_in(dump: str) -> str:
    """The innermost function of somebody's code in a dump of `faulthandler`, "" where there is none.

    >>> place_in('Thread 0x1 (most recent call first):\\n  File "/my/env.py", line 7 in correct\\n')
    'correct (env.py, line 7)'
    """
    for frame in FRAME.finditer(dump):
        path = Path(frame["file"]).resolve()
        if not frame["file"].startswith("<") and not str(path).startswith(NOBODYS):
            return f"{frame['function']} ({path.name}, line {frame['line']})"
    return ""


def _in(place: str) -> str:
    return f" from {place}" if place else ""

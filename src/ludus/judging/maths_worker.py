"""`python -m ludus.judging.maths_worker`: compares mathematical answers, a line of JSON each, until nobody asks any more.

The kernel ends it where an answer takes more processor time than it may; too much memory is an answer that is not right.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from typing import Any

import msgspec

from ludus.judging.maths import Comparison, Outcome

MOST_BYTES = 2 << 30


def compare(asked: Comparison) -> Outcome:
    """Whether the reply's last answer is the known one."""
    from math_verify import parse, verify

    answer = asked.answer
    delimited = any(mark in answer for mark in ("$", "\\(", "\\[", "\\boxed"))
    written = [answer] if delimited else [f"${answer}$", answer]  # bare, only the last number of it would be found
    known: list[Any] = next((found for text in written if (found := parse(text, parsing_timeout=None))), [])
    if not known:
        return Outcome(problem="it is no mathematical expression")
    said = parse(asked.reply, parsing_timeout=None)
    return Outcome(same=bool(said) and bool(verify(known, said, timeout_seconds=None)))


def _limit_cpu(seconds: int) -> None:
    """So many more seconds of processor time, or SIGXCPU."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = int(used.ru_utime + used.ru_stime) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (spent + seconds, resource.RLIM_INFINITY))


def main() -> None:
    """Answer until the other side has gone."""
    import math_verify

    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever a library prints is no answer
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    out.write(f"{math_verify.__name__}\n".encode())
    for line in sys.stdin.buffer:
        asked = msgspec.json.decode(line, type=Comparison)
        _limit_cpu(asked.cpu_s)
        outcome = Outcome()
        with contextlib.suppress(Exception, MemoryError, RecursionError):
            outcome = compare(asked)
        out.write(msgspec.json.encode(outcome) + b"\n")


if __name__ == "__main__":
    main()

"""A sink takes the rows of metrics.jsonl, one by one, to where somebody looks at them. Adding one:

    @sink("print")
    class Print(Sink):
        def log(self, row, step):
            print(step, figures(row))

It is known as `sinks = ["print"]` from then on; the file of the environment is a good place for it.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ludus.errors import UsageError

Row = Mapping[str, Any]
"""A line of metrics.jsonl."""


@dataclass(frozen=True)
class RunInfo:
    """The run that a sink is opened for."""

    path: Path
    """The run folder."""
    name: str
    env: str
    """What `ludus eval ENV` takes."""
    config: Mapping[str, Any]
    """The resolved recipe."""
    id: str
    """Names this run and no other, also after it was resumed."""
    resumed: bool
    """Whether it was begun before. What the sink got then is not to be kept: it gets every row once more."""


class Sink(Protocol):
    """One place for rows. Inherit from it and write `log`."""

    def __init__(self, run: RunInfo) -> None:
        """Open it."""

    def log(self, row: Row, step: int) -> None:
        """Take a row. Steps never fall; an evaluation has the step that it came after.

        Args:
            row: exactly what metrics.jsonl gets; `figures` makes it what can be charted.
            step: of SFT and RL together.
        """
        ...

    def close(self) -> None:
        """The run is over, however it ended."""


SinkT = TypeVar("SinkT", bound=Callable[[RunInfo], Sink])

SINKS: dict[str, Callable[[RunInfo], Sink]] = {}
"""What opens the sinks that were registered, by the name that configuration uses."""


def sink(name: str) -> Callable[[SinkT], SinkT]:
    """Make a sink available as `sinks = ["name"]`. Raises UsageError where another one has the name."""

    def register(opener: SinkT) -> SinkT:
        if name in SINKS and _place(SINKS[name]) != _place(opener):  # a file that is loaded again is welcome
            raise UsageError(f"there is already a sink named {name!r}; choose another name")
        SINKS[name] = opener
        return opener

    return register


def _place(opener: Callable[[RunInfo], Sink]) -> tuple[Any, ...]:
    return opener.__module__, getattr(opener, "__qualname__", opener)


def run_id(path: Path) -> str:
    """What names the run in this folder and no other: made once, kept in the folder."""
    file = path / "run_id"
    if not file.exists():
        file.write_text(secrets.token_hex(4))
    return file.read_text()


def figures(row: Row) -> dict[str, float]:
    """What can be charted of a row: its finite numbers, each under the phase it is of, so that charts don't mix.

    >>> figures({"phase": "sft", "step": 3, "loss": 0.5, "grad_norm": float("nan")})
    {'sft/loss': 0.5}
    >>> figures({"phase": "eval", "step": 3, "eval/name": "end", "eval/mean": 1, "time/eval": 2.5})
    {'eval/mean': 1.0, 'eval/time/eval': 2.5}
    """
    prefix = f"{row['phase']}/"
    return {
        prefix + key.removeprefix(prefix): float(value)
        for key, value in row.items()
        if key != "step" and isinstance(value, Real) and math.isfinite(value)
    }

"""`Sinks`: those of one run. They are looked for before anything is made; after that, none of them stops the run.

metrics.jsonl is the truth: a run that is resumed gives every row that it has kept to sinks that begin anew, so that
what was cut is nowhere, nothing stands twice, and a sink that was dropped is whole again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType

from ludus.errors import MissingExtra, UnknownName
from ludus.sinks.sink import SINKS, Row, RunInfo, Sink

logger = logging.getLogger(__name__)

BUILT_IN = {"tensorboard": "TensorBoard", "trackio": "Trackio", "wandb": "WeightsAndBiases"}
"""Class by name; module, package and extra are called like the sink."""


def check_sinks(names: Iterable[str]) -> None:
    """Raises UnknownName where there is no such sink, MissingExtra where its package is not installed."""
    for name in names:
        if name not in BUILT_IN and name not in SINKS:
            raise UnknownName("sink", name, [*BUILT_IN, *SINKS])
        if name in BUILT_IN and not _is_installed(name):
            raise MissingExtra(f"the sink {name!r}", name)


class Sinks:
    """Gives rows to all sinks of a run. One that fails is warned about once and left out.

    Args:
        names: of the sinks.
        run: what they are opened for.
        rows: what the run has logged already.
    """

    def __init__(self, names: Sequence[str] = (), run: RunInfo | None = None, rows: Sequence[Row] = ()) -> None:
        self._open: dict[str, Sink] = {}
        for name in names:
            assert run is not None  # whoever names sinks says for what
            self._try(name, partial(self._open_one, name, run))
        for row in rows:
            self.log(row)

    def log(self, row: Row) -> None:
        """Give a row to each."""
        for name, sink in list(self._open.items()):
            self._try(name, partial(sink.log, row, row["step"]))

    def close(self) -> None:
        """Close each."""
        for name, sink in list(self._open.items()):
            self._try(name, sink.close)
        self._open.clear()

    def _open_one(self, name: str, run: RunInfo) -> None:
        self._open[name] = _opener(name)(run)

    def _try(self, name: str, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001 - whatever a sink raises, the run goes on
            self._open.pop(name, None)
            logger.warning(
                "the sink %r is left out from here on, the run goes on (%s: %s); metrics.jsonl has every row, and "
                "--resume gives them to the sink again", name, type(error).__name__, " ".join(str(error).split()),
            )  # fmt: skip

    def __enter__(self) -> Sinks:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _opener(name: str) -> Callable[[RunInfo], Sink]:
    if name in SINKS:
        return SINKS[name]
    opener: Callable[[RunInfo], Sink] = getattr(import_module(f"ludus.sinks.{name}"), BUILT_IN[name])
    return opener


def _is_installed(package: str) -> bool:
    """Asked of the installer's records: a folder `wandb/` that lies about here would pass for a package."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True

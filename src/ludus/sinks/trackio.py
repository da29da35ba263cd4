"""trackio: a local database that the runs of a folder share; look with `TRACKIO_DIR=runs/trackio trackio show`.

The variable TRACKIO_DIR, where it is set, says where the database is; so do trackio's others.
"""

from __future__ import annotations

import contextlib
import io
import os
from contextvars import Context
from typing import Any

from ludus.sinks.sink import Row, RunInfo, Sink, figures

PROJECT = "ludus"


class Trackio(Sink):
    """A run in trackio's project `ludus`; the same run, begun earlier, is replaced."""

    def __init__(self, run: RunInfo) -> None:
        os.environ.setdefault("TRACKIO_DIR", str(run.path.parent.resolve() / "trackio"))  # read when it is imported
        import trackio

        self._trackio = trackio
        if run.resumed:
            self._delete(run.id)
        config = {**run.config, "run_id": run.id}
        options: dict[str, Any] = {"group": run.env, "config": config, "resume": "never", "embed": False}
        with _quietly():  # in a context of its own, where it finds no run of the caller's to end
            self._run: Any = Context().run(trackio.init, PROJECT, run.name, **options)

    def log(self, row: Row, step: int) -> None:
        """A point in each figure's chart; a thread of trackio's writes it."""
        self._run.log(figures(row), step=step)

    def close(self) -> None:
        """Write what is left."""
        with _quietly():
            self._run.finish()

    def _delete(self, run_id: str) -> None:
        try:
            known = self._trackio.Api().runs(PROJECT)
        except ValueError:  # there is no such project yet
            return
        for run in list(known):
            if (run.config or {}).get("run_id") == run_id:
                run.delete()


def _quietly() -> contextlib.redirect_stdout[io.StringIO]:
    """It prints on stdout, where results go."""
    return contextlib.redirect_stdout(io.StringIO())

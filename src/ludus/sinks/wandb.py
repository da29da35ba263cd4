"""Weights & Biases: online where a key is known, and otherwise files in `runs/NAME/wandb` for `wandb sync`.

Its own variables (WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY, ...) say otherwise where they are set.
"""

from __future__ import annotations

import netrc
import os
import shutil
from typing import Literal
from urllib.parse import urlsplit

import wandb

from ludus.sinks.sink import Row, RunInfo, Sink, figures

PROJECT = "ludus"


class WeightsAndBiases(Sink):
    """One run there, however often it is resumed.

    Files of a run that was offline are written anew when it is resumed. A run that is online goes on, and W&B itself
    drops rows that are not later than the last one it has.
    """

    def __init__(self, run: RunInfo) -> None:
        os.environ.setdefault("WANDB_DISABLE_WEAVE", "true")  # or it writes advice into the progress display
        for folder in (run.path / "wandb").glob(f"offline-run-*-{run.id}"):
            shutil.rmtree(folder)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), name=run.name, group=run.env, id=run.id,
            config=dict(run.config), dir=str(run.path), mode=_mode(), resume="allow", reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
        )  # fmt: skip

    def log(self, row: Row, step: int) -> None:
        """A point in each figure's chart; a process of W&B's writes or sends it."""
        self._run.log(figures(row), step=step)

    def close(self) -> None:
        """Write or send what is left."""
        self._run.finish()


def _mode() -> Literal["offline"] | None:
    """Offline, so that nobody is asked for a key, unless there is one or the environment says what to do."""
    return None if os.environ.get("WANDB_MODE") or _has_key() else "offline"


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False

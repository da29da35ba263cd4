"""The run folder: everything a run knows, in files that a crash can't half-write.

    runs/NAME/
      config.toml     the resolved configuration
      metrics.jsonl   a line a step
      rollouts/       every rollout (rollout_log.py)
      index.db        found by id, purpose, task; rebuilt at will (index.py)
      state/STEP/     what resume needs (states.py)
      export/STEP/    model folders for transformers and vLLM
      result.json, report.html
      run_id, tensorboard/, wandb/   of the sinks that the recipe names (ludus.sinks)
      inspect/        logs that `ludus export inspect` writes
      labels.jsonl    what people said of its rollouts (labels.py)
      lock            held by the process that writes

One process writes (`create`, `resume`); any number read (`open`), also while it runs.
"""

from __future__ import annotations

import difflib
import errno
import fcntl
import logging
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import msgspec

from ludus.errors import RunFolderError
from ludus.redaction import SECRETS
from ludus.store.durable import (
    LineFile,
    disk_errors,
    fsync,
    fsync_tree,
    or_nothing,
    replace_folder,
    restore_folders,
    write_atomically,
)
from ludus.store.rollout_log import RolloutLog
from ludus.store.states import State, States

logger = logging.getLogger(__name__)

MIN_FREE_BYTES = 50 << 20
KEEP_STATES = 2
LAYOUT = (
    "config.toml", "metrics.jsonl", "index.db", "state", "export", "result.json", "report.html",
    "run_id", "tensorboard", "wandb", "inspect", "labels.jsonl",
)  # fmt: skip
"""What a run writes beside its rollouts."""


class Mark(NamedTuple):
    """A place in the growing files of a run."""

    metrics_bytes: int
    segments: Mapping[str, int]
    """Bytes of each rollout segment, by file name."""


class RunFolder:
    """A run on disk; made by `create`, `resume` or `open`. Close it (or leave its `with` block) to release the lock.

    Attributes:
        path: the folder, wherever the current one is.
        given: the same as it was named, for people.
        rollouts: its rollouts, to append and to read.
        keep: how many of the newest states are kept.
    """

    def __init__(self, path: Path, lock: int | None, *, keep: int = KEEP_STATES) -> None:
        self.given = path
        path = path.absolute()  # an environment may change the current folder
        self.path = path
        self.rollouts = RolloutLog(path / "rollouts", writable=lock is not None)
        self._states = States(path / "state", keep=keep)
        self._lock = lock
        self._metrics: LineFile | None = None

    @classmethod
    def create(cls, path: Path, *, overwrite: bool = False, keep: int = KEEP_STATES) -> RunFolder:
        """Make a new run folder and take its lock.

        Args:
            path: must not exist, or be empty.
            overwrite: replace the run that is there; files that aren't a run's are left alone.
            keep: how many of the newest states are kept.

        Raises:
            RunFolderError: something is in the way, another process holds it, or the disk is full or read-only.
        """
        occupied = path.is_dir() and any(child.name != "lock" for child in path.iterdir())
        if occupied and not (overwrite and is_run_folder(path)):
            raise RunFolderError(_in_the_way(path))
        with disk_errors(f"make the run folder {path}"):
            path.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(path).free
        if free < MIN_FREE_BYTES:
            raise RunFolderError(
                f"{path} has {free >> 20} MB of free disk; a run needs at least {MIN_FREE_BYTES >> 20} MB: free space, "
                f"or choose another disk"
            )
        run = cls(path, _take_lock(path), keep=keep)
        with disk_errors(f"write into {path}"):
            if occupied:
                _clear(path)
            (path / "rollouts").mkdir(exist_ok=True)
            fsync(path.parent)
        return run

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """A run folder to read, without its lock. Raises RunFolderError where it isn't one, with the nearest names."""
        _check_is_run(path)
        return cls(path, None)

    @classmethod
    def resume(cls, path: Path, *, keep: int = KEEP_STATES) -> RunFolder:
        """A run folder to go on with: `load_state`, then `truncate_to`.

        Raises:
            RunFolderError: not a run folder, another process holds it, or the disk is read-only.
        """
        _check_is_run(path)
        run = cls(path, _take_lock(path), keep=keep)
        with disk_errors(f"write into {path}"):
            for name in ("state", "export"):
                restore_folders(path / name)
        return run

    # --- configuration, metrics, result ---------------------------------------------------------------------------

    def write_config(self, text: str) -> None:
        """Write config.toml, without secrets."""
        self._replace("config.toml", SECRETS.hide(text).encode())

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Add a line to metrics.jsonl, with one write. NaN and infinities become null.

        Raises:
            RunFolderError: disk full or I/O error; nothing of the line is left.
        """
        self._check_writable()
        line = msgspec.json.encode(row, enc_hook=_to_number) + b"\n"
        with disk_errors(f"write {self.path / 'metrics.jsonl'}"):
            if self._metrics is None:
                self._metrics = LineFile(self.path / "metrics.jsonl")
            self._metrics.append(line)

    def read_metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl. A torn last line, which a crash leaves, is skipped with a logged warning.

        Raises:
            RunFolderError: another line is damaged.
        """
        path = self.path / "metrics.jsonl"
        with disk_errors(f"read {path}"):
            lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        rows = []
        for number, line in enumerate(lines, 1):
            try:
                rows.append(msgspec.json.decode(line, type=dict[str, Any]))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                if number < len(lines):
                    raise RunFolderError(f"{path}, line {number} is damaged: {error}; delete that line") from None
                logger.warning("%s: skipped a torn last line", path)
        return rows

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write result.json."""
        self._replace(
            "result.json", msgspec.json.format(msgspec.json.encode(result, enc_hook=_to_number), indent=2) + b"\n"
        )

    def read_result(self) -> dict[str, Any] | None:
        """result.json, or None where the run has not got there. Raises RunFolderError where it is damaged."""
        path = self.path / "result.json"
        if not path.exists():
            return None
        with disk_errors(f"read {path}"):
            data = path.read_bytes()
        try:
            return msgspec.json.decode(data, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RunFolderError(f"{path} is damaged: {error}") from None

    async def export(self, step: int, write: Callable[[Path], Awaitable[object]]) -> Path:
        """Have a model folder written as export/STEP, whole or not at all; returns it.

        Args:
            step: names the export; an earlier one of that step is replaced.
            write: fills the folder that it is given, which it may have to make.

        Raises:
            RunFolderError: disk full or I/O error.
        """
        self._check_writable()
        folder = self.path / "export" / str(step)
        aside = folder.with_name(f".{step}.tmp")
        with disk_errors(f"export to {folder}"):
            folder.parent.mkdir(exist_ok=True)
            fsync(self.path)
            for left in folder.parent.glob(".*.tmp"):
                shutil.rmtree(left)
            with or_nothing(aside):
                await write(aside)
                fsync_tree(aside)
                replace_folder(folder, aside)
        return folder

    # --- states ---------------------------------------------------------------------------------------------------

    def states(self) -> list[int]:
        """Steps of the complete states, oldest first."""
        return self._states.steps()

    async def save_state_async(self, step: int, write: Callable[[Path], Awaitable[object]]) -> State:
        """Save what resume needs, whole or not at all; hashing and syncing run in a thread.

        The metrics and rollouts that count as written are those appended before the call.

        Args:
            step: names the state; an earlier one of that step is replaced.
            write: fills the empty folder that it is given.

        Raises:
            RunFolderError: disk full or I/O error; the states before are untouched.
        """
        import asyncio

        with disk_errors(f"save the state of step {step}"):
            folder, offsets = self._begin_state(step)
            with or_nothing(folder):
                await write(folder)
            return await asyncio.to_thread(self._states.seal, step, **offsets)

    def load_state(self, step: int | None = None) -> State:
        """The newest whole state (damaged ones are skipped with a logged warning), or that of a step.

        Raises:
            RunFolderError: none is whole, or the one asked for is missing or damaged.
        """
        return self._states.load(step)

    def truncate_to(self, state: State) -> None:
        """Cut metrics and rollouts back to where they were when the state was saved; drop later states and the index.

        Raises:
            RunFolderError: a file is shorter than it was then.
        """
        self._check_writable()
        mark = Mark(state.manifest.metrics_bytes, state.manifest.segments)
        for path, size in self._sizes(mark).items():
            _check_size(path, size, state.step)
        with disk_errors(f"go back to step {state.step} in {self.path}"):
            self._states.drop_after(state.step)
        self.cut_to(mark)

    def mark(self) -> Mark:
        """How far metrics and rollouts have come, for `cut_to`."""
        metrics = self.path / "metrics.jsonl"
        return Mark(
            metrics.stat().st_size if metrics.exists() else 0,
            {path.name: path.stat().st_size for path in self.rollouts.segments()},
        )

    def cut_to(self, mark: Mark) -> None:
        """Forget the metrics and rollouts written since a mark, and the index. Raises RunFolderError."""
        self._check_writable()
        self._close_files()
        with disk_errors(f"go back in {self.path}"):
            (self.path / "index.db").unlink(missing_ok=True)
            sizes = self._sizes(mark)
            for path in self.rollouts.segments():
                if path not in sizes:
                    path.unlink()
            for path, size in sizes.items():
                if path.exists():
                    os.truncate(path, size)

    def _sizes(self, mark: Mark) -> dict[Path, int]:
        sizes = {self.rollouts.folder / name: size for name, size in mark.segments.items()}
        return {**sizes, self.path / "metrics.jsonl": mark.metrics_bytes}

    # --- lock -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close files and release the lock."""
        self._close_files()
        if self._lock is not None:
            lock, self._lock = self._lock, None
            os.close(lock)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _close_files(self) -> None:
        self.rollouts.close()
        if self._metrics is not None:
            metrics, self._metrics = self._metrics, None
            metrics.close()

    def _check_writable(self) -> None:
        if self._lock is None:
            raise RunFolderError(f"{self.path} is open for reading only; use RunFolder.resume to write")

    def _replace(self, name: str, data: bytes) -> None:
        self._check_writable()
        with disk_errors(f"write {self.path / name}"):
            write_atomically(self.path / name, data)

    def _begin_state(self, step: int) -> tuple[Path, dict[str, Any]]:
        """A folder to write into, and the sizes of the growing files, which are on disk when this returns."""
        self._check_writable()
        folder, mark = self._states.begin(step), self.mark()
        for path in (*self._sizes(mark), self.rollouts.folder, self.path):  # a file's name is its folder's content
            if path.exists():
                fsync(path)
        return folder, {"metrics_bytes": mark.metrics_bytes, "segments": dict(mark.segments)}


def is_run_folder(path: Path) -> bool:
    """Whether a folder was made by `RunFolder.create`."""
    return (path / "rollouts").is_dir()


def _to_number(value: Any) -> Any:
    """NumPy scalars as Python numbers; anything else is refused."""
    try:
        return value.item()
    except AttributeError:
        raise TypeError(f"expected numbers, text, lists and dicts, got {type(value).__name__}: {value!r}") from None


def _check_is_run(path: Path) -> None:
    if is_run_folder(path):
        return
    near = ""
    if path.parent.is_dir():
        runs = [child.name for child in path.parent.iterdir() if child != path and is_run_folder(child)]
        names = difflib.get_close_matches(path.name, runs, n=3, cutoff=0.3)
        near = f"; did you mean {' or '.join(repr(str(path.parent / name)) for name in names)}?" if names else ""
    what = "is not a run folder (it has no rollouts folder)" if path.exists() else "does not exist"
    raise RunFolderError(f"{path} {what}{near}")


def _in_the_way(path: Path) -> str:
    if is_run_folder(path):
        return (
            f"{path} already holds a run; choose another name=..., replace it with overwrite=true, or continue it "
            f"with --resume"
        )
    return f"{path} is not empty and not a run folder, so it is never overwritten; choose another name=..."


def _clear(path: Path) -> None:
    """Remove a run's files. The rollouts folder stays, and is emptied last: it tells that this is a run's folder."""
    for child in (*(path / name for name in LAYOUT), *RolloutLog(path / "rollouts").segments()):
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink(missing_ok=True)


def _check_size(path: Path, size: int, step: int) -> None:
    found = path.stat().st_size if path.exists() else 0
    if found < size:
        raise RunFolderError(
            f"{path} has {found} bytes but had {size} when the state of step {step} was saved: something else has cut "
            f"it; restore it from a copy, or start a new run"
        )


def _take_lock(path: Path) -> int:
    """Lock `lock`, write our process id into it and return its descriptor. The lock dies with the process."""
    with disk_errors(f"write into {path}"):
        fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            raise RunFolderError(
                f"{path} is being written by another process (pid {pid}); wait for it, stop it, or choose another "
                f"name=..."
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
                os.close(fd)
                raise
            logger.warning("the file system of %s has no locks; make sure that one process writes to it", path)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return fd

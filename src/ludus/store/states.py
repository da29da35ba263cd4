"""Saved states: `state/STEP/`, what resume needs. Written aside, hashed, synced, then renamed: whole or absent.

Each holds a `manifest.json` with the size and SHA-256 of every file, and how long the metrics and the rollout segments
were, so that resume can cut them back and count nothing twice. A crash at any point leaves the states before it whole.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from pathlib import Path

import msgspec

from ludus.errors import RunFolderError
from ludus.store.durable import (
    disk_errors,
    fsync,
    fsync_tree,
    or_nothing,
    replace_folder,
    restore_folders,
    write_atomically,
)
from ludus.types import content_hash

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"


class FileEntry(msgspec.Struct, frozen=True):
    """What a file must be."""

    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a state consists of, and where the run's growing files stood."""

    step: int
    files: dict[str, FileEntry]
    metrics_bytes: int
    segments: dict[str, int]
    """Bytes of each rollout segment, by file name."""
    hash: str = ""
    """Of the rest of the manifest."""

    def content_hash(self) -> str:
        return content_hash(msgspec.to_builtins(msgspec.structs.replace(self, hash="")))


class State(msgspec.Struct, frozen=True):
    """A whole, verified state: its step, its folder and its manifest."""

    step: int
    path: Path
    manifest: Manifest


class States:
    """The saved states of one run.

    Args:
        folder: the run's `state` folder.
        keep: how many of the newest are kept.
    """

    def __init__(self, folder: Path, *, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def steps(self) -> list[int]:
        """Steps of the complete states, oldest first. Their content is checked when they are loaded."""
        return sorted(int(m.parent.name) for m in self.folder.glob(f"*/{MANIFEST}") if m.parent.name.isdigit())

    def begin(self, step: int) -> Path:
        """An empty folder to write the state of a step into. What crashes left behind is removed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        restore_folders(self.folder)
        for left in (*self.folder.glob(".*.tmp"), *self.folder.glob(".*.old")):
            shutil.rmtree(left)
        aside = self.folder / f".{step}.tmp"
        aside.mkdir()
        return aside

    def seal(self, step: int, *, metrics_bytes: int, segments: dict[str, int]) -> State:
        """Make what was written since `begin` the state of the step, then drop states beyond `keep`."""
        aside, path = self.folder / f".{step}.tmp", self.folder / str(step)
        with or_nothing(aside):
            files = {name: _entry(aside / name) for name in _files(aside)}
            fsync_tree(aside)
            manifest = Manifest(step=step, files=files, metrics_bytes=metrics_bytes, segments=segments)
            manifest = msgspec.structs.replace(manifest, hash=manifest.content_hash())
            write_atomically(aside / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=1))
            replace_folder(path, aside)
            for old in self.steps()[: -self.keep]:
                self._remove(self.folder / str(old))
        return State(step, path, manifest)

    def load(self, step: int | None = None) -> State:
        """The newest whole state, or that of a step.

        Raises:
            RunFolderError: none is whole, or the one asked for is missing or damaged.
        """
        if step is not None:
            return self._verified(self.folder / str(step))
        for newest in reversed(self.steps()):
            try:
                return self._verified(self.folder / str(newest))
            except RunFolderError as damage:
                logger.warning("skipped a damaged state: %s", damage)
        raise RunFolderError(
            f"there is no whole state in {self.folder} to resume from; start a new run, or put a whole state back"
        )

    def drop_after(self, step: int) -> None:
        """Remove the states of later steps: once the run went back, they tell of a future that was cut off."""
        for later in self.steps():
            if later > step:
                self._remove(self.folder / str(later))
        fsync(self.folder)  # before what they count on is cut

    def _remove(self, path: Path) -> None:
        """Renamed first, so that a crash half-way never leaves half a state under a step's name."""
        aside = path.with_name(f".{path.name}.old")
        path.rename(aside)
        shutil.rmtree(aside)

    def _verified(self, path: Path) -> State:
        manifest = self._manifest(path)
        for name, expected in manifest.files.items():
            file = path / name
            if not file.is_file():
                raise RunFolderError(f"{file} is missing from the state of step {path.name}")
            with disk_errors(f"read {file}"):
                size = file.stat().st_size
                if size != expected.size:
                    raise RunFolderError(f"{file} is damaged: expected {expected.size} bytes, got {size}")
                if _entry(file) != expected:
                    raise RunFolderError(f"{file} is damaged: its SHA-256 is not the one in {MANIFEST}")
        return State(manifest.step, path, manifest)

    def _manifest(self, path: Path) -> Manifest:
        file = path / MANIFEST
        try:
            manifest = msgspec.json.decode(file.read_bytes(), type=Manifest)
        except FileNotFoundError:
            steps = ", ".join(map(str, self.steps())) or "none"
            raise RunFolderError(f"there is no state of step {path.name} in {self.folder} (whole: {steps})") from None
        except (msgspec.DecodeError, UnicodeDecodeError, OSError) as error:
            raise RunFolderError(f"{file} is damaged: {error}") from None
        if manifest.hash != manifest.content_hash() or str(manifest.step) != path.name:
            raise RunFolderError(f"{file} is damaged: it does not match its own hash and step")
        return manifest


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _entry(file: Path) -> FileEntry:
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
        return FileEntry(os.fstat(content.fileno()).st_size, digest)

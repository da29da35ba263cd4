"""Run folders that a program goes on in: only where what is asked for is what was asked for before."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ludus.errors import RunFolderError
from ludus.redaction import SECRETS
from ludus.store import RunFolder


def open_out(path: Path, kind: str, about: Mapping[str, Any]) -> RunFolder:
    """The run folder of a program, new or begun before with the same model and settings.

    Args:
        path: where it is, or will be.
        kind: of program; its table in config.toml.
        about: everything that has to be the same.

    Raises:
        RunFolderError: another run, or something else, is in the way.
    """
    import tomli_w

    text = SECRETS.hide(tomli_w.dumps({kind: _without_none(about)}))
    config = path / "config.toml"
    if not config.exists():
        run = RunFolder.create(path)
        run.write_config(text)
        return run
    try:
        before = tomllib.loads(config.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{config} is damaged: {error}") from None
    if kind not in before:
        raise RunFolderError(f"{path} holds a run that is not an {kind}; choose another folder (--out)")
    if changes := _changes(before[kind], tomllib.loads(text)[kind]):
        raise RunFolderError(f"{path} holds another {kind}: {', '.join(changes)}; choose another folder (--out)")
    return RunFolder.resume(path)


def _changes(before: Mapping[str, Any], now: Mapping[str, Any], table: str = "") -> list[str]:
    """Entries that differ, each with what it was and is.

    >>> _changes({"seed": 0, "env": {"id": "guess", "hash": "1f"}}, {"seed": 1, "env": {"id": "guess", "hash": "2f"}})
    ['seed was 0, is 1', "env.hash was '1f', is '2f'"]
    """
    changes = []
    for key in dict.fromkeys([*before, *now]):
        was, value = before.get(key), now.get(key)
        if isinstance(was, dict) and isinstance(value, dict):
            changes += _changes(was, value, f"{table}{key}.")
        elif was != value:
            was, value = ("absent" if entry is None else repr(entry) for entry in (was, value))
            changes.append(f"{table}{key} was {was}, is {value}")
    return changes


def _without_none(value: Any) -> Any:
    """Without what TOML has no word for; an option that is None is one that is not there."""
    if isinstance(value, dict):
        return {key: _without_none(entry) for key, entry in value.items() if entry is not None}
    return [_without_none(entry) for entry in value if entry is not None] if isinstance(value, list) else value

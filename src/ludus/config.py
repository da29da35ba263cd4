"""Configuration: frozen pydantic models read from TOML and `key=value`, with errors a person can act on.

One model a program; unknown keys are refused with the nearest valid one; values are checked once, at the edge.
"""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ludus.errors import ConfigError, UnknownName


class Config(BaseModel):
    """Base of all configuration: frozen, nothing extra, defaults checked, docstrings become descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True)


ConfigT = TypeVar("ConfigT", bound=Config)


def parse(kind: type[ConfigT], values: Mapping[str, Any], *, where: str = "") -> ConfigT:
    """Check values against a configuration model.

    Raises:
        UnknownName: a key that does not exist, with the nearest valid one.
        ConfigError: a value of the wrong type or range: key, value and what is allowed.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise _explain(kind, error, where) from None


def load(kind: type[ConfigT], path: Path, overrides: Sequence[str] = ()) -> ConfigT:
    """Read a TOML file, apply `key=value` overrides, check.

    Raises:
        ConfigError: no such file, not TOML, or a bad value.
        UnknownName: a key that does not exist.
    """
    return parse(kind, merge(read_toml(path), overrides), where=str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a dict. Raises ConfigError naming the line at fault."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no such file: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"can't read {path}: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None


def merge(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Apply overrides such as `rl.steps=10`, `env="rg:sum"` or, in a list of tables, `envs.0.weight=2`.

    Values are TOML, and bare words are strings. Raises ConfigError for a key that leads nowhere.

    >>> merge({"rl": {"steps": 1}}, ["rl.steps=10", "env=guess"])
    {'rl': {'steps': 10}, 'env': 'guess'}
    """
    merged = copy.deepcopy(dict(values))
    for override in overrides:
        path, found, text = override.partition("=")
        if not found or not path.strip():
            raise ConfigError(f"expected key=value, got {override!r}")
        *parents, leaf = path.strip().split(".")
        table: Any = merged
        for parent in parents:
            table = _entry(table, parent, override)
        if not isinstance(table, dict):
            raise ConfigError(f"{override!r}: {parents[-1]!r} is a value, not a table")
        table[leaf] = parse_value(text)
    return merged


def _entry(table: Any, key: str, override: str) -> Any:
    """What a table has under a key, a new table where it has nothing, or what stands at a place of a list."""
    if isinstance(table, dict):
        return table.setdefault(key, {})
    if not isinstance(table, list):
        raise ConfigError(f"{override!r}: there is nothing in a value, such as {key!r}")
    if not key.isdecimal() or int(key) >= len(table):
        raise ConfigError(f"{override!r}: expected a place from 0 to {len(table) - 1} in that list, got {key!r}")
    return table[int(key)]


def parse_value(text: str) -> Any:
    """A TOML value, or the text itself where it isn't one.

    >>> parse_value("3"), parse_value("true"), parse_value("rg:sum"), parse_value("[1, 2]")
    (3, True, 'rg:sum', [1, 2])
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def to_toml(config: Config) -> str:
    """The resolved configuration as TOML text; unset optional values are left out."""
    import tomli_w  # only writers need it

    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))


def _explain(kind: type[BaseModel], error: ValidationError, where: str) -> ConfigError | UnknownName:
    """The first problem, in one line, with the key in dotted form."""
    problems = error.errors(include_url=False)
    first = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    loc = [str(part) for part in first["loc"]]
    key = ".".join(loc)
    if first["type"] == "extra_forbidden":
        table = _table_at(kind, loc[:-1])
        prefix = ".".join(loc[:-1])
        valid = [f"{prefix}.{name}" if prefix else name for name in table.model_fields]
        return UnknownName("key" + (f" in {where}" if where else ""), key, valid)
    if first["type"] == "missing":
        return ConfigError(f"{where + ': ' if where else ''}the key {key!r} is required")
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if not loc:  # of how keys go together, where the input is everything
        return ConfigError(f"{where + ': ' if where else ''}{message}")
    return ConfigError(f"{where + ': ' if where else ''}{key} = {first['input']!r}: {message}")


def _table_at(kind: type[BaseModel], path: Sequence[str]) -> type[BaseModel]:
    for name in path:
        if name.isdecimal():  # of a list of tables, all alike
            continue
        annotation = kind.model_fields[name].annotation
        candidates = _flattened(annotation)
        kind = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return kind


def _flattened(annotation: Any) -> list[Any]:
    """A type and all that it is made of."""
    return [annotation, *(inner for part in getattr(annotation, "__args__", ()) for inner in _flattened(part))]

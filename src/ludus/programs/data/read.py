"""Conversations from a file, as `ludus data make` and others write them: one JSON object a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from ludus.errors import ConfigError
from ludus.types import Message


class Example(msgspec.Struct):
    """A conversation to learn from, with the tools that it was offered; other fields of its line are for people."""

    messages: list[Message]
    tools: list[dict[str, Any]] | None = None


def read_examples(path: Path) -> list[Example]:
    """The conversations of a file, in order.

    Raises:
        ConfigError: no such file, none in it, or a line that is no conversation with a reply; names the line.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"can't read the data {path}: {error.strerror or error}") from None
    found = [_read(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise ConfigError(f"the data {path} holds no conversation")
    return found


def _read(path: Path, number: int, line: bytes) -> Example:
    where = f"{path}, line {number}: expected {{'messages': [{{'role': ..., 'content': ...}}, ...]}}"
    try:
        example = msgspec.json.decode(line, type=Example)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: {error}") from None
    roles = [message.get("role") for message in example.messages]
    if not all(isinstance(role, str) for role in roles) or "assistant" not in roles:
        raise ConfigError(f"{where}, one of them the assistant's; the roles are {roles}")
    return example

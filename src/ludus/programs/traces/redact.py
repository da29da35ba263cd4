"""Takes secrets out of what was recorded, before anything is written.

A pattern runs only over texts that hold one of its needles, so that conversations without secrets cost next to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ludus.programs.traces.secrets import KINDS, Kind, own_kind
from ludus.redaction import SECRETS

FORMAT = frozenset((
    "messages", "role", "content", "tool_calls", "tool_call_id", "id", "type", "function", "name", "arguments", "tools",
    "why", "description", "parameters", "properties", "required", "items", "enum",
))  # fmt: skip
"""Names of the format, and of JSON schemas: whatever a pattern says, they stay."""
FIXED = ("role", "type", "id", "tool_call_id")
"""Texts under these names are the format's own, too."""


class Found(msgspec.Struct, frozen=True):
    """Where a secret was; never the secret itself."""

    kind: str
    where: str
    """Such as "messages[2].content"."""
    characters: int


class Redactor:
    """Takes secrets out of JSON values.

    Args:
        patterns: regular expressions of one's own, for what else must not be written.

    Raises:
        UsageError: one of them is none, or matches where nothing stands.
    """

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self._kinds = (*KINDS, *map(own_kind, patterns))

    def redact(self, value: Any) -> tuple[Any, list[Found]]:
        """The value without secrets, and where they were; the very object where it has none."""
        encoded = msgspec.json.encode(value)
        lowered = encoded.decode().lower()
        kinds = [kind for kind in self._kinds if kind.may_stand_in(lowered)]
        known = SECRETS.found_in(encoded)
        if not kinds and not known:
            return value, []
        found: list[Found] = []
        clean = _Walk(kinds, known, found).clean(value, "")
        return (clean, found) if found else (value, [])


class _Walk:
    """One value's way through the kinds that may be in it.

    Args:
        kinds: these.
        known: whether a secret of this machine is in it, too.
        found: gets what is found.
    """

    def __init__(self, kinds: Sequence[Kind], known: bool, found: list[Found]) -> None:
        self._kinds, self._known, self._found = kinds, known, found

    def clean(self, value: Any, where: str) -> Any:
        if isinstance(value, str):
            return self._text(value, where)
        if isinstance(value, list):
            return [self.clean(item, f"{where}[{i}]") for i, item in enumerate(value)]
        if isinstance(value, dict):
            fields = {}
            for name, item in value.items():
                if name not in FORMAT:
                    name = self._text(name, f"{where} (a name)")
                at = f"{where}.{name}".lstrip(".")
                clean = item if name in FIXED and isinstance(item, str) else self.clean(item, at)
                fields[name] = _as_arguments(clean) if name == "arguments" and clean != item else clean
            return fields
        return value

    def _text(self, text: str, where: str) -> str:
        if self._known and (hidden := SECRETS.hide(text)) != text:
            self._found.append(Found("secret of this machine", where, len(text)))
            text = hidden
        lowered = text.lower()
        for kind in self._kinds:
            if not kind.may_stand_in(lowered):
                continue
            for start, end in reversed(list(kind.spans(text))):
                text = f"{text[:start]}[{kind.name}]{text[end:]}"
                self._found.append(Found(kind.name, where, end - start))
        return text


def _as_arguments(text: str) -> str:
    """The arguments of a call, which stay JSON whatever was cut out of them."""
    try:
        fine = isinstance(msgspec.json.decode(text), dict)
    except msgspec.MsgspecError:
        fine = False
    return text if fine else msgspec.json.encode({"redacted": text}).decode()

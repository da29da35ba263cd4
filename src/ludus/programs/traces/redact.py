"""Takes secrets out of what was recorded, before anything is written.

What was found in one place of a conversation is taken out wherever else it stands in it: who says "my password is x" may
say x alone in the next message, and a tool may be called with it. A pattern runs only over texts that hold one of its
needles, so that conversations without secrets cost next to nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ludus.programs.traces.kind import Kind, Look, own_kind
from ludus.programs.traces.secrets import KINDS
from ludus.redaction import SECRETS

FORMAT = frozenset((
    "messages", "role", "content", "tool_calls", "tool_call_id", "id", "type", "function", "name", "arguments", "tools",
    "why", "description", "parameters", "properties", "required", "items", "enum",
))  # fmt: skip
"""Names of the format, and of JSON schemas: whatever a pattern says, they stay."""
FIXED = ("role", "type", "id", "tool_call_id")
"""Texts under these names of a message are the format's own, too."""
_SHORT = 12
"""Characters of a secret below which what stands before and after tells it from a part of something else."""
_PLACEHOLDER = re.compile(r"(?<=[:,\[\s])(\[[A-Za-z -]+\])(?=\s*[,}\]])")
"""What was put in the place of a number in JSON."""


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
        look = Look(encoded.decode())
        kinds = [kind for kind in self._kinds if kind.may_stand_in(look)]
        known = SECRETS.found_in(encoded)
        if not kinds and not known:
            return value, []
        walk = _Walk(kinds, known)
        clean = walk.clean(value, "")
        if again := _anywhere(walk.secrets):
            clean = _Walk([], known=False, again=again, found=walk.found).clean(clean, "")
        return (clean, walk.found) if walk.found else (value, [])


class _Walk:
    """One value's way through the kinds that may be in it.

    Args:
        kinds: these.
        known: whether a secret of this machine is in it, too.
        again: secrets that were found before, and what was put in their place.
        found: gets what is found.
    """

    def __init__(
        self,
        kinds: Sequence[Kind],
        known: bool,
        again: tuple[re.Pattern[str], dict[str, str]] | None = None,
        found: list[Found] | None = None,
    ) -> None:
        self._kinds, self._known, self._again = kinds, known, again
        self.found: list[Found] = [] if found is None else found
        self.secrets: dict[str, str] = {}
        """What was taken out, and the kind that it was."""

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
                own = name in FIXED and isinstance(item, str) and not where.startswith("tools")
                clean = item if own else self.clean(item, at)
                fields[name] = _as_arguments(clean) if name == "arguments" and clean != item else clean
            return fields
        return value

    def _text(self, text: str, where: str) -> str:
        before = text
        if self._known and (hidden := SECRETS.hide(text)) != text:
            self.found.append(Found("secret of this machine", where, len(text)))
            text = hidden
        if self._again is not None:
            text = self._seen_before(text, where, *self._again)
        look = Look(text)
        for kind in self._kinds:
            if not kind.may_stand_in(look):
                continue
            for start, end in reversed(list(kind.spans(text))):
                self.secrets.setdefault(text[start:end], kind.name)
                text = f"{text[:start]}[{kind.name}]{text[end:]}"
                self.found.append(Found(kind.name, where, end - start))
        return text if text == before else _still_json(before, text)

    def _seen_before(self, text: str, where: str, pattern: re.Pattern[str], kinds: dict[str, str]) -> str:
        def hide(match: re.Match[str]) -> str:
            kind = kinds[match[0]]
            self.found.append(Found(kind, where, len(match[0])))
            return f"[{kind}]"

        return pattern.sub(hide, text)


def _anywhere(secrets: dict[str, str]) -> tuple[re.Pattern[str], dict[str, str]] | None:
    """What finds these secrets in any text, JSON in JSON included, and the kind of each way to write them; None of none.

    A plain word, such as one that was taken for a password, stays where nothing says that it is one.
    """
    ways: dict[str, str] = {}
    for text, kind in secrets.items():
        plain = text.strip().rstrip(".!?,:")
        tells = len(plain) >= _SHORT or (len(plain) >= 4 and not (plain.isalpha() and plain[1:].islower()))
        if tells and not any(plain in f"[{other}]" for other in secrets.values()):
            for way in (plain, json.dumps(plain)[1:-1]):
                for _ in range(3):
                    ways.setdefault(way, kind)
                    way = json.dumps(way, ensure_ascii=False)[1:-1]
    if not ways:
        return None
    return re.compile("|".join(_standing_alone(way) for way in sorted(ways, key=len, reverse=True))), ways


def _standing_alone(text: str) -> str:
    if len(text) >= _SHORT:
        return re.escape(text)
    return rf"(?:(?<![A-Za-z0-9])|(?<=\\[nrt])){re.escape(text)}(?![A-Za-z0-9])"


def _still_json(before: str, after: str) -> str:
    """The text after, which stays JSON where it was: a number that was cut out leaves text."""
    if before.lstrip()[:1] not in ("{", "[") or not _is_json(before) or _is_json(after):
        return after
    quoted = _PLACEHOLDER.sub(r'"\1"', after)
    return quoted if _is_json(quoted) else after


def _is_json(text: str, kinds: Iterable[type] = (dict, list)) -> bool:
    try:
        return isinstance(msgspec.json.decode(text), tuple(kinds))
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return False


def _as_arguments(text: str) -> str:
    """The arguments of a call, which stay JSON whatever was cut out of them."""
    return text if _is_json(text, [dict]) else msgspec.json.encode({"redacted": text}).decode()

"""Values that are almost JSON: bare keys, quotes of other kinds, Python's constants. For LFM2 and Gemma 4."""

from __future__ import annotations

from typing import Any

import msgspec

from ludus.renderers.formats.base import Malformed
from ludus.renderers.formats.typed import literal
from ludus.renderers.parsing import JSON_ERRORS

_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
_ENDS = ",)]}"


class Literals:
    """Reads values from a text, left to right.

    Args:
        text: what to read.
        quotes: what a string may stand between; the same before and after it.
        escapes: whether a backslash protects the next character of a string.
    """

    def __init__(self, text: str, quotes: tuple[str, ...], *, escapes: bool) -> None:
        self.text, self.at = text, 0
        self._quotes, self._escapes = quotes, escapes

    def mapping(self, assign: str, close: str) -> dict[str, Any]:
        """Keys and values up to the closing bracket, the opening one being behind us. Raises Malformed."""
        values: dict[str, Any] = {}
        while not self.take(close):
            if values:
                self.expect(",")
            key = self._string() if self._quote() else self.word(assign + _ENDS)
            self.expect(assign)
            values[key] = self.value()
        return values

    def value(self) -> Any:
        """A string, list, mapping or constant. Raises Malformed."""
        if self._quote():
            return self._string()
        if self.take("{"):
            return self.mapping(":", "}")
        if self.take("["):
            items: list[Any] = []
            while not self.take("]"):
                if items:
                    self.expect(",")
                items.append(self.value())
            return items
        word = self.word(_ENDS)
        value = literal(word)
        if isinstance(value, str):
            raise Malformed(f"{word[:40]!r} is not a value: strings stand between {' or '.join(self._quotes)}")
        return value

    def word(self, ends: str) -> str:
        """What stands before any of the characters `ends`, without white space around it. Raises Malformed."""
        start = self.at
        while self.at < len(self.text) and self.text[self.at] not in ends:
            self.at += 1
        word = self.text[start : self.at].strip()
        if not word:
            raise Malformed(f"something is missing before {self.text[self.at : self.at + 20]!r}")
        return word

    def take(self, token: str) -> bool:
        """Step over white space, and over the token if it comes next."""
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        found = self.text.startswith(token, self.at)
        self.at += len(token) if found else 0
        return found

    def expect(self, token: str) -> None:
        """Step over a token. Raises Malformed."""
        if not self.take(token):
            raise Malformed(f"expected {token}, got {self.text[self.at : self.at + 20]!r}")

    def _quote(self) -> str:
        """The quotation mark that comes next, or ""."""
        self.take("")
        return next((quote for quote in self._quotes if self.text.startswith(quote, self.at)), "")

    def _string(self) -> str:
        quote = self._quote()
        start = self.at
        self.at += len(quote)
        pieces: list[str] = []
        while not self.text.startswith(quote, self.at):
            if self.at >= len(self.text):
                raise Malformed(f"the string {self.text[start : start + 20]!r} is not closed")
            if self._escapes and self.text[self.at] == "\\" and self.at + 1 < len(self.text):
                pieces.append(self._escape(quote))
                continue
            pieces.append(self.text[self.at])
            self.at += 1
        self.at += len(quote)
        return "".join(pieces)

    def _escape(self, quote: str) -> str:
        character = self.text[self.at + 1]
        if character == "u":  # only JSON's writer makes these
            code = self.text[self.at : self.at + 6]
            try:
                value: str = msgspec.json.decode(f'"{code}"', type=str)
            except JSON_ERRORS:
                self.at += 1
                return "\\"
            self.at += 6
            return value
        if character in _ESCAPES or character in ("\\", quote):
            self.at += 2
            return _ESCAPES.get(character, character)
        self.at += 1
        return "\\"

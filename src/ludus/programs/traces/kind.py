"""`Kind`: one kind of secret, and how it is seen quickly that a text has none.

Most conversations have no secret, so what counts is how fast that is known: words that every such secret stands behind
are looked for in one go over the whole text, and so are runs of characters that are long enough to be one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cached_property
from string import ascii_letters, digits

import msgspec

from ludus.errors import UsageError


def _shape(inside: str) -> bytes:
    """A table that makes all of these characters the same one, and everything else another."""
    return bytes(ord("a") if chr(byte) in inside else ord(" ") for byte in range(256))


_KEY_SHAPE, _DIGIT_SHAPE = _shape(ascii_letters + digits + "_.:-"), _shape(digits)


class Look:
    """A text, as kinds look at it before they search it."""

    def __init__(self, text: str) -> None:
        self.lowered = text.lower()

    def has_run(self, length: int) -> bool:
        """Whether so many characters that keys are made of stand in a row."""
        return b"a" * length in self._key_shape

    def has_digits(self, count: int) -> bool:
        """Whether so many digits stand in a row, spaces and hyphens aside."""
        return b"a" * count in self._digit_shape

    @cached_property
    def _encoded(self) -> bytes:
        return self.lowered.encode(errors="replace")

    @cached_property
    def _key_shape(self) -> bytes:
        return self._encoded.translate(_KEY_SHAPE)

    @cached_property
    def _digit_shape(self) -> bytes:
        return self._encoded.translate(_DIGIT_SHAPE, b" -")


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of secret."""

    name: str
    pattern: re.Pattern[str]
    """Its last group with a name is what is taken out; without one, all of the match."""
    needles: tuple[str, ...] = ()
    """In lower case; one of them stands in every text that has such a secret. () looks into every text."""
    run: int = 0
    """Characters that keys are made of, of which it has so many in a row at least."""
    digits: int = 0
    """Digits of which it has so many in a row at least, spaces and hyphens aside."""
    may_be_in: Callable[[str], bool] = lambda lowered: True
    """A closer look at a text in lower case, where needles are common words."""
    is_one: Callable[[str], bool] = lambda text: True
    """Whether what was found is one."""

    def may_stand_in(self, look: Look) -> bool:
        """False where a text has none; quickly."""
        if self.run and not look.has_run(self.run):
            return False
        if self.digits and not look.has_digits(self.digits):
            return False
        if self.needles:
            for needle in self.needles:
                if needle in look.lowered:
                    break
            else:
                return False
        return self.may_be_in(look.lowered)

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Where each one begins and ends."""
        for match in self.pattern.finditer(text):
            start, end = match.span(match.lastgroup or 0)
            if end > start and self.is_one(text[start:end]):
                yield start, end


def own_kind(pattern: str) -> Kind:
    """What else must not be written. Raises UsageError for what is no pattern, or matches where nothing stands."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"{pattern!r} is no regular expression: {error}") from None
    if compiled.search(""):
        raise UsageError(f"{pattern!r} matches where nothing stands: it would redact everything")
    return Kind(name="own pattern", pattern=compiled)

"""Names made of parts: disjoint between training and testing, though made of the same parts."""

from __future__ import annotations

import functools
import itertools
import random
import zlib
from collections.abc import Sequence

CONSONANTS = "bdfghklmnprstvz"
VOWELS = "aeiou"
CODAS = ("", "", "", "n", "r", "s", "l")
WORDS = (
    "red", "green", "white", "light", "water", "cube", "board", "box", "cell", "code", "column", "cycle", "edges",
    "element", "front", "function", "game", "graph", "grid", "group", "hidden", "input", "letter", "logic", "map",
    "matrix", "object", "palindrome", "path", "pattern", "prime", "puzzle", "row", "rule", "sign", "symbol", "target",
    "tool", "topology", "vertical", "word", "zero", "binary", "decimal", "keys",
)  # fmt: skip
"""What plain names are made of: each is one token of the presets' tokenizer."""
LABELS = (
    "angle", "answers", "arithmetic", "array", "ascending", "backward", "becomes", "bottom", "calculations", "case",
    "cells", "certain", "character", "clockwise", "color", "combined", "comma", "common", "conclusion", "constraints",
    "contain", "convert", "coordinates", "corresponding", "count", "current", "degrees", "determine", "different",
    "digits", "directly", "division", "elements", "empty", "equal", "equation", "every", "exact", "examples",
    "exponents", "expression", "false", "fill", "final", "follow", "format", "found", "four", "fraction", "generated",
    "goal", "greater", "guess", "guidelines", "higher", "impossible", "include", "indefinite", "initial",
    "instruction", "integers", "integral", "iterations", "larger", "last", "least", "left", "letters", "like",
    "lists", "lower", "maps", "marked", "match", "mathematical", "maximum", "meet", "minimum", "moves", "multiple",
    "must", "need", "neighborhood", "newlines", "next", "notation", "numbers", "objects", "occurrence", "operations",
    "order", "output", "perform", "possible", "probability", "problem", "process", "punctuation", "quotes", "range",
    "reach", "reasoning", "remove", "repeated", "replace", "reply", "represent", "result", "right", "rows", "rules",
    "sentence", "sequence", "several", "shortest", "significant", "single", "smaller", "solution", "space",
    "specified", "squares", "step", "stop", "string", "substring", "symbols", "task", "text", "three", "through",
    "time", "true", "turn", "types", "unique", "units", "valid", "wrapping",
)  # fmt: skip
"""What plain ids are made of, each one token, and none of them in a plain text: numbers that are nearly equal look alike
to a small model, which then copies the wrong one."""
HELD_OUT = 5
"""One name of so many is kept for tests."""
TRIES = 1_000


class Names:
    """Draws names of one split, each of them once.

    Args:
        rng: draws.
        split: "train", or any other, all of which draw from the names that are held out.
        plain: two words each, few tokens for a small model; other names are two or three syllables.

    >>> names = Names(random.Random(0), "train", plain=True)
    >>> name = names.draw()
    >>> len(name.split()), names.like(name).split()[0] == name.split()[0]
    (2, True)
    """

    def __init__(self, rng: random.Random, split: str, plain: bool = False) -> None:
        self._rng, self._trained, self._plain = rng, split == "train", plain
        self._taken: set[str] = set()

    def draw(self) -> str:
        """A name that has not been drawn before. Raises ValueError where all are taken."""
        for _ in WORDS:  # some beginnings may have no name left
            name = self._new(self._rng.choice(WORDS)) if self._plain else self._new("", self._rng.randint(2, 3))
            if name:
                return name
        left = [name for name in map(" ".join, itertools.product(WORDS, WORDS)) if self._plain and self._is_free(name)]
        if not left:
            raise ValueError("so many names can't be made: ask for fewer mails or pages")
        name = self._rng.choice(left)
        self._taken.add(name)
        return name

    def like(self, name: str) -> str:
        """A name that begins as another does, and ends in another way; any name where none is left."""
        return self._new(name.split()[0] if self._plain else name[:2]) or self.draw()

    def _new(self, beginning: str, syllables: int = 1) -> str:
        """A name of that beginning; "" where none is found."""
        for _ in range(TRIES):
            if self._plain:
                name = f"{beginning} {self._rng.choice(WORDS)}"
            else:
                name = beginning + "".join(self._syllable() for _ in range(syllables)) + self._rng.choice(CODAS)
                name = name.capitalize()
            if self._is_free(name):
                self._taken.add(name)
                return name
        return ""

    def _is_free(self, name: str) -> bool:
        return name not in self._taken and is_trained(name) == self._trained

    def _syllable(self) -> str:
        return self._rng.choice(CONSONANTS) + self._rng.choice(VOWELS)


def is_trained(name: str) -> bool:
    """Whether a name is one of those that training may show."""
    return zlib.crc32(name.lower().encode()) % HELD_OUT != 0


@functools.cache
def plain_ids(number: int) -> Sequence[str]:
    """Words to call so many things by, and more: with a number behind them where there are not enough.

    >>> plain_ids(60)[:2], plain_ids(400)[:2]
    (('angle', 'answers'), ('angle00', 'angle01'))
    """
    if number <= len(LABELS):
        return LABELS
    return tuple(f"{label}{n:02}" for label in LABELS for n in range(100))

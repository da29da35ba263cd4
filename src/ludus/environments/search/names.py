"""Names made of parts: disjoint between training and testing, though made of the same parts."""

from __future__ import annotations

import itertools
import random
import zlib

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
        if not self._plain:
            return self._new("", self._rng.randint(2, 3))
        try:
            return self._new(self._rng.choice(WORDS))
        except ValueError:  # all that begin so are taken
            left = [name for name in map(" ".join, itertools.product(WORDS, WORDS)) if self._is_free(name)]
            if not left:
                raise
            name = self._rng.choice(left)
            self._taken.add(name)
            return name

    def like(self, name: str) -> str:
        """A name that begins as another does, and ends in another way; any name where none is left."""
        try:
            return self._new(name.split()[0] if self._plain else name[:2])
        except ValueError:
            return self.draw()

    def _new(self, beginning: str, syllables: int = 1) -> str:
        for _ in range(TRIES):
            if self._plain:
                name = f"{beginning} {self._rng.choice(WORDS)}"
            else:
                name = beginning + "".join(self._syllable() for _ in range(syllables)) + self._rng.choice(CODAS)
                name = name.capitalize()
            if self._is_free(name):
                self._taken.add(name)
                return name
        raise ValueError("so many names can't be made: ask for fewer mails or pages")

    def _is_free(self, name: str) -> bool:
        return name not in self._taken and is_trained(name) == self._trained

    def _syllable(self) -> str:
        return self._rng.choice(CONSONANTS) + self._rng.choice(VOWELS)


def is_trained(name: str) -> bool:
    """Whether a name is one of those that training may show."""
    return zlib.crc32(name.lower().encode()) % HELD_OUT != 0

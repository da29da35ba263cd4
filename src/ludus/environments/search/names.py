"""Names made of syllables: pronounceable, and disjoint between training and testing, though made of the same parts."""

from __future__ import annotations

import random
import zlib

CONSONANTS = "bdfghklmnprstvz"
VOWELS = "aeiou"
CODAS = ("", "", "", "n", "r", "s", "l")
FEW = 10
"""Consonants of plain names."""
HELD_OUT = 5
"""One name of so many is kept for tests."""
TRIES = 10_000


class Names:
    """Draws names of one split, each of them once.

    Args:
        rng: draws.
        split: "train", or any other, all of which draw from the names that are held out.
        plain: two syllables of a consonant and a vowel each, in lower case: few tokens for a model that spells them.

    >>> names = Names(random.Random(0), "train", plain=True)
    >>> name = names.draw()
    >>> len(name), names.like(name)[:2] == name[:2]
    (4, True)
    """

    def __init__(self, rng: random.Random, split: str, plain: bool = False) -> None:
        self._rng, self._trained, self._plain = rng, split == "train", plain
        self._taken: set[str] = set()

    def draw(self) -> str:
        """A name that has not been drawn before. Raises ValueError where all are taken."""
        return self._new("", 2 if self._plain else self._rng.randint(2, 3))

    def like(self, name: str) -> str:
        """A name that begins as another does, and ends in another way; any name where none is left."""
        try:
            return self._new(name[:2], 1)
        except ValueError:
            return self.draw()

    def _new(self, beginning: str, syllables: int) -> str:
        for _ in range(TRIES):
            name = beginning + "".join(self._syllable() for _ in range(syllables))
            if not self._plain:
                name = (name + self._rng.choice(CODAS)).capitalize()
            if name not in self._taken and is_trained(name) == self._trained:
                self._taken.add(name)
                return name
        raise ValueError("so many names can't be made: ask for fewer mails or pages")

    def _syllable(self) -> str:
        consonants = CONSONANTS[:FEW] if self._plain else CONSONANTS
        return self._rng.choice(consonants) + self._rng.choice(VOWELS)


def is_trained(name: str) -> bool:
    """Whether a name is one of those that training may show."""
    return zlib.crc32(name.lower().encode()) % HELD_OUT != 0

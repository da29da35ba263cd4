"""Near duplicates: the Jaccard similarity of texts as sets of five words in a row, found with MinHash and banding.

Candidates come from the bands (Broder 1997; Leskovec, Rajaraman and Ullman, chapter 3), and what counts is their exact
similarity: a text is never dropped for one that is not similar. With 32 bands of 4 rows, a pair of similarity 0.5 or
more is found with a probability of 87 % or more, and one of 0.7 with 99.98 %. Texts below five words are compared whole.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

WORDS = 5
BANDS, ROWS = 32, 4
PRIME = (1 << 31) - 1
WORD = re.compile(r"\w+")


class Similar:
    """Texts seen so far; says how similar a new one is to the nearest of them."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._a = rng.integers(1, PRIME, size=(BANDS * ROWS, 1), dtype=np.int64)
        self._b = rng.integers(0, PRIME, size=(BANDS * ROWS, 1), dtype=np.int64)
        self._sets: list[frozenset[int]] = []
        self._buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)

    def nearest(self, text: str) -> float:
        """The largest similarity, 0 to 1, to a text that was added.

        >>> seen = Similar()
        >>> seen.add("one two three four five six")
        >>> seen.nearest("One, two, three, four, five, six!"), seen.nearest("something else altogether, which is new")
        (1.0, 0.0)
        """
        own = shingles(text)
        near = {place for key in self._keys(own) for place in self._buckets.get(key, ())}
        return max((len(own & self._sets[place]) / len(own | self._sets[place]) for place in near), default=0.0)

    def add(self, text: str) -> None:
        """Keep a text."""
        own = shingles(text)
        for key in self._keys(own):
            self._buckets[key].append(len(self._sets))
        self._sets.append(own)

    def _keys(self, own: frozenset[int]) -> list[tuple[int, bytes]]:
        values: NDArray[np.int64] = np.fromiter(own, dtype=np.int64, count=len(own))
        least = ((self._a * values + self._b) % PRIME).min(axis=1).reshape(BANDS, ROWS)
        return [(band, row.tobytes()) for band, row in enumerate(least)]


def shingles(text: str) -> frozenset[int]:
    """Hashes, below 2**31, of every five words in a row, up to case and punctuation; of a shorter text, of all of it."""
    words = WORD.findall(text.casefold())
    runs = [" ".join(words[i : i + WORDS]) for i in range(max(1, len(words) - WORDS + 1))]
    return frozenset(
        int.from_bytes(hashlib.blake2b(run.encode(errors="replace"), digest_size=4).digest(), "big") % PRIME
        for run in runs
    )

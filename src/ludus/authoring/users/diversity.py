"""How much users differ from each other: numbers for what simulated users are known to lack.

distinct-n after Li et al. 2016 (https://arxiv.org/abs/1510.03055), on as many words for any number of users, because the
share falls with the length of a text.
"""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Sequence

import msgspec

from ludus.authoring.users.scripted import WORD

MOST_WORDS = 2000
"""Words that distinct-n looks at."""
PAIRS = 500
"""Pairs of users, at most, whose words are compared."""


class Diversity(msgspec.Struct, frozen=True):
    """Of what several users said. None where there is too little to say."""

    num_users: int
    words_per_utterance: float | None
    distinct_1: float | None
    """Different words as a share of the first `MOST_WORDS`, one utterance of each user in turn."""
    distinct_2: float | None
    """Different pairs of words as a share of these."""
    distinct_openings: float | None
    """Different first utterances as a share of the users."""
    similarity: float | None
    """Mean share of words that two users have in common (Jaccard): 1 is the same words."""


def diversity(users: Sequence[Sequence[str]], seed: int = 0) -> Diversity:
    """Measure it.

    Args:
        users: of each user, what they said.
        seed: draws the pairs that are compared.
    """
    spoken = [[text for text in texts if text.strip()] for texts in users]
    spoken = [texts for texts in spoken if texts]
    lengths = [len(_words(text)) for texts in spoken for text in texts]
    in_turn = [text for layer in itertools.zip_longest(*spoken) for text in layer if text]
    words = [word for text in in_turn for word in _words(text)][:MOST_WORDS]
    openings = {" ".join(_words(texts[0])) for texts in spoken}
    return Diversity(
        num_users=len(spoken),
        words_per_utterance=statistics.fmean(lengths) if lengths else None,
        distinct_1=_distinct(words, 1),
        distinct_2=_distinct(words, 2),
        distinct_openings=len(openings) / len(spoken) if spoken else None,
        similarity=_similarity([set(_words(" ".join(texts))) for texts in spoken], seed),
    )


def _words(text: str) -> list[str]:
    return WORD.findall(text.casefold())


def _distinct(words: Sequence[str], n: int) -> float | None:
    grams = list(zip(*(words[start:] for start in range(n)), strict=False))
    return len(set(grams)) / len(grams) if grams else None


def _similarity(vocabularies: Sequence[set[str]], seed: int) -> float | None:
    count = len(vocabularies)
    if count < 2:
        return None
    if count * (count - 1) // 2 <= PAIRS:
        pairs = list(itertools.combinations(vocabularies, 2))
    else:
        rng = random.Random(seed)
        pairs = [tuple(rng.sample(vocabularies, 2)) for _ in range(PAIRS)]  # type: ignore[misc] # two are sampled
    return statistics.fmean(len(a & b) / len(a | b) if a | b else 1.0 for a, b in pairs)

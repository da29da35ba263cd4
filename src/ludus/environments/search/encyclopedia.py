"""A made-up encyclopedia: persons, towns, companies and regions, what connects them, and questions along the way.

Each page states the relations of one thing, among sentences that only name others. In the way: names that are almost
alike, persons of the same first or last name, and pages that mention a thing without being about it.
"""

from __future__ import annotations

import functools
import random
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from ludus.environments.search.names import Names, plain_ids
from ludus.environments.search.pages import Page
from ludus.seeds import derive

SHARES = {"person": 0.4, "town": 0.3, "company": 0.2, "region": 0.1}
TWINS = 0.3
"""Share of names that are almost those of another thing."""
QUESTIONS_PER_PAGE = 2

Wording = Mapping[str, Any]
"""What the file of sentences holds."""


@dataclass(frozen=True)
class Thing:
    """What a page is about."""

    page_id: str
    kind: str
    name: str


@dataclass(frozen=True)
class Question:
    """What is asked, and the things that one comes by on the way."""

    text: str
    path: tuple[Thing, ...]
    answer: str
    is_number: bool


@functools.cache
def read_wording(terse: bool) -> Wording:
    """The wording that comes with the package."""
    name = "wiki_terse.toml" if terse else "wiki.toml"
    return tomllib.loads(files(__package__).joinpath(name).read_text(encoding="utf-8"))


class Encyclopedia:
    """The things of one encyclopedia and questions about them; `pages` writes it.

    Args:
        split: "train", or any other; their names and sentences are disjoint.
        number: which encyclopedia of the split.
        num_pages: how many it has.
        hops: relations that a question follows at most.
        terse: few words.
    """

    def __init__(self, split: str, number: int, num_pages: int, hops: int, terse: bool) -> None:
        self._rng = rng = random.Random(derive("encyclopedia", split, number, num_pages))
        self._seed = derive("pages", split, number, num_pages)
        self._terse, self._wording = terse, read_wording(terse)
        self._words = self._wording["train" if split == "train" else "test"]
        self._names = Names(rng, split, terse)
        self.things = self._make_things(num_pages)
        self._by_kind = {kind: [thing for thing in self.things if thing.kind == kind] for kind in SHARES}
        self.relations = {thing: self._relate(thing) for thing in self.things}
        self.questions = [self._ask(hops) for _ in range(QUESTIONS_PER_PAGE * num_pages)]

    def pages(self) -> list[Page]:
        """Every page, its sentences in any order."""
        rng = random.Random(self._seed)
        return [Page(thing.page_id, thing.name, self._text(rng, thing)) for thing in self.things]

    def _make_things(self, number: int) -> list[Thing]:
        kinds = [kind for kind, share in SHARES.items() for _ in range(max(1, round(share * number)))]
        ids = self._rng.sample(plain_ids(len(kinds)) if self._terse else [f"{n:04}" for n in range(10_000)], len(kinds))
        firsts = [self._names.draw() for _ in range(number // 8 + 2)] if not self._terse else []
        names: list[str] = []
        for kind in kinds:
            twin = names and self._rng.random() < TWINS
            name = self._names.like(self._rng.choice(names).split()[-1]) if twin else self._names.draw()
            names.append(f"{self._rng.choice(firsts)} {name}" if firsts and kind == "person" else name)
        return [Thing(i, kind, name) for i, kind, name in zip(ids, kinds, names, strict=True)]

    def _relate(self, thing: Thing) -> dict[str, Thing | str]:
        """What is true of a thing."""
        rng = self._rng
        relations: dict[str, Thing | str] = {}
        for name, to in self._wording["relations"][thing.kind].items():
            others = self._by_kind.get(to)
            year, number = str(rng.randint(1400, 1999)), rng.randint(1000, 9999)
            written = f"{number % 100:02}" if self._terse else f"{number:,}"
            relations[name] = rng.choice(others) if others else year if to == "year" else written
        return relations

    def _ask(self, hops: int) -> Question:
        """A question that follows up to so many relations from a thing, drawn at random."""
        rng = self._rng
        path, phrase = [rng.choice(self.things)], ""
        for left in reversed(range(rng.randint(1, hops))):
            relations = self.relations[path[-1]]
            onward = [name for name, to in relations.items() if isinstance(to, Thing) and to not in path]
            name = rng.choice(onward if left and onward else list(relations))
            template = rng.choice(self._sentences("phrases", path[-1].kind, name))
            phrase, to = template.format(x=phrase or path[-1].name, relation=name), relations[name]
            if not left or not isinstance(to, Thing) or to in path:
                break
            path.append(to)
        text = rng.choice(self._words["questions"]).format(phrase=phrase)
        answer = to.name if isinstance(to, Thing) else to
        return Question(text, tuple(path), answer, is_number=not isinstance(to, Thing))

    def _sentences(self, what: str, kind: str, relation: str) -> list[str]:
        table = self._words[what]
        found: list[str] = table["any"] if "any" in table else table[kind][relation]
        return found

    def _text(self, rng: random.Random, thing: Thing) -> str:
        sentences = []
        for name, to in self.relations[thing].items():
            value = to.name if isinstance(to, Thing) else to
            sentence = rng.choice(self._sentences("sentences", thing.kind, name))
            sentences.append(sentence.format(x=thing.name, value=value, relation=name))
        for _ in range(0 if self._terse else rng.randint(2, 6)):
            other = rng.choice(self.things).name
            sentences.append(rng.choice(self._words["fillers"]).format(x=thing.name, other=other))
        return ("\n" if self._terse else " ").join(rng.sample(sentences, len(sentences)))


def every_question(books: list[Encyclopedia]) -> Iterator[tuple[int, int, Question]]:
    """Number of the encyclopedia, of the question in it, and the question: one of each in turn, no question twice."""
    seen: set[tuple[int, str]] = set()
    for place in range(max(len(book.questions) for book in books)):
        for number, book in enumerate(books):
            question = book.questions[place]
            if (number, question.text) not in seen:
                seen.add((number, question.text))
                yield number, place, question

"""The sentences of generated mails, from a file: one set to train on, one to test on."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from ludus.environments.search.grading import Kind

ByKind = Mapping[Kind, tuple[str, ...]]
KINDS: tuple[Kind, ...] = ("date", "amount", "person", "place")


@dataclass(frozen=True)
class Words:
    """The sentences of one split, with {fields} to fill in."""

    subjects: tuple[str, ...]
    statements: ByKind
    updates: ByKind
    echoes: tuple[str, ...]
    """Talk about a fact that doesn't say its value."""
    questions: ByKind
    hop: tuple[str, ...]
    """An entity by who leads it."""
    chat_subjects: tuple[str, ...]
    chat: tuple[str, ...]
    topics: tuple[str, ...]
    greetings: tuple[str, ...] = ()
    closings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wording:
    """All sentences, and what facts there are."""

    plain: bool
    """As few words as there may be, and names that are short to spell."""
    lead: str
    """The attribute that says who leads a project."""
    attributes: Mapping[str, Mapping[Kind, tuple[str, ...]]]
    """Of projects and of persons."""
    train: Words
    test: Words

    def of(self, split: str) -> Words:
        """The sentences of a split."""
        return self.train if split == "train" else self.test


@functools.cache
def read_wording(terse: bool) -> Wording:
    """The wording that comes with the package."""
    name = "mail_terse.toml" if terse else "mail.toml"
    values = tomllib.loads(files(__package__).joinpath(name).read_text(encoding="utf-8"))
    attributes = {group: _by_kind(kinds) for group, kinds in values["attributes"].items()}
    return Wording(terse, values["lead"], attributes, _words(values["train"]), _words(values["test"]))


def _words(values: Mapping[str, Any]) -> Words:
    chat = values["chat"]
    return Words(
        subjects=tuple(values["subjects"]),
        statements=_by_kind(values["statements"]),
        updates=_by_kind(values["updates"]),
        echoes=tuple(values["echoes"]),
        questions=_by_kind(values["questions"]),
        hop=tuple(values["hop"]),
        chat_subjects=tuple(chat["subjects"]),
        chat=tuple(chat["sentences"]),
        topics=tuple(chat["topics"]),
        greetings=tuple(values.get("greetings", ())),
        closings=tuple(values.get("closings", ())),
    )


def _by_kind(values: Mapping[str, list[str]]) -> dict[Kind, tuple[str, ...]]:
    """Sentences by kind of fact; those for "any" are for every kind that has none of its own."""
    return {kind: tuple(values.get(kind) or values["any"]) for kind in KINDS}

"""Mistakes of simulated users, found by rules: an agent can't be blamed for what its user got wrong.

Left out: what only a reader can tell, such as a user who is content too soon; `fault_of` asks a judge for that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from ludus.authoring.tools import UNREADABLE
from ludus.authoring.users.persona import Persona
from ludus.authoring.users.scripted import asks_for
from ludus.types import Message

Kind = Literal["invented", "withheld", "out_of_character", "repeated", "silent"]
DECISIVE: frozenset[Kind] = frozenset({"invented", "out_of_character"})
"""What sends an agent the wrong way; the others cost it turns."""
SHORTEST = 3
"""Characters of a number or name with digits that nobody could have known: shorter ones count things."""
TOO_OFTEN = 3

_EXACT = re.compile(r"[\w$€£#][\w.,:/@#-]*\d[\w.:/@#-]*|\d[\w.,:/@#-]*")
_END_OF_SENTENCE = re.compile(r"(?<=[.!?\n])")
_ORDINAL = re.compile(r"\d+(?:st|nd|rd|th)", re.IGNORECASE)
_NOT_A_PERSON = re.compile(
    r"\bas an ai\b|\blanguage model\b|\bhow (?:can|may) i (?:help|assist) you\b|\bmy (?:instructions|persona)\b"
    r"|\bsystem prompt\b|<tool_call>",
    re.IGNORECASE,
)


class UserError(msgspec.Struct, frozen=True):
    """One mistake of a user's."""

    turn: int
    """Which of the user's utterances, from 0."""
    kind: Kind
    text: str
    """What is wrong, in a few words."""

    @property
    def decisive(self) -> bool:
        return self.kind in DECISIVE

    def __str__(self) -> str:
        return f"{self.kind.replace('_', ' ')} at turn {self.turn + 1}: {self.text}"


def find_errors(persona: Persona, messages: Sequence[Message]) -> list[UserError]:
    """The user's mistakes in a conversation.

    - invented: a number, or a name with digits, that neither the persona has nor anybody has said before.
    - withheld: not telling what they know when the agent, who has not said it either, asks for it by its name.
    - out_of_character: talking as an assistant, or of their instructions.
    - repeated: the same words for the third time. silent: no words.

    Args:
        persona: who the user is.
        messages: the agent's conversation; the user's are those of the role "user", see `is_users`.
    """
    errors: list[UserError] = []
    said: list[str] = []
    known, asked = plain(" ".join(_facts(persona))), ""
    for message in messages:
        text = str(message.get("content") or "")
        if is_users(message):
            errors += _mistakes(persona, text, len(said), known, asked, said)
            said.append(text)
        elif message["role"] == "assistant":
            asked = text
        known += plain(text)
    return errors


def is_users(message: Message) -> bool:
    """Whether the user has said it: what an agent is told of its malformed calls only looks so."""
    return message["role"] == "user" and not str(message.get("content") or "").startswith(UNREADABLE)


def _mistakes(persona: Persona, text: str, turn: int, known: str, asked: str, said: list[str]) -> list[UserError]:
    found: list[tuple[Kind, str]] = []
    if not text.strip():
        return [UserError(turn, "silent", "no words")]
    found += [("invented", value) for value in exact_values(text) if plain(value) not in known]
    if match := _NOT_A_PERSON.search(text):
        found.append(("out_of_character", match[0]))
    if [plain(before) for before in said].count(plain(text)) == TOO_OFTEN - 1:
        found.append(("repeated", text[:60]))
    told = plain(" ".join([*said, text, asked]))
    questions = " ".join(sentence for sentence in _END_OF_SENTENCE.split(asked) if sentence.endswith("?"))
    found += [
        ("withheld", name)
        for name, value in persona.knows.items()
        if asks_for(questions, name) and plain(value) not in told
    ]
    return [UserError(turn, kind, what) for kind, what in found]


def exact_values(text: str) -> list[str]:
    """Numbers, and names with digits, that are no mere counts.

    >>> exact_values("Order K-17/b for 2 people on the 5th, $1,250.")
    ['K-17/b', '$1,250']
    """
    values = [match[0].rstrip(".,:;/-") for match in _EXACT.finditer(text)]
    return [value for value in values if len(plain(value)) >= SHORTEST and not _ORDINAL.fullmatch(value)]


def plain(text: str) -> str:
    """Letters and digits alone, in lower case: however a number is written, it is the same."""
    return "".join(character for character in text.casefold() if character.isalnum())


def _facts(persona: Persona) -> Iterable[str]:
    changes = (change.say for change in persona.changes)
    return (persona.goal, persona.about, persona.opening, *persona.knows, *persona.knows.values(), *changes)

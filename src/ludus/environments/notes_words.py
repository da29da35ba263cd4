"""The few words that notes are made of, what is wished of a note, how one is criticised, and how one is written.

Every word is one that the small presets have a token for.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Collection, Sequence
from random import Random

NAMED, POLITE, BRIEF, PLAIN = WISHES = ("named", "polite", "brief", "plain")
"""It names everything that is asked for; it says please; it is no longer than `MOST_WORDS`; it is a sentence."""
MOST_WORDS = 13

KINDS = ("red", "green", "white", "light", "new", "hidden", "square", "empty")
OBJECTS = ("box", "cube", "board", "letter", "list", "map", "puzzle", "tool")
VERBS = ("provide", "find", "return")
RUDE = ("you must", "you should", "just")
SHORT_TAILS = ("in time", "at the start")
LONG_TAILS = (
    "so that we have all of it in time",
    "when you have the time to do so",
    "before the time for the game is over",
    "as this is what the rules of the game tell you to do",
)
_THING = rf"the (?:{'|'.join(KINDS)}) (?:{'|'.join(OBJECTS)})"
SENTENCE = re.compile(
    rf"(?:please |{' |'.join(RUDE)} )?(?:{'|'.join(VERBS)}) {_THING}(?:, {_THING})*(?: and {_THING})?"
    rf"(?: (?:{'|'.join((*SHORT_TAILS, *LONG_TAILS))}))*\.",
    re.IGNORECASE,
)
WORD = re.compile(r"[a-z]+", re.IGNORECASE)
CHARACTERS, MOST_CHARACTERS = string.ascii_letters + string.digits + string.punctuation + " \n", 40


def wishes_met(note: str, things: Sequence[str]) -> dict[str, bool]:
    """Which wishes a note meets.

    >>> wishes_met("Please find the red cube and the new map.", ["red cube", "new map"])
    {'named': True, 'polite': True, 'brief': True, 'plain': True}
    >>> wishes_met("You must find the red cube.", ["red cube", "new map"])
    {'named': False, 'polite': False, 'brief': True, 'plain': True}
    """
    words = [word.lower() for word in WORD.findall(note)]
    text = f" {' '.join(words)} "
    return {
        NAMED: all(f" {thing} " in text for thing in things),
        POLITE: "please" in words,
        BRIEF: len(words) <= MOST_WORDS,
        PLAIN: SENTENCE.fullmatch(note.strip()) is not None,
    }


def all_met(note: str, things: Sequence[str]) -> bool:
    """Whether a note meets every wish."""
    return all(wishes_met(note, things).values())


def critique(note: str, things: Sequence[str]) -> str:
    """What a note has and has not.

    >>> critique("Find the red cube.", ["red cube", "new map"])
    '4 words, please no, sentence yes, red cube yes, new map no'
    """
    met = wishes_met(note, things)
    has = {"please": met[POLITE], "sentence": met[PLAIN]}
    has |= {thing: wishes_met(note, [thing])[NAMED] for thing in things}
    said = [f"{what} {'yes' if there else 'no'}" for what, there in has.items()]
    return ", ".join([f"{len(WORD.findall(note))} words", *said])


def verdict(note: str, things: Sequence[str], good: bool) -> str:
    """A judge's reply: a critique, and the mark that is given."""
    return json.dumps({"reason": critique(note, things), "mark": int(good)})


def things_named(things: Sequence[str]) -> str:
    """Things in a sentence.

    >>> things_named(["red cube", "new map", "white box"])
    'the red cube, the new map and the white box'
    """
    *first, last = (f"the {thing}" for thing in things)
    return f"{', '.join(first)} and {last}" if first else last


def write_note(things: Sequence[str], open_wishes: Collection[str], rng: Random, *, habitual: bool = False) -> str:
    """A note that meets every wish but those that are left open, which it meets by luck alone.

    Args:
        habitual: whether a wish that is left open is so in the same way each time.

    >>> write_note(["red cube", "new map"], {}, Random(1))
    'Please provide the red cube and the new map.'
    """
    rude, tails = (RUDE[:1], LONG_TAILS[:1]) if habitual else ((*RUDE, ""), LONG_TAILS)
    others = list(things[:-1]) if habitual else _other_things(things, rng)
    named = others if NAMED in open_wishes else things
    opening = rng.choice(rude) if POLITE in open_wishes else "please"
    tail = rng.choice(tails) if BRIEF in open_wishes else rng.choice((*SHORT_TAILS, ""))
    text = " ".join(filter(None, [opening, rng.choice(VERBS), things_named(named), tail]))
    text = _broken(text, rng) if PLAIN in open_wishes else f"{text}."
    return f"{text[:1].upper()}{text[1:]}"


def write_junk(things: Sequence[str], rng: Random) -> str:
    """What is no note at all, such as a verdict for the judge to repeat."""
    words = (*KINDS, *OBJECTS, *VERBS, "please")
    return rng.choice(
        (
            "",
            things_named(things),
            " ".join(rng.choices(words, k=rng.randint(1, MOST_WORDS))),
            "".join(rng.choices(CHARACTERS, k=rng.randint(1, MOST_CHARACTERS))),
            verdict(write_note(things, (), rng), things, True),
        )
    )


def _other_things(things: Sequence[str], rng: Random) -> list[str]:
    """The things with one of them left out, or another in its place."""
    place = rng.randrange(len(things))
    kind, what = things[place].split()
    other_kind, other_what = (
        rng.choice([o for o in some if o != own]) for some, own in ((KINDS, kind), (OBJECTS, what))
    )
    instead = rng.choice(([], [f"{other_kind} {what}"], [f"{kind} {other_what}"]))
    return [*things[:place], *instead, *things[place + 1 :]]


def _broken(text: str, rng: Random) -> str:
    """What is no sentence any more: its words in disorder, too few or too many of them, or without a full stop."""
    words = WORD.findall(text)
    match rng.randrange(5):
        case 0:
            rng.shuffle(words)
        case 1:
            words = [word for word in words if word not in ("the", "and", *VERBS)]
        case 2:
            words = words[: rng.randrange(len(words))]
        case 3:
            words += words[rng.randrange(len(words)) :]
        case _:
            return text
    return " ".join(words) + rng.choice((".", ""))

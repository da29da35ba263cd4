"""Asking a model that stands in for somebody else, a judge, a user or an API, until its reply can be read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec

from ludus.errors import ModelCallFailed, RolloutError
from ludus.protocols import Model
from ludus.types import Message, Reply, user

ReadT = TypeVar("ReadT")
KindT = TypeVar("KindT")
Fails = Callable[[str], RolloutError]
"""Makes the error by which a rollout fails of its text: where, and through whose fault."""

THOUGHT = "</think>"
"""Ends what some models write before they answer, where their server does not take it out."""
MOST_OBJECTS = 100
"""Objects in a reply that are looked at."""
MOST_CHARACTERS = 1_000_000
"""Of a reply that is read at all: no model that is asked for an object says as much."""
QUOTED = 200
"""Characters of a reply that an error shows."""


class Unusable(ValueError):
    """A reply that can't be used; the text says why, for the model."""


async def reply_of(model: Model, talk: Sequence[Message], who: str, fails: Fails, **sampling: Any) -> Reply:
    """What a model that stands in for somebody says.

    Args:
        model: the role's.
        talk: its conversation.
        who: whom it stands in for, for the error.
        fails: makes the error of a model that does not answer. That is never the policy's fault, not even where a
            context is full.
        **sampling: fields of `Sampling`.

    Raises:
        RolloutError: no answer, as `fails` says.
    """
    try:
        return await model.chat(talk, **sampling)
    except ModelCallFailed as error:
        raise fails(f"{who} did not answer: {error}") from error


async def until_read(
    model: Model,
    talk: list[Message],
    read: Callable[[str], ReadT],
    who: str,
    fails: Fails,
    *,
    what: str,
    again: str,
    tries: int,
    **sampling: Any,
) -> ReadT:
    """Ask until a reply can be read; replies, and what was wrong with them, go on the conversation.

    Args:
        model, who, fails, sampling: as in `reply_of`.
        talk: the conversation.
        read: makes what is wanted of a reply's text. Raises Unusable.
        what: that, in a word, for the error.
        again: what the model is told of a reply that can't be used; {why} in it stands for the reason.
        tries: replies after which it has failed.

    Raises:
        RolloutError: no answer, or none that can be read, as `fails` says.
    """
    for _ in range(tries):
        reply = await reply_of(model, talk, who, fails, **sampling)
        talk.append(reply.message)
        try:
            return read(reply.text)
        except Unusable as error:
            why = f"{error} (it was cut off)" if reply.truncated else str(error)
        talk.append(user(again.format(why=why)))
    heard = " ".join(reply.text[:QUOTED].split())
    times = "" if tries == 1 else f" {tries} times"
    raise fails(f"{who} gave no {what}{times}: {why}; it said {heard!r}")


def said(text: str) -> str:
    """A reply without the thoughts before it, where its server has not taken them out.

    >>> said("<think>They want tea.</think> Tea, please.")
    ' Tea, please.'
    """
    return text.rpartition(THOUGHT)[2]


def read_object(text: str, kind: type[KindT]) -> KindT:
    """The one JSON object of a kind in a reply, whatever stands around it.

    Raises:
        Unusable: there is none, or several that differ, or one that says two things under one name.

    >>> read_object('<think>{"a": 1}?</think> Here it is: {"a": 2}', dict[str, int])
    {'a': 2}
    """
    if len(text) > MOST_CHARACTERS:
        raise Unusable(f"it has {len(text):,} characters, of which at most {MOST_CHARACTERS:,} are read")
    problem, found = "there is no JSON object in it", list[KindT]()
    for value in _objects(said(text)):
        try:
            one = msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            problem = str(error)
        else:
            found += [] if one in found else [one]
    if not found:
        raise Unusable(problem)
    if len(found) > 1:
        raise Unusable("it holds several objects that contradict each other")
    return found[0]


def _objects(text: str) -> Iterator[Any]:
    """JSON objects in a text, outermost ones only."""
    decoder, start = json.JSONDecoder(object_pairs_hook=_once), text.find("{")
    for _ in range(MOST_OBJECTS):
        if start < 0:
            return
        try:
            value, end = decoder.raw_decode(text, start)
            msgspec.json.encode(value)  # half of a surrogate pair is no text
        except Unusable:
            raise
        except (ValueError, RecursionError):
            end = start + 1
        else:
            yield value
        start = text.find("{", end)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names stand once each, or for the same. Raises Unusable."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found and found[name] != value:
            raise Unusable(f"it says two different things of {name[:QUOTED]!r}")
        found[name] = value
    return found

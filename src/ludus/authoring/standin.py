"""Models that stand in for a user, an API or a judge in a rollout: asking them, and reading what they answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import msgspec

from ludus.errors import Boundary, ModelCallFailed, RolloutError
from ludus.protocols import Model
from ludus.types import Message, Reply

KindT = TypeVar("KindT")
THOUGHT = "</think>"
"""Ends what some models write before they answer, where their server does not take it out."""
MOST_OBJECTS = 100
"""Objects in a reply that are looked at."""


class Unreadable(ValueError):
    """A reply that is not what was asked for; the text says why, for the model that gave it."""


async def reply_of(model: Model, talk: Sequence[Message], who: str, boundary: Boundary, **sampling: Any) -> Reply:
    """What a model that stands in for somebody says.

    Args:
        model: the role's.
        talk: its conversation.
        who: whom it stands in for, for the error.
        boundary: where the rollout fails if it does not answer.
        **sampling: fields of `Sampling`.

    Raises:
        RolloutError: no answer. That is never the policy's fault, not even where a context is full.
    """
    try:
        return await model.chat(talk, **sampling)
    except ModelCallFailed as error:
        raise RolloutError(f"{who} did not answer: {error}", boundary, "infrastructure") from error


def said(text: str) -> str:
    """A reply without the thoughts before it, where its server has not taken them out.

    >>> said("<think>They want tea.</think> Tea, please.")
    ' Tea, please.'
    """
    return text.rpartition(THOUGHT)[2]


def read_object(text: str, kind: type[KindT]) -> KindT:
    """The one JSON object of a kind in a reply, whatever stands around it.

    Raises:
        Unreadable: there is none, or several that differ.

    >>> read_object('<think>{"a": 1}?</think> Here it is: {"a": 2}', dict[str, int])
    {'a': 2}
    """
    problem, found = "there is no JSON object in it", list[KindT]()
    for value in _objects(said(text)):
        try:
            one = msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            problem = str(error)
        else:
            found += [] if one in found else [one]
    if not found:
        raise Unreadable(problem)
    if len(found) > 1:
        raise Unreadable("it holds several objects that contradict each other")
    return found[0]


def _objects(text: str) -> Iterator[Any]:
    """JSON objects in a text, outermost ones only."""
    decoder, start = json.JSONDecoder(), text.find("{")
    for _ in range(MOST_OBJECTS):
        if start < 0:
            return
        try:
            value, end = decoder.raw_decode(text, start)
            msgspec.json.encode(value)  # half of a surrogate pair is no text
        except (ValueError, RecursionError):
            end = start + 1
        else:
            yield value
        start = text.find("{", end)

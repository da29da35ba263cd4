"""Observations to text and text to actions, for the spaces of gymnasium."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

Action = Any
"""An element of an action space."""

KINDS = ("Discrete", "Text", "MultiDiscrete", "MultiBinary", "Box", "Tuple", "Dict")
"""Of spaces that are understood; those that inherit from one are one, and any other of text is a Text."""
MOST_NUMBERS = 256
"""In one observation; more is an image rather than something to read."""
MOST_NAMED = 40
"""Actions that are listed one by one."""
MARKS = {"41": "[]", "43": "[]", "42": "{}", "34": "<>", "35": "()"}
"""What stands around a text that a drawing shows in colour: the backgrounds red, yellow and green, blue and magenta."""
COLOURED = re.compile(r"\x1b\[(?!0?m)([0-9;]+)m([^\x1b]*)\x1b\[0?m")
"""The innermost, where one colour is inside of another."""
ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Unreadable(Exception):
    """A space that text can't stand for."""


class NotAnAction(Exception):
    """A reply that names no action; the text is for the model."""


def check_readable(observations: Any, actions: Any, names: Sequence[str], drawn: bool) -> str:
    """How to act, in one line for the prompt. Raises Unreadable."""
    if not drawn:
        _check_observations(observations)
    return how_to_act(actions, names)


def how_to_act(space: Any, names: Sequence[str] = ()) -> str:
    """What a reply has to be. Raises Unreadable for actions that text can't name."""
    kind = _kind(space)
    if kind == "Discrete":
        if names and len(names) != space.n:
            raise Unreadable(f"there are {space.n} actions, but {len(names)} names for them: {', '.join(names)}")
        numbers = range(int(space.start), int(space.start + space.n))
        if names:
            return "Reply with one of: " + ", ".join(names) + "."
        return f"Reply with a number from {numbers[0]} to {numbers[-1]}."
    if kind == "Text" and not hasattr(space, "max_length"):  # a package's own kind of text
        return "Reply with a text."
    if kind == "Text":
        return f"Reply with a text of {space.min_length} to {space.max_length} characters."
    if kind in ("MultiDiscrete", "MultiBinary", "Box"):
        count = _size(space)
        if count > MOST_NAMED:
            raise Unreadable(f"an action is {count} numbers, more than a reply can name ({MOST_NAMED})")
        what = "numbers" if kind == "Box" else "whole numbers"
        return f"Reply with {count} {what}, such as {_numbers(space)}."
    raise Unreadable(f"actions of the kind {kind} can't be named in a reply")


def as_action(text: str, space: Any, names: Sequence[str] = ()) -> Action:
    """The action that a reply names: by word, by number, or as a list of numbers. Raises NotAnAction."""
    said = text.strip()
    kind = _kind(space)
    action = None
    if kind == "Text":
        action = said
    elif kind == "Discrete":
        action = _discrete(said, space, names)
    else:
        action = _array(said, space)
    if action is None or not space.contains(action):
        shown = said if len(said) <= 80 else said[:77] + "..."
        raise NotAnAction(f"{shown!r} is no action. {how_to_act(space, names)}")
    return action


def written(observation: Any, space: Any) -> str:
    """An observation as text.

    Args:
        observation: an element of the space.
        space: of gymnasium.
    """
    kind = _kind(space)
    if kind == "Tuple":
        return ", ".join(written(part, inner) for part, inner in zip(observation, space.spaces, strict=True))
    if kind == "Dict":
        return "\n".join(f"{key}: {written(observation[key], inner)}" for key, inner in space.spaces.items())
    if kind == "Text":
        return str(observation)
    if hasattr(observation, "tolist"):
        observation = observation.tolist()
    return json.dumps(_rounded(observation), ensure_ascii=False, default=str)


def drawn(text: Any) -> str:
    """A drawing without colours; brackets stand around what was coloured to be seen."""

    def marked(found: re.Match[str]) -> str:
        around = next((MARKS[code] for code in found[1].split(";") if code in MARKS), "")
        return f"{around[:1]}{found[2]}{around[1:]}"

    shown, found = COLOURED.subn(marked, str(text))
    while found:
        shown, found = COLOURED.subn(marked, shown)
    return ESCAPE.sub("", shown).strip("\n")


def _check_observations(space: Any) -> None:
    kind = _kind(space)
    if kind in ("Tuple", "Dict"):
        for inner in space.spaces.values() if kind == "Dict" else space.spaces:
            _check_observations(inner)
    elif kind not in ("Discrete", "Text", "MultiDiscrete", "MultiBinary", "Box"):
        raise Unreadable(f"observations of the kind {kind} can't be written out")
    elif kind != "Text" and _size(space) > MOST_NUMBERS:
        raise Unreadable(f"an observation is {_size(space)} numbers, more than can be read as text ({MOST_NUMBERS})")


def _discrete(said: str, space: Any, names: Sequence[str]) -> Any:
    word = said.casefold().strip(".!'\"[]() ")
    for index, name in enumerate(names):
        if word == name.casefold():
            return space.dtype.type(space.start + index)
    return space.dtype.type(int(word)) if re.fullmatch(r"-?[0-9]{1,9}", word) else None


def _array(said: str, space: Any) -> Any:
    import numpy as np

    try:
        values = json.loads(said if said.startswith("[") else f"[{said}]")
        array = np.array(values, dtype=np.float64)
        if array.size != _size(space) or not np.isfinite(array).all():
            return None
        with np.errstate(invalid="ignore"):  # what does not fit is seen below
            action = array.reshape(space.shape).astype(space.dtype)
        exact = not np.issubdtype(space.dtype, np.integer) or (action.ravel() == array.ravel()).all()
        return action if exact else None
    except (TypeError, ValueError, RecursionError):
        return None


def _numbers(space: Any) -> str:
    """An example of an action that is a list of numbers."""
    return ", ".join(["0"] * min(3, _size(space))) + (", ..." if _size(space) > 3 else "")


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _size(space: Any) -> int:
    size = 1
    for length in space.shape or ():
        size *= int(length)
    return size


def _kind(space: Any) -> str:
    names = [kind.__name__ for kind in type(space).__mro__]
    own = "Text" if getattr(space.dtype, "kind", "") == "U" else names[0]
    return next((name for name in names if name in KINDS), own)

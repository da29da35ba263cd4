"""Are two values the same, however an API writes them?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_DAY = re.compile(r"\d{4}-\d\d-\d\d")


def same(a: Any, b: Any) -> bool:
    """Whether they are one value: 5, 5.0 and "5.00" are one number.

    >>> same(5, "5.00"), same("K-1", "k-1 "), same("K-1", "K-10")
    (True, True, False)
    """
    if a == b:
        return True
    if a is None or b is None or isinstance(a, bool) or isinstance(b, bool):
        return str(a).casefold() == str(b).casefold()
    try:
        return float(a) == float(b)
    except (TypeError, ValueError, OverflowError):
        return str(a).strip().casefold() == str(b).strip().casefold()


def agrees(said: Any, value: Any) -> bool:
    """Whether a field may be what was written: in other letters, as a part of a table, with a time of day, blotted out.

    >>> agrees("In transit", "in_transit"), agrees({"amount": 5.0, "currency": "EUR"}, 5), agrees("***", "hunter2")
    (True, True, True)
    """
    if isinstance(said, dict | list):
        return isinstance(value, dict | list) or any(agrees(inner, value) for inner in _leaves(said))
    if isinstance(value, dict | list) or same(said, value):
        return True
    text, wanted = str(said), str(value)
    day = _DAY.match(wanted) and text.startswith(wanted[:10])
    return bool(day) or set(text) in ({"*"}, {"•"}) or _letters(text) == _letters(wanted)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _leaves(inner)
    else:
        yield value


def _letters(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())

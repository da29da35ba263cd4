"""Texts that are written so that they don't catch the eye, and how to read them."""

from __future__ import annotations

import base64
import binascii
import codecs
import re
from collections.abc import Callable

FEWEST = 3
"""Characters of a text that is worth looking for in disguise."""
ABOUT = re.compile(
    r"base.?64|\bhex|binary|decod|encod|revers|backward|mirror|palindrom|cipher|crypt|\brot|caesar", re.IGNORECASE
)
"""What prompts speak of where reading such texts is the task."""


def _backwards(text: str) -> str:
    return text[::-1]


def _rot13(text: str) -> str:
    return codecs.encode(text, "rot13")


def _from_base64(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError):
        return ""


def _from_hex(text: str) -> str:
    try:
        return bytes.fromhex(text).decode()
    except ValueError:
        return ""


DISGUISES: dict[str, tuple[Callable[[str], str], Callable[[str], str]]] = {
    "base64": (lambda text: base64.b64encode(text.encode()).decode(), _from_base64),
    "hexadecimal": (lambda text: text.encode().hex(), _from_hex),
    "backwards": (_backwards, _backwards),
    "rot13": (_rot13, _rot13),
}
"""By name: how a text is disguised, and how it is read."""


def disguised(text: str) -> dict[str, str]:
    """How a text may look, by the name of the disguise.

    >>> disguised("391")["backwards"], disguised("7")
    ('193', {})
    """
    if len(text) < FEWEST:
        return {}
    found = {name: hide(text) for name, (hide, _) in DISGUISES.items()}
    return {name: hidden for name, hidden in found.items() if hidden != text}


def read(name: str, text: str) -> str:
    """What a text says that is disguised so, "" if it is not."""
    return DISGUISES[name][1](text) if text else ""

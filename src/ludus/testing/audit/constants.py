"""What scorers look for, read from their code: texts they compare with, and texts that match their patterns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from types import CodeType
from typing import Any

from ludus.authoring.environment import Environment

MOST_CHARACTERS = 200
DEPTH = 3
"""Calls that are followed from a scorer into functions beside it."""
NUMBERS = ("1000000000", "99999", "99", "9")
"""In place of digits in a pattern; large ones first: a tolerance or a count may be what is asked for."""
REPEATED = r"(?:[+*]\??|\{\d*,?\d*\}\??)?"


def constants_in(env: Environment) -> list[str]:
    """Those of all scorers of an environment, without repetition."""
    found = (text for fn, _ in (*env.scorers(), *env.group_scorers()) for text in constants_of(fn))
    return list(dict.fromkeys(found))


def constants_of(fn: Any) -> list[str]:
    """Texts that a function compares with or looks for: its constants, and those of functions and globals it names."""
    found: dict[str, None] = {}
    seen: set[int] = set()

    def walk(value: Any, names: dict[str, Any], owner: Any, depth: int) -> None:
        if depth < 0 or id(value) in seen:
            return
        seen.add(id(value))
        if isinstance(value, str):
            found.update(dict.fromkeys(_texts(value)))
        elif isinstance(value, re.Pattern):
            walk(value.pattern, names, owner, depth)
        elif isinstance(value, CodeType):
            for one in value.co_consts[1:] if value.co_flags & 0x4000000 else value.co_consts:
                walk(one, names, owner, depth)
            for name in value.co_names:
                walk(names.get(name, getattr(type(owner), name, None)), names, owner, depth - 1)
        elif isinstance(value, dict | list | tuple | set | frozenset):
            for one in list(value)[:50]:
                walk(one, names, owner, depth - 1)
        elif isinstance(code := getattr(value, "__code__", None), CodeType):
            walk(code, getattr(value, "__globals__", {}), owner, depth)

    walk(getattr(fn, "__func__", fn), {}, getattr(fn, "__self__", None), DEPTH)
    return [text for text in found if 0 < len(text) <= MOST_CHARACTERS]


def example_of(pattern: str) -> str:
    r"""A text that a pattern matches, "" where none is found as easily as that.

    >>> example_of(r"^<answer>\s*(\d+)\s*</answer>$"), example_of(r"(yes|no)\b"), example_of(r"[A-D]\)"), example_of("(")
    ('<answer>1000000000</answer>', 'yes', 'A)', '')
    """
    for number in NUMBERS:
        text = re.sub(r"\(\?[a-zA-Z]+\)|\\[bBAZ]", "", pattern)
        text = re.sub(r"\(\?(?:P?<\w+>|:)", "(", text)
        text = re.sub(rf"(?:\\d|\[0-9\]){REPEATED}", number, text)
        text = re.sub(rf"\[([^\]\\^])[^\]]*\]{REPEATED}", r"\1", text)
        text = re.sub(r"\\s\*\??", "", text)
        text = re.sub(rf"\\s{REPEATED}", " ", text)
        text = re.sub(rf"(?:\\[wS]|(?<!\\)\.(?=[+*{{])){REPEATED}", "word", text)
        while (first := re.sub(r"\(([^()|]*)\|[^()]*\)", r"(\1)", text)) != text:
            text = first
        text = re.sub(r"\\(.)", r"\1", re.sub(r"(?<!\\)[()^$?*+]", "", text))
        try:
            if re.search(pattern, text):
                return text
        except (re.error, RecursionError, OverflowError):
            return ""
    return ""


def _texts(text: str) -> Iterator[str]:
    """A text, and where it may be a pattern, what it matches and the words in it."""
    if any(sign in text for sign in "\\(*+?["):
        yield from filter(None, [example_of(text) if len(text) <= MOST_CHARACTERS else ""])
        plain = re.sub(r"\\[sSdDwWbB]|\(\?[:=!P<>\w]*|[()*+?^$|]|\[[^\]]*\]|\{\d*,?\d*\}|\.(?=[*+])", " ", text)
        plain = re.sub(r"\\(.)", r"\1", plain)
        yield from _words(plain)
    yield text


def _words(text: str) -> Iterable[str]:
    words = text.split()
    return [*words, " ".join(words)]

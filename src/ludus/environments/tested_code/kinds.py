"""Kinds of tests, as a task holds them: a call with what it returns, a program's input and output, or Python text."""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence
from typing import Any

import msgspec

from ludus.errors import ConfigError


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A function of the solution, with what it is to return, or to raise. The comparison is made on the host."""

    call: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    returns: Any = None
    raises: str = ""
    """Name of an exception's class; "" where the call returns."""


class Run(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The solution as a program: what it reads, and what it is to print. White space at the ends of lines is ignored."""

    stdin: str
    stdout: str


class Text(msgspec.Struct, frozen=True):
    """Python with assertions, which uses the solution's names or imports them from `solution`.

    Each function `test_...` in it is a test; where it has none, all of it is one.
    """

    source: str
    names: tuple[str, ...]


Test = Call | Run | Text


def read_tests(given: Any) -> list[Test]:
    """Tests as a task holds them: texts of Python, and objects with the fields of `Call` or `Run`.

    Raises:
        ConfigError: there are none, or one that is no test, in one line.
    """
    if not isinstance(given, list | tuple) or not given:
        raise ConfigError(f"tests: expected a list of tests, got {given!r}"[:200])
    return [_read(entry, number) for number, entry in enumerate(given, 1)]


def _read(entry: Any, number: int) -> Test:
    try:
        if isinstance(entry, str):
            return _text(entry)
        if isinstance(entry, dict) and "call" in entry:
            return msgspec.convert(entry, Call)
        return msgspec.convert(entry, Run)
    except (msgspec.ValidationError, SyntaxError, ValueError) as error:
        raise ConfigError(
            f"test {number}: expected Python, or an object with call and returns or raises, or with stdin and stdout: "
            f"{error}"
        ) from None


def _text(source: str) -> Text:
    """Raises SyntaxError, and ValueError for text with a NUL character."""
    found = [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    return Text(source, tuple(name for name in found if name.startswith("test_")) or ("",))


def count(tests: Sequence[Test]) -> int:
    """How many there are: a text may have several."""
    return sum(len(test.names) if isinstance(test, Text) else 1 for test in tests)


def same(expected: Any, got: Any) -> bool:
    """Whether a value is what JSON says it should be: tuples count as lists, floats may be off by rounding.

    >>> same([1, 0.3], (1, 0.1 + 0.2)), same(1, True), same({"a": 1}, {"a": 2})
    (True, False, False)
    """
    if isinstance(expected, bool) or isinstance(got, bool) or expected is None:
        return expected is got
    if isinstance(expected, int) and isinstance(got, int):
        return expected == got
    if isinstance(expected, int | float) and isinstance(got, int | float):
        return math.isclose(expected, got, rel_tol=1e-9, abs_tol=1e-12)
    if isinstance(expected, list) and isinstance(got, list | tuple):
        return len(expected) == len(got) and all(map(same, expected, got))
    if isinstance(expected, dict) and isinstance(got, dict):
        return expected.keys() == got.keys() and all(same(value, got[key]) for key, value in expected.items())
    return type(expected) is type(got) and bool(expected == got)


def same_output(expected: str, got: str) -> bool:
    """Whether two texts have the same lines, white space at their ends aside.

    >>> same_output("1\\n2", "1 \\n2\\n\\n")
    True
    """
    return _lines(expected) == _lines(got)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]

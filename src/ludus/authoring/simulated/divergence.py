"""How far a simulated API's answers are from the real ones, call by call: pure functions of pairs of results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

ERROR = "Error: "
"""How the default loop begins what it tells an agent of a tool's error."""


class Comparison(msgspec.Struct, frozen=True):
    """One call answered twice."""

    tool: str
    exact: bool
    same_outcome: bool
    """Both succeeded, or both failed."""
    same_shape: bool
    """The same fields, lists and types of values."""
    fields: float
    """Share of all fields of either answer that both have with the same value."""
    call: str = ""
    real: str = ""
    simulated: str = ""


def compare(tool: str, call: str, real: str, simulated: str) -> Comparison:
    """Compare two answers as the agent reads them.

    >>> compared = compare("get", "get()", '{"a": 1, "b": 2}', '{"b": 3, "a": 1}')
    >>> compared.exact, compared.same_shape, compared.fields
    (False, True, 0.5)
    """
    a, b = as_json(real), as_json(simulated)
    ours, theirs = dict(leaves(a)), dict(leaves(b))
    every = ours.keys() | theirs.keys()
    agreed = sum(path in ours and path in theirs and ours[path] == theirs[path] for path in every)
    return Comparison(
        tool=tool,
        exact=a == b,
        same_outcome=is_error(real, a) == is_error(simulated, b),
        same_shape=shape(a) == shape(b),
        fields=agreed / len(every) if every else 1.0,
        call=call, real=real, simulated=simulated,
    )  # fmt: skip


def as_json(text: str) -> Any:
    """A result's value, or the text itself where it is no JSON."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return text


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is no list and no table, by its path."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from leaves(inner, f"{path}.{name}")
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{index}]")
    else:
        yield path, value


def shape(value: Any) -> Any:
    """A value without its texts and numbers; of a list, the shapes that are in it."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in sorted(value.items())}
    if isinstance(value, list):
        return ["list", *sorted({str(shape(inner)) for inner in value})]
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def is_error(text: str, value: Any) -> bool:
    """Whether an answer says that the call failed.

    >>> is_error("Error: no such order", ""), is_error("", {"error": "gone"}), is_error("", {"error": None})
    (True, True, False)
    """
    return text.startswith(ERROR) or (isinstance(value, Mapping) and bool(value.get("error")))


class ToolRow(msgspec.Struct, frozen=True):
    """The comparisons of one tool: shares of its calls."""

    tool: str
    num_calls: int
    exact: float
    same_outcome: float
    same_shape: float
    fields: float


def by_tool(comparisons: Iterable[Comparison]) -> list[ToolRow]:
    """A row a tool, the one that diverges most first."""
    tools: dict[str, list[Comparison]] = {}
    for one in comparisons:
        tools.setdefault(one.tool, []).append(one)
    rows = []
    for tool, found in tools.items():
        means = {name: sum(getattr(one, name) for one in found) / len(found) for name in ToolRow.__struct_fields__[2:]}
        rows.append(ToolRow(tool, len(found), **means))
    return sorted(rows, key=lambda row: (row.fields, row.tool))

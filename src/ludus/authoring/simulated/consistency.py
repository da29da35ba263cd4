"""Does an API agree with itself? Checks of a result against what earlier calls were told.

- A read that is made again, with no write in between, returns the same.
- A read after a write returns what was written: where both name the same thing (all arguments that they share are
  equal), a field of the result that is called like an argument of the write has its value.
- What was deleted is no longer there.

Left out: what an API means beyond its names, such as a balance that a payment lowers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ludus.types import content_hash

READS = re.compile(
    r"(?:^|[._-])(?:get|list|search|find|read|look|fetch|query|show|describe|check|count|view|retrieve)", re.I
)
DELETES = re.compile(r"(?:^|[._-])(?:delete|remove)", re.I)
EMPTY: tuple[Any, ...] = (None, "", [], {}, False)


@dataclass(frozen=True)
class Told:
    """One call and what it was answered."""

    name: str
    arguments: Mapping[str, Any]
    result: Any
    failed: bool = False


@dataclass
class Memory:
    """The calls of one rollout so far.

    >>> memory = Memory()
    >>> memory.add(Told("set_price", {"item": "tea", "price": 5}, "ok"))
    >>> memory.problem(Told("get_price", {"item": "tea"}, {"item": "tea", "price": 4}))
    'set_price(item="tea", price=5) was accepted, so get_price(item="tea") must say that price is 5, not 4'
    """

    calls: list[Told] = field(default_factory=list)

    def add(self, told: Told) -> None:
        self.calls.append(told)

    def known(self, name: str, arguments: Mapping[str, Any]) -> Told | None:
        """The answer to the same read, where nothing was written since."""
        key = content_hash([name, arguments])
        for told in reversed(self.calls):
            if not is_read(told.name):
                if not told.failed:
                    return None
            elif content_hash([told.name, told.arguments]) == key:
                return told
        return None

    def problem(self, new: Told) -> str:
        """How a result contradicts what was told before; "" where it does not."""
        if not is_read(new.name):
            return ""
        before = self.known(new.name, new.arguments)
        if before is not None and (before.result, before.failed) != (new.result, new.failed):
            return f"{shown(new)} was answered otherwise before, and nothing was written since"
        settled, remade = set[str](), False
        for write in reversed(self.calls):
            if write.failed or is_read(write.name):
                continue
            if DELETES.search(write.name):
                if write.arguments == new.arguments and not remade:
                    gone = new.failed or new.result in EMPTY
                    return "" if gone else f"{shown(write)} was accepted, so {shown(new)} must find nothing"
                continue
            if problem := _contradicts(write, new, settled):
                return problem
            remade |= new.arguments.items() <= write.arguments.items()
        return ""


def is_read(name: str) -> bool:
    """Whether a tool only reads, as its name says.

    >>> is_read("get_order"), is_read("orders.list"), is_read("update_budget")
    (True, True, False)
    """
    return READS.search(name) is not None


def shown(told: Told) -> str:
    """A call as one would write it."""
    return f"{told.name}({', '.join(f'{name}={_value(value)}' for name, value in told.arguments.items())})"


def _contradicts(write: Told, read: Told, settled: set[str]) -> str:
    """`settled` are fields that a later write has set."""
    shared = write.arguments.keys() & read.arguments.keys()
    if not shared or any(write.arguments[name] != read.arguments[name] for name in shared):
        return ""
    for name in write.arguments.keys() - shared - settled:
        settled.add(name)
        found = list(_fields(read.result, name))
        if found and not any(_same(value, write.arguments[name]) for value in found):
            wanted = _value(write.arguments[name])
            return f"{shown(write)} was accepted, so {shown(read)} must say that {name} is {wanted}, not {_value(found[0])}"
    return ""


def _fields(value: Any, name: str) -> Iterator[Any]:
    """Everything that stands under a name, at any depth."""
    if isinstance(value, dict):
        if name in value:
            yield value[name]
        for inner in value.values():
            yield from _fields(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _fields(inner, name)


def _same(a: Any, b: Any) -> bool:
    return a == b or str(a).strip().casefold() == str(b).strip().casefold()


def _value(value: Any) -> str:
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."

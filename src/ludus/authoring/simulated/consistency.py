"""Does an API agree with itself? Checks of a result against what earlier calls were told.

- A read that is made again, with no write in between, returns the same.
- A read after a write returns what was written: where a record of the result is of the same thing, a field that is called
  like an argument of the write has its value; and what was created or set under the same noun is there.
- What was deleted is no longer there.

Which arguments say of which thing a call is: those that are called `id`, `order_id` and the like, and those that some tool
asks for it by. An id that the API made up when it created the thing counts as one. Where it is not sure, nothing is said:
an API that is asked again for no reason costs a rollout.

Left out: what an API means beyond its names, such as a balance that a payment lowers; and reads against other reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from ludus.authoring.simulated.names import deed_of
from ludus.authoring.simulated.values import agrees, same
from ludus.types import content_hash

EMPTY: tuple[Any, ...] = (None, "", [], {}, False)
_ID = re.compile(r"(?:.*_)?(?:id|uuid)|.+Id")
_COUNTS = frozenset({"quantity", "count", "amount", "number", "qty"})
"""Of what is removed, there may be more."""
_GONE = re.compile(r"delete|remove|not.?found|no.?such|gone|cancel|archive|inactive", re.IGNORECASE)
_ABSENT = re.compile(r"not.?found|no.?such|exist|unknown|404|no \w+ with", re.IGNORECASE)
"""Errors that say that a thing is not there, and not that one must log in or wait."""
_PAGES = re.compile(r"next|cursor|page|more|total|offset", re.IGNORECASE)
"""Names of fields that say that a list is only a part."""


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

    Args:
        keys: arguments by which tools ask for things, beside those that are called like ids.

    >>> memory = Memory(frozenset({"item"}))
    >>> memory.add(Told("set_price", {"item": "tea", "price": 5}, "ok"))
    >>> memory.problem(Told("list_prices", {}, [{"item": "tea", "price": 4}]))
    'set_price(item="tea", price=5) was accepted, so list_prices() must say that price is 5, not 4'
    """

    keys: Set[str] = frozenset()
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
        records, later = list(_records(new)), list[_Write]()
        for told in reversed(self.calls):
            if told.failed or is_read(told.name):
                continue
            write = _Write.of(told, self.keys | new.arguments.keys())
            since = [one for one in later if one.touches(write)]
            if why := _contradiction(write, since, new, records):
                return f"{shown(told)} was accepted, so {shown(new)} {why}"
            later.append(write)
        return ""


@dataclass(frozen=True)
class _Write:
    """A write that was accepted."""

    told: Told
    thing: Mapping[str, Any]
    """What it is about: names of arguments, or of ids in the result, and their values."""

    @property
    def noun(self) -> str:
        return deed_of(self.told.name).noun

    @classmethod
    def of(cls, told: Told, keys: Set[str]) -> _Write:
        does, noun = deed_of(told.name)
        own = {name: value for name, value in told.arguments.items() if name in keys or _ID.fullmatch(name)}
        if does == "remove":  # without an id of what is removed, each argument may tell it from others
            return cls(told, own if {"id", f"{noun}_id"} & own.keys() else dict(told.arguments))
        made = told.result if isinstance(told.result, dict) else {}
        ids = {name: value for name, value in made.items() if _ID.fullmatch(name) and isinstance(value, str | int)}
        return cls(told, ids if ids and not any(map(_ID.fullmatch, own)) else own)

    def touches(self, other: _Write) -> bool:
        """Whether it is about the same thing as another one, or a part of it."""
        shared = self.thing.keys() & other.thing.keys()
        if not self.thing and not other.thing:
            return self.noun == other.noun
        return bool(shared) and all(same(self.thing[name], other.thing[name]) for name in shared)

    def is_of(self, record: Mapping[str, Any], read: Told) -> bool:
        """Whether a record is of its thing; what there is only one of is known by its noun."""
        if not self.thing:
            return not read.arguments and deed_of(read.name).noun == self.noun
        return all(same(_named(record, name, self.noun), value) for name, value in self.thing.items())

    def would_show(self, records: list[Mapping[str, Any]]) -> bool:
        """Whether its thing could be told from others in records like these."""
        return bool(self.thing) and all(
            not records or any(_named(record, name, self.noun) is not None for record in records) for name in self.thing
        )


def _contradiction(write: _Write, since: list[_Write], new: Told, records: list[Mapping[str, Any]]) -> str:
    """What the result of a read must say because of a write, given later ones about the same thing, and does not."""
    does, own = deed_of(write.told.name).does, [record for record in records if write.is_of(record, new)]
    if does == "remove":
        whole = not since and bool(write.thing) and not _COUNTS & write.told.arguments.keys()
        there = [record for record in own if not _says_gone(record, new)]
        return "must find nothing" if whole and there and not new.failed else ""
    if any(deed_of(one.told.name).does != "set" for one in since):
        return ""  # whatever that did: what was set before it need not be so any longer
    settled = {name for one in since for name in one.told.arguments}
    for name, value in write.told.arguments.items():
        number = isinstance(value, int | float) and does != "set"  # such as an amount that adds up
        if name in write.thing or name in settled or number:
            continue
        found = [inner for record in own for inner in _fields(record, name)]
        if found and not any(agrees(inner, value) or _mentions(new.result, value) for inner in found):
            return f"must say that {name} is {_value(value)}, not {_value(found[0])}"
    missing = does == "set" and write.noun == deed_of(new.name).noun and not own and write.would_show(records)
    unsure = _is_part(new.result) or (new.failed and not _ABSENT.search(str(new.result)))
    return "must find it" if missing and _asks_for(new, write) and not unsure else ""


def _asks_for(read: Told, write: _Write) -> bool:
    """Whether what was written must be in what a read returns: everything that it asks by is as it was written."""
    wrote = {**write.told.arguments, **write.thing}
    return all(same(_named(wrote, name, write.noun), value) for name, value in read.arguments.items())


def _records(read: Told) -> Iterator[Mapping[str, Any]]:
    """Every table in a result, with the arguments of the call where it does not say otherwise; a bare value is a field."""
    if read.failed or read.result in EMPTY:
        return
    value = read.result if isinstance(read.result, dict | list) else {deed_of(read.name).noun: read.result}
    if isinstance(value, list) and not any(isinstance(item, dict) for item in value):
        value = {deed_of(read.name).noun: value}
    yield from ({**read.arguments, **table} for table in _tables(value))


def _tables(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _tables(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _tables(inner)


def _named(record: Mapping[str, Any], name: str, noun: str) -> Any:
    """A field of a record; `id` is another name of `order_id` in an order."""
    other = "id" if name == f"{noun}_id" else f"{noun}_id" if name == "id" else name
    return record.get(name, record.get(other))


def _says_gone(record: Mapping[str, Any], read: Told) -> bool:
    """Whether a record says that there is nothing, beside what it was asked by."""
    own = {name: value for name, value in record.items() if not same(value, read.arguments.get(name))}
    words = " ".join(name if value is True else str(value) for name, value in own.items() if value)
    return bool(own) and (bool(_GONE.search(words)) or not any(own.values()))


def _mentions(result: Any, value: Any) -> bool:
    """Whether a result that is nothing but words has a value in them."""
    return isinstance(result, str) and str(value).casefold() in result.casefold()


def _is_part(result: Any) -> bool:
    """Whether a result says that there is more than it shows."""
    return isinstance(result, dict) and any(_PAGES.search(name) for name in result)


def is_read(name: str) -> bool:
    """Whether a tool only reads, as its name says.

    >>> is_read("get_order"), is_read("orders.list"), is_read("update_budget"), is_read("checkout")
    (True, True, False, False)
    """
    return deed_of(name).does == "read"


def shown(told: Told) -> str:
    """A call as one would write it."""
    return f"{told.name}({', '.join(f'{name}={_value(value)}' for name, value in told.arguments.items())})"


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


def _value(value: Any) -> str:
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."

"""What a tool does, as far as its name says: the first word that is known for a verb decides, in any spelling."""

from __future__ import annotations

import functools
import re
from typing import Literal, NamedTuple

Does = Literal["read", "set", "remove", "other"]
"""Reads; sets fields to what its arguments say; removes a thing; or writes in some other way."""

_VERBS: dict[Does, str] = {
    "read": "get list search find read look lookup fetch query show describe check count view retrieve is has",
    "set": "set create update put save write store insert upsert edit change modify patch replace rename register",
    "remove": "delete remove erase destroy",
    "other": "accept activate add append apply approve archive assign attach book buy call cancel charge checkin checkout "
    "clear close commit complete confirm convert copy deactivate decline deny deposit disable do download draw enable "
    "exchange execute export fill grant import increment invite invoke issue join leave link lock log login logout make "
    "mark merge move open order pay place post process promote publish purchase push record refund reject release reply "
    "request reserve reset restart restore return revoke run schedule sell send share sign start stop submit subscribe "
    "swap sync transfer trigger undo unlink unlock unsubscribe upload use withdraw",
}
_DOES: dict[str, Does] = {verb: does for does, verbs in _VERBS.items() for verb in verbs.split()}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


class Deed(NamedTuple):
    """What a tool does, and to what."""

    does: Does
    noun: str
    """In the singular, such as "order" of list_orders."""


@functools.lru_cache(maxsize=10_000)
def deed_of(name: str) -> Deed:
    """Read a name; one without a verb that is known writes.

    >>> deed_of("get_order"), deed_of("orders.list"), deed_of("createList").does, deed_of("check_out").does
    (Deed(does='read', noun='order'), Deed(does='read', noun='order'), 'set', 'other')
    """
    words = [word.lower() for word in _WORD.findall(name)]
    if "check" in words and {"in", "out"} & set(words):
        return Deed("other", _noun([word for word in words if word not in ("check", "in", "out")]))
    at = next((i for i, word in enumerate(words) if word in _DOES), None)
    if at is None:
        return Deed("other", _noun(words))
    return Deed(_DOES[words[at]], _noun(words[at + 1 :] or words[:at]))


def _noun(words: list[str]) -> str:
    return "_".join(word.removesuffix("s") for word in words)

"""Is an answer the right one? Rules for dates, amounts, names and places; no model judges.

An answer is the value alone, in any usual form. Several values, or a sentence around one, are no answer: whoever could
list them all would always be right.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

Kind = Literal["date", "amount", "person", "place", "number", "thing"]

MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
          "december")  # fmt: skip
_MONTH = "|".join(f"{month[:3]}(?:{month[3:]})?" + ("|sept" if month == "september" else "") for month in MONTHS)
_WEEKDAY = r"(?:(?:mon|tues?|wednes|thurs?|fri|satur|sun)(?:day)?,? )?(?:the )?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?:,? (?P<year>\d{4}))?"
DATES = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?P<year>\d{4})-(?P<number>\d{1,2})-(?P<day>\d{1,2})",
        rf"{_WEEKDAY}(?P<month>{_MONTH}) (?:the )?{_DAY}{_YEAR}",
        rf"{_WEEKDAY}{_DAY}(?: of)? (?P<month>{_MONTH}){_YEAR}",
    )
)
AMOUNT = re.compile(
    r"(?:\$|us\$|usd|dollars?)? ?(?P<whole>\d{1,3}(?:,\d{3})+|\d{1,12})(?:\.(?P<part>\d{1,2}))? ?"
    r"(?P<thousands>k)? ?(?:\$|usd|us dollars|dollars?)?"
)
SURROUNDINGS = re.compile(r"^(?:in|at|on|by|to|the|a|an|mr|ms|mrs|dr) ")
UNKNOWN = frozenset({"i don't know", "i do not know", "unknown", "don't know", "no answer", "no"})
LONGEST = 100
"""Characters; a longer text is no value."""


def same_answer(kind: Kind, said: str, answer: str) -> bool:
    """Whether what was said is the answer, however it is written.

    >>> same_answer("date", "the 3rd of March", "March 3, 2026"), same_answer("date", "March 4", "March 3, 2026")
    (True, False)
    >>> same_answer("amount", "12.5k dollars", "$12,500"), same_answer("person", "mira talvo.", "Mira Talvo")
    (True, True)
    """
    if len(said) > LONGEST:
        return False
    said, answer = plain(said), plain(answer)
    if said == answer:
        return True
    if kind == "date":
        mine, theirs = read_date(said), read_date(answer)
        return mine is not None and theirs is not None and mine[1:] == theirs[1:] and mine[0] in (None, theirs[0])
    if kind in ("amount", "number"):
        value = read_amount(said)
        return value is not None and value == read_amount(answer)
    return False


def is_unknown(said: str) -> bool:
    """Whether somebody says that they don't know."""
    return len(said) <= LONGEST and plain(said) in UNKNOWN


def plain(text: str) -> str:
    """Lower case, straight quotes, one space between words, no article or preposition before, no full stop behind.

    >>> plain(" In the  Harbour Hall. ")
    'harbour hall'
    """
    text = unicodedata.normalize("NFKC", text).replace("’", "'").casefold()
    text = " ".join(text.split()).strip(" .!\"'")
    while found := SURROUNDINGS.match(text):
        text = text[found.end() :]
    return text


def read_date(text: str) -> tuple[int | None, int, int] | None:
    """Year (None where it is left out), month and day of a plain text that is a date and nothing else.

    >>> read_date("tuesday, may 5th, 2026"), read_date("2026-05-05"), read_date("may 5 or 6")
    ((2026, 5, 5), (2026, 5, 5), None)
    """
    for pattern in DATES:
        if found := pattern.fullmatch(text):
            parts = found.groupdict()
            month = int(parts["number"]) if parts.get("number") else _month(parts["month"])
            return int(parts["year"]) if parts["year"] else None, month, int(parts["day"])
    return None


def _month(name: str) -> int:
    return next(number for number, month in enumerate(MONTHS, 1) if month.startswith(name[:3]))


def read_amount(text: str) -> int | None:
    """Cents of a plain text that is an amount, or another number, and nothing else.

    >>> read_amount("$1,250.50"), read_amount("1250 dollars"), read_amount("12 or 13")
    (125050, 125000, None)
    """
    found = AMOUNT.fullmatch(text)
    if found is None:
        return None
    cents = int(found["whole"].replace(",", "")) * 100
    part = (found["part"] or "").ljust(2, "0")
    return (cents + int(part)) * (1000 if found["thousands"] else 1)

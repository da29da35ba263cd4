"""How a report words things: numbers, durations and names for people, and text without control characters."""

from __future__ import annotations

import math
import re
from typing import Any

_NAMES = {"start": "Before training", "after_sft": "After fine-tuning", "end": "After training", "eval": "Evaluation"}
_UNSAFE = re.compile(
    "\x1b\\[[0-9;?]*[ -/]*[@-~]"  # terminal escapes
    "|[\x00-\x08\x0b-\x1f\x7f-\x9f]"  # control characters other than tab and newline
    "|[\u200e\u200f\u202a-\u202e\u2066-\u2069]"  # marks that change the direction of text
    "|[\ud800-\udfff]"  # halves of surrogate pairs
)


def clean(text: str) -> str:
    """Text without control characters, terminal escapes and direction marks."""
    return _UNSAFE.sub("", text)


def number(value: Any) -> str:
    """A number for people: 4 significant digits, thousands separated; an en dash for what is missing."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, float) and not value.is_integer():
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return f"{int(value):,}" if isinstance(value, int | float) else str(value)


def score(value: Any) -> str:
    """A score with three decimals, so that scores stand under each other."""
    is_fraction = isinstance(value, int | float) and math.isfinite(value) and abs(value) < 1000
    return f"{value:.3f}" if is_fraction else number(value)


def name_of(purpose: str) -> str:
    """An evaluation's name for people: "eval:after_sft" is "After fine-tuning"; of one environment of a mixture,
    "eval:end@guess" is "After training, guess"."""
    key, _, member = purpose.removeprefix("eval:").partition("@")
    return _NAMES.get(key, key.replace("_", " ")) + (f", {member}" if member else "")

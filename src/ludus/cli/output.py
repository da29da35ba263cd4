"""What commands print: results on stdout, everything said on the way on stderr, tables that fit a terminal."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any

import click

from ludus.display.numbers import decimals as decimals
from ludus.display.numbers import interval as interval
from ludus.display.numbers import plus_minus as plus_minus
from ludus.display.numbers import short as short
from ludus.display.table import align as align


def say(text: str = "") -> None:
    """A line of the result. Styles are dropped where stdout is no terminal."""
    click.echo(text)


def note(text: str) -> None:
    """A line on the way to the result; shown above a live display where there is one."""
    print(text if sys.stderr.isatty() else click.unstyle(text), file=sys.stderr, flush=True)


RESULTS = f"{__name__}.results"
"""Where a context keeps the stream that results go to, when `sys.stdout` is not it."""


def say_json(value: Any) -> None:
    """One JSON object on one line; NaN becomes null."""
    import msgspec

    ctx = click.get_current_context(silent=True)
    click.echo(msgspec.json.encode(value).decode(), file=ctx.meta.get(RESULTS) if ctx else None)


def heading(text: str) -> str:
    """Bold on a terminal."""
    return click.style(text, bold=True) if _has_styles() else text


def faint(text: str) -> str:
    """Dim on a terminal."""
    return click.style(text, dim=True) if text and _has_styles() else text


def _has_styles() -> bool:
    """Whether terminals are to be given styles at all (no-color.org); where stdout is none, click drops them."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def terminal_width() -> int:
    """Columns of the terminal; a log has as many as it takes."""
    return shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else 10_000

"""The data card: what is in the data, where it comes from and what was left out, as the README of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment as Templates
from jinja2 import PackageLoader, StrictUndefined

from ludus.authoring.environment import Environment
from ludus.programs.data.filters import REASONS
from ludus.programs.report.words import clean
from ludus.redaction import SECRETS
from ludus.store.durable import disk_errors, write_atomically

if TYPE_CHECKING:
    from ludus.programs.data.make import DataConfig, Made


def write_card(path: Path, made: Made, config: DataConfig, env: Environment) -> None:
    """Write the card. Raises RunFolderError where it can't be written."""
    templates = Templates(
        loader=PackageLoader("ludus.programs.data", "."), undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True, autoescape=False,
        finalize=lambda value: clean(value) if isinstance(value, str) else value,
    )  # fmt: skip
    about = env.describe()
    text = templates.get_template("card.md.j2").render(made=made, config=config, env=about, reasons=REASONS)
    with disk_errors(f"write {path}"):
        write_atomically(path, SECRETS.hide(text).encode())

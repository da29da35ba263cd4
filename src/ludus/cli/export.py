"""`ludus export`: a run for other tools."""

from __future__ import annotations

from pathlib import Path

import click

from ludus.cli.lazy import LazyGroup
from ludus.cli.output import faint, say


@click.group("export", cls=LazyGroup, lazy={"inspect": "ludus.cli.export:inspect"})
def export() -> None:
    """Write a run in the formats of other tools."""


@click.command("inspect")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", show_default="RUN/inspect", help="Folder for the logs."
)
@click.option(
    "--purpose",
    "purposes",
    multiple=True,
    metavar="P",
    show_default="every evaluation, or everything",
    help="Only rollouts made for this: train, eval:end, ...; may be repeated.",
)
def inspect(run: Path, out: Path | None, purposes: tuple[str, ...]) -> None:
    """Write the rollouts of RUN as logs for Inspect, which inspect view opens.

    \b
        ludus export inspect runs/guess
        inspect view --log-dir runs/guess/inspect
    """
    from ludus.programs.export.inspect import export_inspect

    folder = out or run / "inspect"
    for path in export_inspect(run, folder, purposes):
        say(str(path))
    say(faint(f"\n  inspect view --log-dir {folder}"))

"""`ludus report`: a run as one HTML file."""

from __future__ import annotations

from pathlib import Path

import click

from ludus.cli.output import say


@click.command("report")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
def report(run: Path) -> None:
    """Write RUN/report.html anew, also while the run goes on."""
    from ludus.programs.report import report as write_report

    say(str(write_report(run)))

"""`ludus env divergence`: a simulated API beside the real one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ludus.cli.options import json_option
from ludus.cli.output import align, faint, heading, say, say_json

if TYPE_CHECKING:
    from ludus.programs.divergence import Divergence


@click.command("divergence")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@json_option
def divergence(run: Path, as_json: bool) -> None:
    """Say how far simulated tools are from the real ones.

    RUN is an evaluation in an environment from traces with tools=simulated; each call in it that was recorded is compared
    with its recorded result.

    \b
        ludus eval desk --model demonstrator --arg tools=simulated --role-model api=openai:NAME --out runs/simulated
        ludus env divergence runs/simulated
    """
    from ludus.programs.divergence import divergence as measure

    found = measure(run)
    if as_json:
        import msgspec

        say_json(msgspec.to_builtins(found))
        return
    for line in _lines(found):
        say(line)


def _lines(found: Divergence) -> Iterator[str]:
    from ludus.programs.report.words import clean

    names = ("tool", "calls", "the same", "same outcome", "same shape", "fields agree")
    table = [[heading(name) for name in names]]
    for row in found.tools:
        shares = (row.exact, row.same_outcome, row.same_shape, row.fields)
        table.append([clean(row.tool), str(row.num_calls), *(f"{share:.0%}" for share in shares)])
    yield from align(table, right=range(1, len(names)))
    for one in found.worst:
        yield f"\n{clean(_cut(one.call))}"
        yield f"  real       {clean(_cut(one.real))}"
        yield f"  simulated  {clean(_cut(one.simulated))}"
    yield ""
    unrecorded = f", {found.num_unrecorded} calls were not recorded" if found.num_unrecorded else ""
    yield faint(f"{found.num_rollouts} rollouts{unrecorded}")


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 160 else text[:159] + "…"

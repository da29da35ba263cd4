"""`ludus replay`: recorded rollouts judged, played or sampled again, and what that proves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ludus.cli.options import count_option, json_option, purpose_option
from ludus.cli.output import align, faint, heading, say, say_json

if TYPE_CHECKING:
    from ludus.programs.replay import Replay

HOWS = ("rescore", "re-enact", "resample")
DONE = {"rescore": "rescored", "re-enact": "re-enacted", "resample": "resampled"}
SHOWN = 10


@click.command("replay")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("rollout", required=False, metavar="[ROLLOUT]")
@click.option(
    "--how",
    metavar="HOW",
    type=click.Choice(HOWS),
    default=HOWS[0],
    show_default=True,
    help="rescore, re-enact or resample.",
)
@purpose_option
@count_option("--num", help_="The first N; by default all.")
@click.option("--env", metavar="ENV", help="An environment in place of the one that the record names.")
@json_option
def replay(
    run: Path, rollout: str | None, how: str, purpose: str | None, num: int | None, env: str | None, as_json: bool
) -> None:
    """Replay the rollouts of RUN, or one of them, and say where they differ from the record.

    rescore: the scorers of today on the recorded rollouts. re-enact: the environment again, from the recorded seeds,
    with a model that gives the recorded replies. resample: the tokens again, from kept weights, with the recorded
    seeds. Nothing is written. Exits with 0 where everything that could be compared is as recorded, otherwise with 1.
    """
    from ludus.programs.replay import replay as run_replay

    result = run_replay(run, how, rollout=rollout, purpose=purpose, num=num, env=env)  # type: ignore[arg-type] # a Choice
    if as_json:
        say_json(result.to_dict())
    else:
        for line in replay_lines(result):
            say(line)
    if not result.same:
        click.get_current_context().exit(1)


def replay_lines(result: Replay) -> Iterator[str]:
    """What a replay found, as text."""
    from ludus.cli.scores import environment_lines, score_table

    counts = f"{result.num_same} as recorded, {len(result.different)} different, {len(result.impossible)} not compared"
    yield f"{heading(DONE[result.how])} {_rollouts(len(result.findings))} of {result.run}: {counts}"
    yield from environment_lines(result.environments)
    yield from result.notes
    for block in (
        score_table([*result.scores, *([result.reward] if result.reward else [])]),
        list(_tokens(result)),
        list(_differences(result)),
        list(_not_compared(result)),
    ):
        if block:
            yield ""
            yield from block
    yield ""
    yield result.proves


def _tokens(result: Replay) -> Iterator[str]:
    """How far sampled tokens and their log-probabilities are from the recorded ones."""
    figures = [finding.figures for finding in result.findings if finding.figures]
    if not figures:
        return
    total, same = (int(sum(f[name] for f in figures)) for name in ("tokens", "same_tokens"))
    apart = max(f["logprob_sampled"] for f in figures)
    yield f"sampled again: {total:,} tokens, {total - same:,} of them from the first difference of their reply on"
    close = f"at most {apart:.1g} from the recorded ones" if apart else "bit for bit as recorded"
    yield f"their log-probabilities: {close}"
    scored = [f["logprob_forward"] for f in figures if "logprob_forward" in f]
    if scored:
        yield f"recorded tokens, scored by the trainer with the same weights: at most {max(scored):.1g} from the record"


def _differences(result: Replay) -> Iterator[str]:
    """The first difference of each rollout."""
    from ludus.programs.report.words import clean

    found = result.different
    if not found:
        return
    table = [[heading(name) for name in ("rollout", "made for", "differs first in", "then", "now")]]
    for finding in found[:SHOWN]:
        first = finding.differences[0]
        table.append(
            [finding.rollout, *(clean(text) for text in (finding.purpose, first.where, first.then, first.now))]
        )
    yield from align(table)
    if len(found) > SHOWN:
        yield faint(f"... and {len(found) - SHOWN} more (--json)")


def _not_compared(result: Replay) -> Iterator[str]:
    from ludus.programs.report.words import clean

    for why, count in sorted(result.reasons().items(), key=lambda pair: -pair[1]):
        yield faint(f"not compared: {_rollouts(count)}, {clean(why)}")


def _rollouts(count: int) -> str:
    return f"{count:,} rollout{'' if count == 1 else 's'}"

"""`ludus users`: the simulated users of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ludus.cli.options import json_option, purpose_option
from ludus.cli.output import align, decimals, faint, heading, say, say_json

if TYPE_CHECKING:
    from ludus.programs.users import Users


@click.command("users")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@purpose_option
@click.option(
    "--success-reward", metavar="X", type=float, show_default="the environment's own",
    help="Reward from which a rollout has not failed.",
)  # fmt: skip
@json_option
def users(run: Path, purpose: str | None, success_reward: float | None, as_json: bool) -> None:
    """Look at the simulated users of RUN: how they differ, what they got wrong, and whose fault failures were."""
    from ludus.programs.users import users_of

    found = users_of(run, purpose=purpose, success_reward=success_reward)
    if as_json:
        import msgspec

        say_json(msgspec.to_builtins(found))
        return
    for line in _lines(found):
        say(line)


def _lines(found: Users) -> Iterator[str]:
    from ludus.programs.report.words import clean

    yield heading(f"{found.num_rollouts} rollouts with a user")
    measured = found.diversity
    rows = [
        ("words an utterance", measured.words_per_utterance, ""),
        ("different words", measured.distinct_1, "of all words"),
        ("different pairs of words", measured.distinct_2, "of all pairs"),
        ("different openings", measured.distinct_openings, "of all users"),
        ("words in common", measured.similarity, "of two users; 1 is the same words"),
    ]
    yield from (
        "  " + line for line in align([(name, decimals(v), faint(about)) for name, v, about in rows], right=[1])
    )
    for title, counts in (("ended", found.endings), ("mistakes of users", found.errors)):
        if counts:
            text = ", ".join(f"{clean(kind).replace('_', ' ')} {count}" for kind, count in sorted(counts.items()))
            yield f"\n{heading(title)}  {text}"
    yield from (faint(f"  {clean(example)}") for example in found.examples)
    if found.num_excluded:
        yield f"\n{heading('left out')}  {found.num_excluded}, the user's fault by the rules: {found.num_excluded_by_user}"
    by_rules = _share(found.num_failed_by_user, found.num_failed)
    yield f"\n{heading('failed')}  {found.num_failed}, the user's fault by the rules: {by_rules}"
    if found.num_judged:
        yield f"  by the judge: {_share(found.num_judged_user, found.num_judged)}"


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / whole:.0%})" if whole else "–"

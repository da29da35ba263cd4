"""`ludus label`: a person says of rollouts what is good, what is bad, and why."""

from __future__ import annotations

import getpass
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ludus.cli.options import count_option, json_option, purpose_option, seed_option
from ludus.cli.output import faint, heading, note, say, say_json

if TYPE_CHECKING:
    from ludus.types import Rollout

KEYS = {"g": "good", "b": "bad", "s": "skip", "q": "quit"}


@click.command("label")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@purpose_option
@count_option("-n", "--num", help_="At most so many; by default all.")
@seed_option("Draws their order.")
@click.option("--by", metavar="NAME", show_default="your user name", help="Who labels.")
@click.option("--again", is_flag=True, help="Also what a person has labelled before; the last word counts.")
@click.option(
    "--signals",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Read a product's accept and reject signals instead: JSON lines with rollout and accepted.",
)
@click.option(
    "--export",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write what is labelled to a file that judges can be tested with instead.",
)
@click.option(
    "--rubric",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write the reasons as a rubric for judges to a file instead.",
)
@click.option("--list", "listed", is_flag=True, help="Print the labels that there are instead.")
@json_option
def label(
    run: Path, purpose: str | None, num: int | None, seed: int, by: str | None, again: bool, signals: Path | None,
    export: Path | None, rubric: Path | None, listed: bool, as_json: bool,
) -> None:  # fmt: skip
    """Say of rollouts of RUN whether they are good or bad, and why.

    Each is shown without its reward. Labels are kept in RUN/labels.jsonl, one by one as they are given. They are truth to
    test judges against (ludus judge check), the reasons become criteria of rubrics, and good and bad are rewards of 1 and 0
    (ludus data make takes the good and leaves out the bad).
    """
    from ludus.programs.labelling import export_labels, take_signals, to_label, write_rubric

    if sum((listed, signals is not None, export is not None, rubric is not None)) > 1:
        raise click.UsageError(
            "--list, --signals, --export and --rubric are done in place of labelling: give one of them"
        )

    if signals is not None:
        take_signals(run, signals)
    elif export is not None:
        export_labels(run, export)
    elif rubric is not None:
        write_rubric(run, rubric)
    elif not listed:
        names = to_label(run, purpose=purpose, seed=seed, again=again)[:num]
        ask = _typed if sys.stdin.isatty() else _read
        _label_all(run, names, by or _user_name(), ask)
    _summary(run, as_json)


def _label_all(run: Path, names: list[str], by: str, ask: Callable[[str], str]) -> None:
    from ludus.authoring.labels import Label
    from ludus.store import RolloutIndex
    from ludus.store.labels import add_labels

    with RolloutIndex(run) as index:
        for number, name in enumerate(names, 1):
            rollout = index.get(name)
            note(heading(f"\n{number} of {len(names)}") + faint(f"  {name}"))
            for line in _lines(rollout):
                note(line)
            verdict, why = _asked(ask)
            if verdict == "quit":
                return
            if verdict != "skip":
                given = Label(rollout=name, verdict=verdict, why=why, task=rollout.task.id, by=by, time=time.time())  # type: ignore[arg-type] # good or bad
                add_labels(run, [given])
    if not names:
        note("nothing is left to label (--again shows what is labelled, too)")


def _lines(rollout: Rollout) -> list[str]:
    """The conversation, without anything that tells what the scorers said."""
    from ludus.cli.transcript import message_lines

    return [line for message in rollout.messages for line in message_lines(message)]


def _asked(ask: Callable[[str], str]) -> tuple[str, str]:
    """A verdict and the reason. The end of the input quits."""
    try:
        while True:
            said = ask("\n[g]ood, [b]ad, [s]kip, [q]uit: ").strip().casefold()
            verdict = KEYS.get(said[:1], "") if said in KEYS or said in KEYS.values() else ""
            if verdict in ("skip", "quit"):
                return verdict, ""
            if verdict:
                return verdict, _reason(ask)
            note(f"expected one of {', '.join(KEYS.values())}, or its first letter")
    except EOFError:
        return "quit", ""


def _reason(ask: Callable[[str], str]) -> str:
    """Why; the end of the input says nothing, and leaves the verdict as it was given."""
    try:
        return ask("why (may be empty): ").strip()
    except EOFError:
        return ""


def _summary(run: Path, as_json: bool) -> None:
    import msgspec

    from ludus.authoring.labels import newest
    from ludus.programs.labelling import criteria
    from ludus.programs.report.words import clean
    from ludus.store import RunFolder
    from ludus.store.labels import NAME, read_labels

    with RunFolder.open(run):
        labels = list(newest(read_labels(run)).values())
    counts = Counter(label.verdict for label in labels)
    reasons = criteria(labels)
    if as_json:
        asked = [{"name": one.name, "text": one.text, "weight": one.weight} for one in reasons]
        said = {"labels": labels, "criteria": asked, **{v: counts[v] for v in ("good", "bad")}}
        say_json(msgspec.to_builtins(said))
        return
    say(f"{counts['good']} good, {counts['bad']} bad" + faint(f"  {run / NAME}"))
    for criterion in reasons:
        say(f"  {criterion.weight:4.0%}  {clean(criterion.text)}")


def _typed(prompt: str) -> str:
    return input(prompt)


def _read(prompt: str) -> str:
    note(prompt)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such user, as in some containers
        return ""

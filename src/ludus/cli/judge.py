"""`ludus judge`: how far a judge can be trusted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ludus.cli.access import access_options
from ludus.cli.lazy import LazyGroup
from ludus.cli.options import (
    arg_option,
    concurrency_option,
    count_option,
    env_argument,
    json_option,
    model_option,
    open_environment,
    seed_option,
)
from ludus.cli.output import align, faint, heading, say, say_json
from ludus.errors import LudusError

if TYPE_CHECKING:
    from ludus.cli.access import Accesses
    from ludus.programs.judging import JudgeCheck, Labelled

COMMANDS = {"check": "ludus.cli.judge:check"}
MOST_SHOWN = 3
"""Reasons for missing verdicts."""


@click.group("judge", cls=LazyGroup, lazy=COMMANDS)
def judge() -> None:
    """Measure judges."""


@click.command("check")
@env_argument
@model_option("The judge: a model folder, a run or openai:NAME.")
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Answers with labels: JSON lines of prompt, reply, label.",
)
@click.option(
    "--run",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Or the rollouts of a run that people have labelled, or whose scorers know the truth.",
)
@click.option(
    "--truth", metavar="SCORER", default="reward", show_default=True,
    help="Which of the run's scorers knows it; labels: what people said in ludus label.",
)  # fmt: skip
@click.option("--scorer", metavar="NAME", show_default="the only one", help="The scorer that asks the judge.")
@count_option("-n", "--num", default=200, help_="Answers: of a file the first, of a run drawn from all of it.")
@count_option("--repeats", default=1, help_="How often each is judged.")
@click.option(
    "--probes",
    type=click.IntRange(min=0),
    metavar="N",
    default=0,
    show_default=True,
    help="Bad answers that try to sway the judge, in each of several ways.",
)
@concurrency_option(16, "Questions at once.")
@seed_option("Of the judge.")
@access_options
@arg_option
@json_option
def check(
    env: str, model: str, labels: Path | None, run: Path | None, truth: str, num: int, args: tuple[str, ...],
    as_json: bool, access: Accesses, **settings: Any,
) -> None:  # fmt: skip
    """Check the judge of ENV on answers of which the truth is known.

    Says how often it is right, with which error, and beside what always giving the commonest verdict would be; whether
    it agrees with itself, favours long answers or early places, can be swayed, and what it costs. Nothing is written.

    \b
        ludus judge check letters.py --model openai:NAME --labels labels.jsonl --probes 10
        ludus judge check letters.py --model openai:NAME --run runs/mine --truth correct
        ludus judge check letters.py --model openai:NAME --run runs/mine --truth labels
    """
    if (labels is None) == (run is None):
        raise click.UsageError("give either --labels FILE or --run RUN, where the truth is")
    from ludus.programs.judging import check_judge

    environment = open_environment(env, args)
    answers = _answers(labels, run, truth, num, environment.success_reward)
    access.check([model])
    result = check_judge(environment, model, answers, **vars(access.of(model)), **settings)
    if as_json:
        say_json(result.to_dict())
    else:
        for line in check_lines(result):
            say(line)
    if not result.num:
        why = max(result.failures, key=lambda reason: result.failures[reason])
        raise LudusError(f"the judge gave no verdict on any of {result.num_failed} answers, most often because {why}")


def _answers(labels: Path | None, run: Path | None, truth: str, num: int, success_reward: float) -> list[Labelled]:
    from ludus.programs.judging import from_labels, from_people, from_run
    from ludus.programs.judging.labels import PEOPLE

    if labels is not None:
        return from_labels(labels, num)
    assert run is not None  # one of the two is given
    if truth == PEOPLE:
        return from_people(run, num)
    return from_run(run, truth, success_reward=success_reward, limit=num)


def check_lines(result: JudgeCheck) -> Iterator[str]:
    """What was found, as text."""
    yield f"\n{heading(f'{result.env}, {result.scorer}')}  {faint(f'judged by {result.model}')}\n"
    yield from ("  " + line for line in align(list(_rows(result))))
    if result.probes:
        yield ""
        names = [heading(name) for name in ("at the end of bad answers", "rise of the value", "became good")]
        rows = [[row.name, f"{row.rise:+.2f}", f"{row.num_turned} of {row.num}"] for row in result.probes]
        yield from ("  " + line for line in align([names, *rows], right=[1, 2]))
    for reason, count in sorted(result.failures.items(), key=lambda pair: -pair[1])[:MOST_SHOWN]:
        yield faint(f"\n  no verdict ({count}): {reason}")


def _rows(result: JudgeCheck) -> Iterator[list[str]]:
    yield ["answers", f"{result.num} with a verdict, {result.num_failed} without", f"{result.num_good} are good"]
    yield ["accuracy", _share(result.accuracy), f"95 % in {_interval(result.accuracy_interval)}"]
    yield ["always the commonest", _share(result.baseline), ""]
    yield ["kappa", _number(result.kappa), "agreement beyond chance"]
    yield ["right order", _share(result.right_order), "of pairs of different truth"]
    if result.repeats > 1:
        yield ["agrees with itself", _share(result.agreement), f"of pairs of {result.repeats} repeats"]
    yield ["favours length", _number(result.length_bias), f"95 % in {_interval(result.length_bias_interval)}"]
    if result.position_bias is not None and result.position_bias_interval is not None:
        yield [
            "favours early places",
            _number(result.position_bias),
            f"95 % in {_interval(result.position_bias_interval)}",
        ]
    tokens = f"{result.tokens['prompt']:,} + {result.tokens['completion']:,} tokens"
    cost = f", {result.cost:.4f} dollars" if result.cost else ""
    yield ["cost", f"{result.calls:,} calls", f"{tokens}{cost}, {_number(result.seconds_a_call)} s a call"]


def _share(value: float) -> str:
    return "–" if value != value else f"{100 * value:.1f} %"


def _number(value: float) -> str:
    return "–" if value != value else f"{value:.2f}"


def _interval(interval: tuple[float, float]) -> str:
    return "–" if interval[0] != interval[0] else f"{interval[0]:.2f} … {interval[1]:.2f}"

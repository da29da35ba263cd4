"""`ludus play`: a person in the model's place, to feel what the environment asks and what it rewards."""

from __future__ import annotations

import asyncio
import secrets
import sys

import click

from ludus.cli.options import arg_option, env_argument, open_environment, seed_option, split_option
from ludus.cli.output import faint, note, say
from ludus.cli.stopping import INTERRUPTED


@click.command("play")
@env_argument
@split_option("train")
@seed_option("Draws the task and what is random in it.", "another each time")
@click.option("--task", metavar="T", help="A task's id, or its place in the split from 0.")
@arg_option
def play(env: str, split: str, seed: int | None, task: str | None, args: tuple[str, ...]) -> None:
    """Play one task of ENV yourself, and see the scores.

    A line is a reply; one that ends in \\ goes on in the next. A tool is called as /NAME {"argument": ...}.
    """
    from ludus.cli.person import Person, choose_task, play_task
    from ludus.cli.transcript import message_lines, score_lines
    from ludus.rollouts.scheduler import Plan

    environment = open_environment(env, args)
    seed = secrets.randbits(31) if seed is None else seed
    chosen = choose_task(environment, split, seed, task)
    person = Person(_typed if sys.stdin.isatty() else _read, say)
    plan = Plan(seed, "play", split, timeout_s=None, max_retries=0)
    note(faint(f"{env}, task {chosen.id}, seed {seed}"))
    rollout = asyncio.run(play_task(environment, person, plan, chosen))
    if person.left:
        note("left before the end: nothing is scored")
        sys.exit(INTERRUPTED)
    for message in rollout.epilogue:
        for line in message_lines(message):
            say(line)
    say()
    for line in score_lines(rollout):
        say(line)


def _typed() -> str:
    return input("> ")


def _read() -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\n")

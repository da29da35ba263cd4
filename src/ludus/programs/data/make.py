"""`ludus data make`: play an environment, and make training data of what went well.

Rollouts are sampled into a run folder as by `ludus eval`, so what was finished is not run again. Then they are filtered,
first by themselves, then against the other samples of their task, then against what is taken already; the data and its
card are written whole or not at all. Tasks whose prompts are in the held-out split too are never taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from ludus.authoring.calling import call
from ludus.authoring.environment import Environment
from ludus.authoring.tasks import take
from ludus.errors import ConfigError, UnknownName, UsageError
from ludus.programs.data.card import write_card
from ludus.programs.data.filters import (
    REASONS,
    Novelty,
    Sample,
    agreeing,
    conversation,
    prompt_key,
    ranked,
    sample_of,
)
from ludus.programs.evaluate import PURPOSE, Evaluation, evaluate_async
from ludus.programs.labelling import rewards
from ludus.recording.backend import Backend
from ludus.store import RolloutIndex
from ludus.store.durable import disk_errors, fsync
from ludus.types import Message, Rollout

DATA, CARD = "data.jsonl", "README.md"
HELD_OUT = 2_000
"""Tasks of each other split that are looked at: some generators are slow."""


class DataConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What is sampled and what is taken."""

    split: str = "train"
    num_tasks: int = 1000
    samples: int = 4
    min_reward: float | None = None
    """By default the environment's success reward."""
    min_agreement: float = 0.0
    """Share of a task's samples that have to give the same answer."""
    min_novelty: float = 0.0
    """1 - the similarity to the nearest example that is taken already."""
    per_task: int = 1
    """Examples of a task, at most."""

    def __post_init__(self) -> None:
        for name in ("min_agreement", "min_novelty"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be between 0 and 1, got {getattr(self, name)}")
        if self.min_agreement > 0 and self.samples < 2:
            raise ConfigError("agreement needs at least 2 samples a task (--samples 4), got 1")
        if min(self.num_tasks, self.samples, self.per_task) < 1:
            raise ConfigError("num_tasks, samples and per_task must be at least 1")


class Made(msgspec.Struct, kw_only=True):
    """What came of it."""

    env: str
    model: str
    split: str
    num_rollouts: int
    num_examples: int
    left_out: dict[str, int]
    """Rollouts by why they were left out; the words are in `filters.REASONS`."""
    min_reward: float
    mean_reward: float
    """Of the examples."""
    tokens: dict[str, int]
    cost: float
    file: str
    card: str
    stopped: str = ""


async def make_data(env: Environment, model: str | Backend, config: DataConfig, out: Path, **evaluation: Any) -> Made:
    """Sample rollouts and write OUT/data.jsonl and OUT/README.md.

    Args:
        env: the environment.
        model: what `ludus eval --model` takes, or a backend.
        config: what is sampled and taken.
        out: the run folder; gone on with where it is there.
        **evaluation: as for `evaluate_async`: concurrency, seed, max_tokens, temperature, budget, ...

    Raises:
        UsageError: an environment, model, split or option that does not exist; nothing that could be taken.
        RunFolderError: the folder is in the way, or can't be written to.
        TooManyFailures: nearly all rollouts fail.
    """
    if config.split not in env.splits:
        raise UnknownName(f"split of {env.describe().id}", config.split, env.splits)
    held_out = await call(held_out_prompts, env, config.split)
    found = await evaluate_async(
        env, model, split=config.split, num_tasks=config.num_tasks, samples=config.samples, out=out, **evaluation
    )
    min_reward = env.success_reward if config.min_reward is None else config.min_reward
    labels = rewards(out)
    places = {task.id: place for place, task in enumerate(await call(take, env, config.split, config.num_tasks))}
    with RolloutIndex(out) as index:
        rows = [row for row in index.query(purpose=PURPOSE, last_attempts=True) if row.task in places]
        # not in the order in which they ended: the same rollouts make the same file, whenever each was played
        ids = [row.id for row in sorted(rows, key=lambda row: (places[row.task], row.sample))]
        samples = agreeing(sample_of(index.get(id_), held_out, min_reward, labels.get(id_)) for id_ in ids)
        chosen, left_out = ranked(samples, config.min_agreement, config.per_task)
        with disk_errors(f"write into {out}"):
            taken = _write(out / DATA, index, chosen, Novelty(config.min_novelty), left_out)
    if not taken:
        why = ", ".join(f"{count} for: {REASONS[reason]}" for reason, count in left_out.most_common())
        raise UsageError(f"none of {len(ids)} rollouts can be taken ({why}); they are in {out}")
    made = _made(config, found, len(ids), taken, left_out, min_reward, out)
    write_card(out / CARD, made, config, env)
    return made


def held_out_prompts(env: Environment, split: str) -> frozenset[str]:
    """The prompts of every other split, as far as they are looked at."""
    others = [name for name in env.splits if name != split]
    return frozenset(prompt_key(task) for name in others for task in take(env, name, HELD_OUT))


def example(rollout: Rollout) -> dict[str, Any]:
    """A line of the data: the conversation in the usual chat format, its tools, and where it comes from."""
    messages: list[Message] = conversation(rollout)
    row: dict[str, Any] = {"messages": messages}
    if rollout.tools:
        row["tools"] = rollout.tools
    return {**row, "task": rollout.task.id, "reward": rollout.reward, "rollout": rollout.id}


def _write(
    path: Path, index: RolloutIndex, chosen: list[Sample], novelty: Novelty, left_out: Counter[str]
) -> list[Sample]:
    """Write the examples that are new, whole or not at all; returns what was written."""
    taken: list[Sample] = []

    def lines() -> Iterator[bytes]:
        for sample in chosen:
            rollout = index.get(sample.rollout)
            if fault := novelty.fault(conversation(rollout)):
                left_out[fault] += 1
                continue
            taken.append(sample)
            yield msgspec.json.encode(example(rollout)) + b"\n"

    aside = path.with_name(f".{path.name}.tmp")
    try:
        with aside.open("wb") as file:
            file.writelines(lines())
        if taken:
            fsync(aside)
            aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return taken


def _made(
    config: DataConfig, found: Evaluation, num_rollouts: int, taken: list[Sample], left_out: Counter[str],
    min_reward: float, out: Path,
) -> Made:  # fmt: skip
    return Made(
        env=found.env, model=found.model, split=config.split, num_rollouts=num_rollouts, num_examples=len(taken),
        left_out={reason: left_out[reason] for reason in REASONS if left_out[reason]}, min_reward=min_reward,
        mean_reward=sum(sample.reward for sample in taken) / len(taken), tokens=found.tokens, cost=found.cost,
        file=str(out / DATA), card=str(out / CARD), stopped=found.stopped,
    )  # fmt: skip

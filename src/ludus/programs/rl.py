"""Reinforcement learning: sample groups, compare, step, publish, again.

Sampler and trainer share one set of weights here, so every batch is sampled by the weights that it trains: staleness 0.
The unit of the queue is the group.
"""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass

import numpy as np

from ludus.authoring.tasks import take
from ludus.errors import TooManyFailures
from ludus.programs import diagnostics
from ludus.programs.batch import Sample, has_variance, make_samples, split_updates, to_data
from ludus.programs.members import Member
from ludus.programs.recipe import RlConfig
from ludus.programs.schedule import Shuffled, Turns, learning_rate
from ludus.programs.signs import independent_scorers, signs_of
from ludus.programs.training import Training
from ludus.protocols import AdamW, Loss
from ludus.rollouts.scheduler import Group, Scheduler
from ludus.rollouts.workers import cancel_all
from ludus.seeds import derive
from ludus.types import Task

LEAST_USEFUL = 0.2
"""However few groups have rewards that differ, a wave is at most five times what is missing."""


@dataclass
class Collected:
    """Groups run for one batch: all of them, and those whose rewards differ."""

    groups: list[Group]
    used: list[Group]


@dataclass
class Source:
    """An environment with what makes groups in it."""

    member: Member
    scheduler: Scheduler
    tasks: Shuffled[Task]


async def rl(training: Training, config: RlConfig) -> None:
    """Run RL from where it is to its end, evaluating on the way."""
    position, recipe = training.position, training.recipe
    if position.rl_steps >= config.steps or training.stopping:
        return
    if position.rl_steps == 0:  # moments of the warm-up's small gradients would make RL's first steps huge
        await training.engine.trainer.reset_optimizer()
    async with AsyncExitStack() as stack:
        sources = await open_sources(training, config, stack)
        turns = Turns([source.member.weight for source in sources])
        schedulers = [source.scheduler for source in sources]
        training.watch(*schedulers)
        every = recipe.eval.every if recipe.eval else 0
        while position.rl_steps < config.steps:
            if every and position.rl_steps and position.rl_steps % every == 0:
                await training.evaluate(f"step {position.rl_steps}", greedy=False)
                training.watch(*schedulers)
            go_back, began = training.mark(), time.perf_counter()
            shares = turns.between(position.rl_steps * config.groups, (position.rl_steps + 1) * config.groups)
            collected = await collect_all(training, config, sources, shares)
            if training.stopping:
                go_back()
                return
            sampled = time.perf_counter()
            row = await update(training, config, sources, collected)
            position.rl_steps += 1
            await training.publish()
            row |= {"time/sampling": sampled - began, "time/training": time.perf_counter() - sampled}
            row |= {"time/loop_lag_max": max(scheduler.lag.worst_s for scheduler in schedulers)}
            training.log("rl", row)
            if position.rl_steps % recipe.save_every == 0 and not training.stopping:
                await training.save()


async def open_sources(training: Training, config: RlConfig, stack: AsyncExitStack) -> list[Source]:
    """Open every environment; together they run as many rollouts at once as one would alone."""
    recipe, members = training.recipe, training.members
    most = config.steps * config.groups * (1 + config.refill)
    total = sum(member.weight for member in members)
    limit = asyncio.Semaphore(recipe.concurrency)
    sources = []
    for member in members:
        spare = config.steps if member.name else 0  # a share is rounded up in each batch
        num_tasks = int(most * member.weight / total) + 1 + spare
        seed = derive(recipe.seed, "rl", member.name) if member.name else derive(recipe.seed, "rl")
        tasks = Shuffled(take(member.env, "train", num_tasks), seed)
        most_tokens = recipe.max_tokens(member.config)
        tokens = {} if most_tokens is None else {"max_tokens": most_tokens}
        temperature = member.config.temperature or config.temperature
        plan = training.plan(member, "train", "train", temperature=temperature, **tokens)
        scheduler = Scheduler(member.env, training.backends, plan, on_rollout=training.run.rollouts.append, limit=limit)
        sources.append(Source(member, await stack.enter_async_context(scheduler), tasks))
    return sources


async def collect_all(
    training: Training, config: RlConfig, sources: list[Source], shares: list[int]
) -> list[Collected]:
    """Each environment's share of a batch: side by side, or one after the other where every batch must be composed the
    same way each time."""
    pairs = list(zip(sources, shares, strict=True))
    if training.recipe.deterministic:
        return [await collect_share(training, config, source, share) for source, share in pairs]
    running = [asyncio.create_task(collect_share(training, config, source, share)) for source, share in pairs]
    try:
        return list(await asyncio.gather(*running))
    finally:
        await cancel_all(running)


async def collect_share(training: Training, config: RlConfig, source: Source, share: int) -> Collected:
    """An environment's share of a batch. What a mixture has more of than it should is held against the next batch, so
    that over time the shares are exact; an environment whose refills are used up has less, and is owed nothing."""
    name = source.member.name
    if not name:
        return await collect(training, config, source, share)
    ahead = training.position.place(name).ahead
    try:
        collected = await collect(training, config, source, max(0, share - ahead))
    except TooManyFailures as error:
        raise TooManyFailures(f"in {name}, {error}") from error
    training.position.move(name, ahead=max(0, ahead + len(collected.used) - share))
    return collected


async def collect(training: Training, config: RlConfig, source: Source, wanted: int) -> Collected:
    """Run groups until `wanted` of them have rewards that differ, or the refills are used up.

    As many groups are started as will, at the rate of late, give what is missing: waves of stragglers waste the engine.
    A few more than asked for may come out, and are used.
    """
    collected, name = Collected([], []), source.member.name
    refilled = wanted * (1 + config.refill)
    most = math.ceil(refilled) if name else int(refilled)  # a mixture's small shares have a refill too
    while len(collected.used) < wanted and len(collected.groups) < most and not training.stopping:
        missing, place = wanted - len(collected.used), training.position.place(name)
        started = min(math.ceil(missing / place.useful_rate), most - len(collected.groups))
        wave = [source.tasks.at(place.tasks_used + i) for i in range(started)]
        training.position.move(name, tasks_used=place.tasks_used + started)
        async for group in source.scheduler.groups(wave, config.group_size):
            collected.groups.append(group)
            if has_variance(group, config, training.trained_roles):
                collected.used.append(group)
    if collected.groups:
        rate = len(collected.used) / len(collected.groups)
        before = training.position.place(name).useful_rate
        useful = max(LEAST_USEFUL, 0.8 * before + 0.2 * rate) if config.refill else 1.0
        training.position.move(name, useful_rate=useful)
    return collected


async def update(
    training: Training, config: RlConfig, sources: list[Source], collected: list[Collected]
) -> dict[str, float]:
    """Train on a batch; the row of metrics."""
    position = training.position
    groups, used = [g for own in collected for g in own.groups], [g for own in collected for g in own.used]
    row = figures_of(groups, used) if sources[0].member.name else {}
    for source, own in zip(sources, collected, strict=True):
        if own.groups or not source.member.name:
            row |= figures_of_member(training, source.member, own)
    position.tokens_sampled += int(row["tokens/sampled"])
    samples = make_samples(used, config, training.trained_roles)
    if not samples:
        return row | {"dead_batch": 1.0}
    lr = learning_rate(position.rl_steps, config.steps, config.lr, config.warmup, config.final_lr)
    optimizer = AdamW(lr=lr, weight_decay=config.weight_decay, max_grad_norm=config.max_grad_norm)
    parts = split_updates(samples, config.updates)
    sums: dict[str, list[float]] = {}
    for number, part in enumerate(parts):
        figures = await one_update(training, config, part, optimizer, first=number == 0)
        for name, value in figures.items():
            sums.setdefault(name, []).append(value)
    position.tokens_trained += sum(len(sample.sequence.tokens) for sample in samples)
    return row | {name: float(np.mean(values)) for name, values in sums.items()}


def figures_of(groups: list[Group], used: list[Group]) -> dict[str, float]:
    """What is to be known of groups that were run, and those of them that were used."""
    return diagnostics.of_rollouts(groups) | diagnostics.of_groups(groups, used)


def figures_of_member(training: Training, member: Member, own: Collected) -> dict[str, float]:
    """The same of one environment, and signs of reward hacking, under names that say which of a mixture it is."""
    figures = figures_of(own.groups, own.used) | signs_of(own.groups, independent_scorers(member.env))
    figures |= training.signs[member.name].see(figures)
    return {member.key(name): value for name, value in figures.items()}


async def one_update(
    training: Training, config: RlConfig, part: list[Sample], optimizer: AdamW, *, first: bool
) -> dict[str, float]:
    """Forward, backward and one optimiser step on a part of the batch."""
    trainer = training.engine.trainer
    result = await trainer.forward_backward(to_data(part, config.aggregate), Loss(config.loss, config.loss_params))
    stepped = await trainer.optim_step(optimizer)
    training.count_update(stepped)
    figures = {"loss": result.loss, **result.metrics, **stepped}
    if first:  # later parts are trained by weights that did not sample them
        version = training.position.step
        figures |= diagnostics.of_tokens(
            part, result.logprobs.astype(np.float64), result.entropies.astype(np.float64), version
        )
    return figures

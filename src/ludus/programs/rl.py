"""Reinforcement learning: sample groups, compare, step, publish, again.

Sampler and trainer share one set of weights here, so every batch is sampled by the weights that it trains: staleness 0.
The unit of the queue is the group.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from ludus.authoring.tasks import take
from ludus.programs import diagnostics
from ludus.programs.batch import Sample, has_variance, make_samples, split_updates, to_data
from ludus.programs.recipe import RlConfig
from ludus.programs.schedule import Shuffled, learning_rate
from ludus.programs.training import Training
from ludus.protocols import AdamW, Loss
from ludus.rollouts.scheduler import Group, Scheduler
from ludus.seeds import derive
from ludus.types import Task

LEAST_USEFUL = 0.2
"""However few groups have rewards that differ, a wave is at most five times what is missing."""


@dataclass
class Collected:
    """Groups run for one batch: all of them, and those whose rewards differ."""

    groups: list[Group]
    used: list[Group]


async def rl(training: Training, config: RlConfig) -> None:
    """Run RL from where it is to its end, evaluating on the way."""
    position, recipe = training.position, training.recipe
    if position.rl_steps >= config.steps or training.stopping:
        return
    if position.rl_steps == 0:  # moments of the warm-up's small gradients would make RL's first steps huge
        await training.engine.trainer.reset_optimizer()
    most = config.steps * config.groups * (1 + config.refill)
    tasks = Shuffled(take(training.env, "train", int(most) + 1), derive(recipe.seed, "rl"))
    limit = {} if config.max_tokens is None else {"max_tokens": config.max_tokens}
    plan = training.plan("train", "train", temperature=config.temperature, **limit)
    async with Scheduler(training.env, training.backends, plan, on_rollout=training.run.rollouts.append) as scheduler:
        training.watch(scheduler)
        every = recipe.eval.every if recipe.eval else 0
        while position.rl_steps < config.steps:
            if every and position.rl_steps and position.rl_steps % every == 0:
                await training.evaluate(f"step {position.rl_steps}", greedy=False)
                training.watch(scheduler)
            go_back, began = training.mark(), time.perf_counter()
            collected = await collect(training, config, scheduler, tasks)
            if training.stopping:
                go_back()
                return
            sampled = time.perf_counter()
            row = await update(training, config, collected)
            position.rl_steps += 1
            await training.publish()
            row |= {"time/sampling": sampled - began, "time/training": time.perf_counter() - sampled}
            row |= {"time/loop_lag_max": scheduler.lag.worst_s}
            training.log("rl", row)
            if position.rl_steps % recipe.save_every == 0 and not training.stopping:
                await training.save()


async def collect(training: Training, config: RlConfig, scheduler: Scheduler, tasks: Shuffled[Task]) -> Collected:
    """Run groups until enough of them have rewards that differ, or the refills are used up.

    As many groups are started as will, at the rate of late, give what is missing: waves of stragglers waste the engine.
    A few more than asked for may come out, and are used.
    """
    collected, position = Collected([], []), training.position
    most = int(config.groups * (1 + config.refill))
    while len(collected.used) < config.groups and len(collected.groups) < most and not training.stopping:
        missing = config.groups - len(collected.used)
        wanted = min(math.ceil(missing / position.useful_rate), most - len(collected.groups))
        wave = [tasks.at(position.tasks_used + i) for i in range(wanted)]
        position.tasks_used += wanted
        async for group in scheduler.groups(wave, config.group_size):
            collected.groups.append(group)
            if has_variance(group, config, training.trained_roles):
                collected.used.append(group)
    rate = len(collected.used) / max(1, len(collected.groups))
    position.useful_rate = max(LEAST_USEFUL, 0.8 * position.useful_rate + 0.2 * rate) if config.refill else 1.0
    return collected


async def update(training: Training, config: RlConfig, collected: Collected) -> dict[str, float]:
    """Train on a batch; the row of metrics."""
    position, success = training.position, training.env.success_reward
    row = diagnostics.of_rollouts(collected.groups, success)
    row |= diagnostics.of_groups(collected.groups, collected.used, success)
    position.tokens_sampled += int(row["tokens/sampled"])
    samples = make_samples(collected.used, config, training.trained_roles)
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

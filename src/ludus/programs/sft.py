"""Warm-up: the model learns to say what the environment's expert said, or the assistant in a file of conversations."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from ludus.authoring.tasks import take
from ludus.errors import UsageError
from ludus.programs.data.read import read_examples
from ludus.programs.members import Member
from ludus.programs.recipe import SftConfig
from ludus.programs.schedule import Mixed, Shuffled, Turns, learning_rate
from ludus.programs.training import Training
from ludus.protocols import AdamW, Datum, Loss
from ludus.rollouts.scheduler import Scheduler
from ludus.seeds import derive
from ludus.types import MAIN_ROLE, Message, Rollout

Demonstration = tuple[list[int], list[int]]
"""Token ids of a whole conversation, and a mask that is 1 on what the expert wrote."""


async def sft(training: Training, config: SftConfig) -> None:
    """Run the warm-up from where it is to its end."""
    position = training.position
    if position.sft_steps >= config.steps or training.stopping:
        return
    demonstrations = await make_all(training, config)
    if demonstrations is None:
        return
    while position.sft_steps < config.steps and not training.stopping:
        began = time.perf_counter()
        start = position.sft_steps * config.batch_size
        batch = [demonstrations.at(start + i)[0] for i in range(config.batch_size)]
        data = to_data(batch)
        lr = learning_rate(position.sft_steps, config.steps, config.lr, 0.05, 0.0)
        result = await training.engine.trainer.forward_backward(data, Loss("cross_entropy"))
        update = await training.engine.trainer.optim_step(AdamW(lr=lr, weight_decay=0.01))
        training.count_update(update)
        position.sft_steps += 1
        position.tokens_trained += sum(len(datum.tokens_T) for datum in data)
        training.log("sft", {"loss": result.loss, **update, "time/training": time.perf_counter() - began})
        if position.sft_steps % training.recipe.save_every == 0:
            await training.save()
    await training.publish()
    await training.save()


async def make_all(training: Training, config: SftConfig) -> Shuffled[Demonstration] | Mixed[Demonstration] | None:
    """The conversations of a file, or demonstrations of every environment that has an expert, by weight; None if it was
    stopped."""
    if config.data:
        return Shuffled(from_file(training, Path(config.data)), derive(training.recipe.seed, "sft"))
    members, seed = training.demonstrating, training.recipe.seed
    weights = [member.weight for member in members]
    numbers = Turns(weights).between(0, config.num_demonstrations)
    streams, go_back = [], training.mark()
    for member, number in zip(members, numbers, strict=True):
        made = await make_demonstrations(training, member, max(1, number))
        if training.stopping:
            go_back()
            return None
        streams.append(Shuffled(made, derive(seed, "sft", member.name) if member.name else derive(seed, "sft")))
    return Mixed(streams, weights) if members[0].name else streams[0]


async def make_demonstrations(training: Training, member: Member, number: int) -> list[Demonstration]:
    """Rollouts of the expert on training tasks, as tokens: one demonstration for each trained role.

    Raises:
        UsageError: none of its demonstrations was complete.
    """
    env = member.env
    tasks = take(env, "train", number)
    played: dict[str, Rollout] = {}
    plan = training.plan(member, "demonstration", "train")
    again = training.position.sft_steps > 0  # resumed: they are recorded already
    record = (lambda rollout: None) if again else training.run.rollouts.append
    async with Scheduler(env, training.demonstrators(), plan, on_rollout=record) as scheduler:
        training.watch(scheduler)
        async for group in scheduler.groups([(task, 0) for task in tasks], 1):
            played.update((rollout.task.id, rollout) for rollout in group.scored)
            training.note({"phase": member.purpose("demonstrations"), "done": len(played), "total": len(tasks)})
    if training.stopping:
        return []
    in_order = [played[task.id] for task in tasks if task.id in played]
    talks = [(talk, rollout.tools) for rollout in in_order for talk in talks_of(rollout, training.trained_roles)]
    if not talks:
        raise UsageError(f"no demonstration of {env.describe().id} could be completed (ludus env check says why)")
    return [training.renderer.demonstration(talk, tools) for talk, tools in talks]


def from_file(training: Training, path: Path) -> list[Demonstration]:
    """The conversations of a file, as tokens. Raises ConfigError for what is none."""
    return [training.renderer.demonstration(each.messages, each.tools or ()) for each in read_examples(path)]


def talks_of(rollout: Rollout, roles: Sequence[str]) -> list[list[Message]]:
    """What each of the roles saw and said; nothing of one that did not speak."""
    talks = (rollout.messages if role == MAIN_ROLE else rollout.conversation(role) for role in roles)
    return [talk for talk in talks if any(message["role"] == "assistant" for message in talk)]


def to_data(batch: list[Demonstration]) -> list[Datum]:
    """Data whose weights sum to 1 over all tokens that experts wrote."""
    total = sum(sum(mask) for _, mask in batch)
    return [Datum(tokens_T=ids, arrays={"weights": [m / total for m in mask]}) for ids, mask in batch]

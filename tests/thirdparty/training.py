"""Rollouts of a tiny random model in somebody's environment, and one step of training on their exact tokens."""

import numpy as np

from ludus.authoring.tasks import take
from ludus.programs.batch import Sample, to_data
from ludus.programs.diagnostics import of_tokens
from ludus.programs.evaluate import preferred_sampling
from ludus.programs.models import open_folder
from ludus.protocols import AdamW, Loss
from ludus.rollouts.scheduler import Plan, Scheduler
from ludus.types import MAIN_ROLE

NUM_TASKS, GROUP_SIZE = 2, 2
SAMPLING = {"temperature": 1.0, "max_tokens": 24, "stop": tuple("0123456789abcdefghijklmnopqrstuvwxyz")}
"""Random replies end by themselves only after hundreds of tokens; those cut off at a limit are not acted on."""


async def train_once(env, model, *, split="train", **plan):
    """Play two groups, and train on them.

    The random model's rewards are mostly equal, so all advantages are 1 instead: the step is about the tokens.

    Returns:
        The rollouts, none of which failed through the environment's fault.
    """
    opened = open_folder(model, "tiny", device="cpu", threads=1)
    try:
        rollouts = await _rollouts(env, opened.backend, split, plan)
        samples = [Sample(rollout, sequence, 1.0) for rollout in rollouts for sequence in rollout.sequences]
        await _step(opened.engine.trainer, samples)
    finally:
        opened.close()
    return rollouts


async def _rollouts(env, backend, split, plan):
    tasks = [(task, 0) for task in take(env, split, NUM_TASKS)]
    assert tasks, f"no tasks of the split {split}"
    sampling = preferred_sampling(env, SAMPLING)
    settings = Plan(**{"split": split, "sampling": sampling, "max_retries": 0, "timeout_s": 120.0, **plan})
    async with Scheduler(env, {MAIN_ROLE: backend}, settings) as scheduler:
        groups = [group async for group in scheduler.groups(tasks, GROUP_SIZE)]
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    assert len(rollouts) == len(tasks) * GROUP_SIZE
    for rollout in rollouts:
        assert not rollout.excluded, rollout.failure
        assert sum(s.num_sampled for s in rollout.sequences) == sum(c.usage.completion_tokens for c in rollout.calls)
        assert np.isfinite(rollout.reward)
    return rollouts


async def _step(trainer, samples):
    before = await trainer.weights_hash()
    result = await trainer.forward_backward(to_data(samples, "token"), Loss("ppo"))
    agreement = of_tokens(samples, result.logprobs.astype(np.float64), result.entropies.astype(np.float64), 0)
    assert agreement["mismatch/max"] < 1e-3  # what was sampled is what is trained on
    stepped = await trainer.optim_step(AdamW(lr=1e-3))
    assert stepped["grad_norm"] > 0 and await trainer.weights_hash() != before

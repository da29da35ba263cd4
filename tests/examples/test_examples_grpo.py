"""The readable twin says what the package does: the same rollouts give the same loss and gradients."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch

import ludus
from ludus.engine.torch.attention import PackedAttention
from ludus.engine.torch.engine import TorchEngine
from ludus.engine.torch.folder import load_decoder
from ludus.engine.torch.presets import init_model
from ludus.programs.batch import has_variance, make_samples, to_data
from ludus.programs.recipe import RlConfig
from ludus.protocols import AdamW, Loss, WeightsRef
from ludus.recording.backend import TokenBackend
from ludus.renderers.chat import ChatRenderer
from ludus.rollouts.scheduler import Plan, Scheduler
from ludus.types import MAIN_ROLE, Sampling

FILE = Path(__file__).parents[2] / "examples" / "grpo_in_one_file.py"
TEMPERATURE = 6.0  # random weights are nearly sure of themselves; the replies have to differ


class Chatter(ludus.Environment):
    """Rollouts of unequal lengths and turns, with rewards that differ within most groups."""

    max_turns = 3
    sampling = {"max_tokens": 5}

    def tasks(self, split):
        return [ludus.Task(prompt=f"Say {'even ' * n}things", id=f"chat-{n}") for n in range(6)]

    async def run(self, ctx):
        """Reply again, and let the replies' own length decide how often."""
        messages = self.opening(ctx.task)
        for _ in range(self.max_turns):
            reply = await ctx.model.chat(messages)
            messages += [reply.message, {"role": "user", "content": "and?"}]
            if len(reply.text) % 2:
                return

    @ludus.reward
    def long(self, task, rollout):
        return 1.0 if task.id == "chat-0" else len(rollout.reply) % 3 / 2


def load_twin():
    spec = importlib.util.spec_from_file_location("grpo_in_one_file", FILE)
    twin = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = twin  # dataclasses look themselves up there
    spec.loader.exec_module(twin)
    return twin


@pytest.fixture(scope="module")
def twin():
    return load_twin()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grpo") / "tiny"
    init_model(folder, "tiny", seed=1)
    return folder


async def sample_groups(engine, folder):
    backend = TokenBackend("tiny", engine.sampler, ChatRenderer.from_folder(folder))
    env = Chatter()
    plan = Plan(
        purpose="train", split="train", sampling=Sampling(temperature=TEMPERATURE, max_tokens=5), deterministic=True
    )
    async with Scheduler(env, {MAIN_ROLE: backend}, plan) as scheduler:
        return [group async for group in scheduler.groups([(task, 0) for task in env.tasks("train")], 4)]


def as_twin(twin, groups):
    """The package's rollouts in the file's own type."""
    return [
        [
            twin.Rollout(s.tokens, s.sampled_mask, s.logprobs, rollout.reward)
            for rollout in group.scored
            for s in rollout.sequences
        ]
        for group in groups
    ]


def policy_of(decoder):
    """The package's decoder behind the file's interface."""

    def policy(tokens_T, lengths):
        positions_T = torch.cat([torch.arange(length) for length in lengths])
        return decoder.logits(decoder(tokens_T, positions_T, PackedAttention(lengths)))

    return policy


def gradients(decoder):
    return {name: view.clone() for name, view in decoder.flat.views(decoder.flat.gradients_N)}


async def test_loss_and_gradients_are_those_of_the_package(twin, folder):
    """On the batch that was just sampled, and again after a step has moved the policy into the clip."""
    config, engine = RlConfig(advantage="grpo"), TorchEngine(folder, device="cpu", threads=1)
    try:
        groups = await sample_groups(engine, folder)
        used = [group for group in groups if has_variance(group, config, [MAIN_ROLE])]
        assert 2 <= len(used) < len(groups), "some groups must teach, and one must not"
        samples = make_samples(used, config, [MAIN_ROLE])
        assert len({len(sample.sequence.tokens) for sample in samples}) > 3
        batch = twin.make_batch(as_twin(twin, groups))
        clipped = []
        for lr in (1e-3, 0.0):
            result = await engine.trainer.forward_backward(
                to_data(samples, config.aggregate), Loss(config.loss, config.loss_params)
            )
            theirs = load_decoder(folder)
            theirs.load_state_dict(engine.decoder.state_dict())
            theirs.flat.zero_gradients()
            loss = twin.grpo_loss(policy_of(theirs), batch, TEMPERATURE)
            loss.backward()
            assert loss.item() == pytest.approx(result.loss, abs=1e-5)
            for (name, ours), other in zip(gradients(engine.decoder).items(), gradients(theirs).values(), strict=True):
                torch.testing.assert_close(other, ours, atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
            assert any(gradient.abs().max() > 1e-3 for gradient in gradients(theirs).values())
            clipped.append(result.metrics["clip_fraction_positive"] + result.metrics["clip_fraction_negative"])
            await engine.trainer.optim_step(AdamW(lr=lr))
            await engine.publish(WeightsRef())
        assert clipped[0] == 0 < clipped[1]
    finally:
        engine.close()


def test_advantages_are_those_of_the_package(twin):
    from ludus.programs.advantages import ADVANTAGES

    rewards_G = torch.tensor([0.0, 1.0, 0.25, 1.0], dtype=torch.float64)
    ours = ADVANTAGES["grpo"](rewards_G.numpy())
    assert twin.group_advantages(rewards_G).tolist() == pytest.approx(ours.tolist(), rel=1e-12)


@pytest.mark.slow
def test_it_learns(twin, capsys):
    history = twin.main(steps=60, groups=8)
    assert sum(history[-5:]) / 5 > 2 * sum(history[:5]) / 5 > 0
    assert "step  40  reward" in capsys.readouterr().out

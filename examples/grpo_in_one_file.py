"""GRPO in one file: everything between rewards and new weights, in the order in which it happens.

    python examples/grpo_in_one_file.py

One step of reinforcement learning on a language model is: sample a group of replies to the same prompt, score them,
ask of each how much better than its siblings it was (the advantage), make the tokens of the better ones more likely
and those of the others less, by no more than a trust region allows, and sample again with the new weights.

This is what Ludus does with `advantage = "grpo"` and its other defaults, without the speed: a test feeds recorded
rollouts to both and compares loss and gradients. Left out is what the mathematics doesn't need: caches, chat
templates, tools, failures.

Shape suffixes: _G rollouts of a group, _T packed tokens, _V vocabulary, _D features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLIP_LOW, CLIP_HIGH = 0.2, 0.28  # the trust region: ratios outside of [0.8, 1.28] earn nothing more
STD_EPSILON = 1e-4

Policy = Callable[[Tensor, list[int]], Tensor]
"""Packed tokens [T] and the lengths of their sequences -> logits [T, V] for the token after each."""


# --- 1. rollouts ----------------------------------------------------------------------------------------------------


@dataclass
class Rollout:
    """One attempt: what was said by anybody, and which of it the policy sampled, with what probability.

    A conversation of several turns is one such sequence too: its mask then has several stretches of ones.
    """

    tokens: list[int]
    mask: list[int]
    """1 where the policy sampled the token; only those are trained on."""
    logprobs: list[float]
    """Of sampled tokens, at the moment of sampling; 0 elsewhere."""
    reward: float = 0.0


@torch.no_grad()
def sample(policy: Policy, prompts: Sequence[list[int]], end: int, most: int, temperature: float) -> list[Rollout]:
    """Continue prompts of equal length, token by token, until `end` or `most` tokens."""
    rollouts = [Rollout(list(p), [0] * len(p), [0.0] * len(p)) for p in prompts]
    running = rollouts
    for _ in range(most):
        length = len(running[0].tokens)  # all that run are equally long
        packed_T = torch.tensor([token for rollout in running for token in rollout.tokens])
        logits_TV = policy(packed_T, [length] * len(running))[length - 1 :: length]  # at each sequence's last token
        logprobs_TV = (logits_TV / temperature).log_softmax(-1)
        drawn_T = torch.multinomial(logprobs_TV.exp(), 1)
        for rollout, token, logprob in zip(running, drawn_T, logprobs_TV.gather(1, drawn_T), strict=True):
            rollout.tokens.append(int(token))
            rollout.mask.append(1)
            rollout.logprobs.append(float(logprob))
        running = [rollout for rollout in running if rollout.tokens[-1] != end]
        if not running:
            break
    return rollouts


# --- 2. advantages --------------------------------------------------------------------------------------------------


def group_advantages(rewards_G: Tensor) -> Tensor:
    """(r - mean(r)) / (std(r) + 1e-4), with the sample's standard deviation (GRPO, arXiv:2402.03300).

    The mean of the siblings stands in for a learned value function: how good is this prompt's usual reply? The division
    gives prompts that are nearly always (or never) solved the loudest voice; Dr. GRPO (2503.20783) leaves it out.
    """
    return (rewards_G - rewards_G.mean()) / (rewards_G.std(correction=1) + STD_EPSILON)


# --- 3. one batch, packed -------------------------------------------------------------------------------------------


@dataclass
class Batch:
    """All sequences end to end: no padding, whatever their lengths. Arrays have shape [T]."""

    lengths: list[int]
    tokens_T: Tensor
    weights_T: Tensor
    """1 / (sampled tokens of the whole batch) on sampled tokens, 0 elsewhere: sums over it are means over tokens."""
    advantages_T: Tensor
    """Every sampled token of a rollout shares its advantage."""
    logprobs_T: Tensor
    """Of the policy that sampled."""


def make_batch(groups: Sequence[Sequence[Rollout]]) -> Batch:
    """Pack groups of rollouts. Groups whose rewards are all equal teach nothing, and are left out of the mean too."""
    kept: list[tuple[Rollout, float]] = []
    for group in groups:
        rewards_G = torch.tensor([rollout.reward for rollout in group], dtype=torch.float64)
        if rewards_G.min() < rewards_G.max():
            kept += zip(group, group_advantages(rewards_G).tolist(), strict=True)
    num_sampled = sum(sum(rollout.mask) for rollout, _ in kept)
    return Batch(
        lengths=[len(rollout.tokens) for rollout, _ in kept],
        tokens_T=torch.tensor([token for rollout, _ in kept for token in rollout.tokens], dtype=torch.long),
        weights_T=torch.tensor([m / num_sampled for rollout, _ in kept for m in rollout.mask]),
        advantages_T=torch.tensor([advantage * m for rollout, advantage in kept for m in rollout.mask]),
        logprobs_T=torch.tensor([logprob for rollout, _ in kept for logprob in rollout.logprobs]),
    )


# --- 4. the loss ----------------------------------------------------------------------------------------------------


def token_logprobs(policy: Policy, batch: Batch, temperature: float) -> Tensor:
    """Log-probability of every token given those before it, at the temperature it was sampled at. Shape [T].

    The first token of a sequence gets a number without meaning; nobody sampled it, so its weight is 0.
    """
    logits_TV = policy(batch.tokens_T, batch.lengths) / temperature
    logprobs_T = logits_TV.log_softmax(-1)[:-1].gather(1, batch.tokens_T[1:, None])[:, 0]  # token t from logits t - 1
    return torch.cat([logprobs_T.new_zeros(1), logprobs_T])


def ppo_loss(logprobs_T: Tensor, batch: Batch) -> Tensor:
    """-min(r A, clip(r, 0.8, 1.28) A), r = p_new / p_old (PPO, arXiv:1707.06347, eq. 7; clip-higher: DAPO, 2503.14476).

    On the first step r = 1, and the gradient is the plain policy gradient A * grad log p. Later, a token with A > 0
    that has become 28 % likelier, or one with A < 0 that has become 20 % less likely, stops pulling.
    """
    ratio_T = (logprobs_T - batch.logprobs_T).exp()
    clipped_T = ratio_T.clamp(1 - CLIP_LOW, 1 + CLIP_HIGH)
    objective_T = torch.minimum(ratio_T * batch.advantages_T, clipped_T * batch.advantages_T)
    return -(batch.weights_T * objective_T).sum()


def grpo_loss(policy: Policy, batch: Batch, temperature: float = 1.0) -> Tensor:
    """The loss of a batch: a scalar whose gradient is the step's."""
    return ppo_loss(token_logprobs(policy, batch, temperature), batch)


# --- 5. a policy and a task small enough to watch -------------------------------------------------------------------

END, LETTERS = 0, range(1, 8)
LENGTH, MOST, TEMPERATURE = 3, 8, 1.0


class TinyTransformer(nn.Module):
    """One layer, one head, positions learned."""

    def __init__(self, vocabulary: int = 8, features: int = 64) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, features)
        self.positions = nn.Embedding(LENGTH + MOST, features)
        self.qkv = nn.Linear(features, 3 * features)
        self.mlp = nn.Sequential(nn.Linear(features, 4 * features), nn.GELU(), nn.Linear(4 * features, features))
        self.head = nn.Linear(features, vocabulary)

    def forward(self, tokens_T: Tensor, lengths: list[int]) -> Tensor:
        """Logits [T, V]: a token sees those before it in its own sequence, and nothing of the others in the pack."""
        position_T = torch.cat([torch.arange(length) for length in lengths])
        sequence_T = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
        sees_TT = (sequence_T[:, None] == sequence_T) & (position_T[:, None] >= position_T)
        x_TD = self.tokens(tokens_T) + self.positions(position_T)
        q_TD, k_TD, v_TD = self.qkv(x_TD)[None].chunk(3, dim=-1)
        x_TD = x_TD + F.scaled_dot_product_attention(q_TD, k_TD, v_TD, attn_mask=sees_TT)[0]
        logits_TV: Tensor = self.head(x_TD + self.mlp(x_TD))
        return logits_TV


def reward(prompt: list[int], reply: list[int]) -> float:
    """Asked for are the prompt's letters backwards, then the end. The share of places that are right."""
    wanted = [*reversed(prompt), END]
    right = sum(said == asked for said, asked in zip(reply, wanted, strict=False))
    return right / max(len(reply), len(wanted))


def main(steps: int = 150, groups: int = 16, group_size: int = 8, seed: int = 0) -> list[float]:
    """Learn to say three letters backwards; returns the mean reward of every step."""
    torch.manual_seed(seed)
    policy = TinyTransformer()
    optimizer = torch.optim.AdamW(policy.parameters(), lr=2e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)
    history: list[float] = []
    for step in range(steps):
        letters = torch.randint(LETTERS.start, LETTERS.stop, (groups, LENGTH)).tolist()
        prompts = [prompt for prompt in letters for _ in range(group_size)]
        rollouts = sample(policy, prompts, END, MOST, TEMPERATURE)
        for prompt, rollout in zip(prompts, rollouts, strict=True):
            rollout.reward = reward(prompt, rollout.tokens[len(prompt) :])
        history.append(sum(rollout.reward for rollout in rollouts) / len(rollouts))
        if step % 20 == 0 or step == steps - 1:
            print(f"step {step:3d}  reward {history[-1]:.2f}")
        batch = make_batch([rollouts[i : i + group_size] for i in range(0, len(rollouts), group_size)])
        if batch.lengths:  # else every group agrees: nothing to learn from
            optimizer.zero_grad()
            grpo_loss(policy, batch, TEMPERATURE).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
            optimizer.step()
    return history


if __name__ == "__main__":
    torch.set_num_threads(1)  # a model this small is slower on more
    main()

"""What a step of RL says about its own health: pure functions of rollouts and of per-token arrays.

Each figure belongs to a known way of failing: entropy (collapse), mismatch (sampler and trainer disagree), effective
sample size (few tokens carry the gradient), zero-variance groups (dead batch), lengths of right and wrong (length hack),
truncation, repetition, forks (tokenisation drift), exclusions (environment faults), staleness.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ludus.programs.batch import Sample
from ludus.rollouts.scheduler import Group
from ludus.types import MAIN_ROLE, Call, Rollout

Array = NDArray[np.float64]
REPEAT_N = 8
"""Length of the token n-grams whose repetition is counted."""


def of_rollouts(groups: Sequence[Group]) -> dict[str, float]:
    """Rewards, lengths and faults of everything that was run for a batch, dropped groups included."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    scored = [rollout for group in groups for rollout in group.scored]
    rewards = np.array([rollout.reward for rollout in scored])
    lengths = np.array([_num_sampled(rollout) for rollout in scored], dtype=float)
    right = np.array([r.reward >= group.success_reward for group in groups for r in group.scored], dtype=bool)
    means = {"": np.ones_like(right), "_right": right, "_wrong": ~right}
    row = {f"length/mean{name}": _mean(lengths[mask]) for name, mask in means.items()}
    row |= {
        "reward/mean": _mean(rewards),
        "reward/std": float(rewards.std()) if len(rewards) else float("nan"),
        "success": _mean(right.astype(float)),
        "turns/mean": _mean(np.array([rollout.num_turns for rollout in scored], dtype=float)),
        "truncated": _share(scored, lambda r: r.truncated),
        "no_stop": _share(scored, lambda r: any(c.finish_reason == "length" for c in _own_calls(r)[-1:])),
        "failed": _share(scored, lambda r: r.failure is not None),
        "malformed_calls": _share(scored, lambda r: any(c.malformed for c in r.calls)),
        "excluded": _share(rollouts, lambda r: r.excluded),
        "forks": _mean(np.array([_num_forks(r) for r in scored], dtype=float)),
        "repetition": _mean(np.array([repetition(_sampled(r)) for r in scored])),
        "tokens/sampled": float(sum(s.num_sampled for r in scored for s in r.sequences)),
        "tokens/others": float(
            sum(_num_tokens(c) for r in rollouts for c in (*r.calls, *r.group_calls) if c.role != MAIN_ROLE)
        ),
    }
    for name in sorted({name for rollout in scored for name in rollout.metrics}):
        row[f"metric/{name}"] = _mean(np.array([r.metrics[name] for r in scored if name in r.metrics]))
    return row


def of_groups(groups: Sequence[Group], used: Sequence[Group]) -> dict[str, float]:
    """How many groups teach something, why the others don't, and how varied replies to one task are."""
    scored = [group for group in groups if group.scored]
    flat = [group for group in scored if len({rollout.reward for rollout in group.scored}) == 1]
    right = sum(group.scored[0].reward >= group.success_reward for group in flat)
    distinct = [len({_transcript(r) for r in g.scored}) / len(g.scored) for g in scored]
    return {
        "groups/run": float(len(groups)),
        "groups/used": float(len(used)),
        "groups/all_right": right / max(1, len(scored)),
        "groups/all_wrong": (len(flat) - right) / max(1, len(scored)),
        "groups/distinct": _mean(np.array(distinct)),
    }


def of_tokens(samples: Sequence[Sample], logprobs: Array, entropies: Array, version: int) -> dict[str, float]:
    """Agreement between sampler and trainer before the first update, entropy and staleness.

    Args:
        samples: in the order of the trained tokens.
        logprobs: the trainer's, one per trained token, shape [N].
        entropies: likewise, in nats.
        version: of the weights being trained.
    """
    sampled = np.concatenate([_of_sampled(s, s.sequence.logprobs) for s in samples])
    staleness = version - np.concatenate([_of_sampled(s, s.sequence.versions) for s in samples])
    delta = logprobs - sampled
    ratio = np.exp(np.clip(delta, -20, 20))
    ends = np.cumsum([s.sequence.num_sampled for s in samples])[:-1]
    sequence_ratio = np.exp(np.clip([part.sum() for part in np.split(delta, ends)], -20, 20))
    return {
        "entropy": _mean(entropies),
        "entropy/p10": float(np.quantile(entropies, 0.1)),
        "mismatch/mean": _mean(np.abs(delta)),
        "mismatch/max": float(np.abs(delta).max()),
        "mismatch/kl": _mean(ratio - delta - 1),
        "mismatch/outside": _mean(((ratio < 0.5) | (ratio > 2)).astype(float)),
        "ess/token": effective_sample_size(ratio),
        "ess/sequence": effective_sample_size(sequence_ratio),
        "staleness/mean": _mean(staleness),
        "staleness/max": float(staleness.max()),
    }


def effective_sample_size(weights: Array) -> float:
    """(sum w)^2 / sum w^2 / n, in (0, 1].

    >>> effective_sample_size(np.ones(4))
    1.0
    """
    return float(weights.sum() ** 2 / (weights**2).sum() / len(weights))


def repetition(tokens: Sequence[int]) -> float:
    """Share of a text's n-grams (n = 8) that occurred in it before.

    >>> repetition([1] * 16) > 0.8, repetition(list(range(16)))
    (True, 0.0)
    """
    grams = [tuple(tokens[i : i + REPEAT_N]) for i in range(len(tokens) - REPEAT_N + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _of_sampled(sample: Sample, values: Sequence[float]) -> Array:
    return np.array([v for v, m in zip(values, sample.sequence.sampled_mask, strict=True) if m], dtype=float)


def _sampled(rollout: Rollout) -> list[int]:
    return [
        token
        for sequence in rollout.sequences
        if sequence.role == MAIN_ROLE
        for token, m in zip(sequence.tokens, sequence.sampled_mask, strict=True)
        if m
    ]


def _num_sampled(rollout: Rollout) -> int:
    return sum(sequence.num_sampled for sequence in rollout.sequences if sequence.role == MAIN_ROLE)


def _num_tokens(call: Call) -> int:
    return call.usage.prompt_tokens + call.usage.completion_tokens


def _num_forks(rollout: Rollout) -> int:
    """Sequences beyond the first of each role, as `Recorder.num_forks`."""
    return len(rollout.sequences) - len({sequence.role for sequence in rollout.sequences})


def _own_calls(rollout: Rollout) -> list[Call]:
    """Those of the main role: what others said, a judge last of all, is not the policy's."""
    return [call for call in rollout.calls if call.role == MAIN_ROLE]


def _transcript(rollout: Rollout) -> tuple[str, ...]:
    return tuple(call.reply.get("content") or "" for call in _own_calls(rollout))


def _share(rollouts: Sequence[Rollout], holds: Any) -> float:
    return sum(bool(holds(rollout)) for rollout in rollouts) / len(rollouts) if rollouts else float("nan")


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else float("nan")

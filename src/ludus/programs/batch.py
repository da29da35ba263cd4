"""From groups of rollouts to training data: advantages, per-token weights, and the normaliser of the whole batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ludus.errors import ConfigError
from ludus.programs.advantages import ADVANTAGES
from ludus.programs.recipe import RlConfig
from ludus.protocols import Datum
from ludus.rollouts.scheduler import Group
from ludus.types import Rollout
from ludus.types import Sequence as TokenSequence


@dataclass(frozen=True)
class Sample:
    """One sequence to train on, with its rollout and the advantage that all its sampled tokens share."""

    rollout: Rollout
    sequence: TokenSequence
    advantage: float


def has_variance(group: Group, config: RlConfig, roles: Sequence[str]) -> bool:
    """Whether any trained role's rewards differ within the group: otherwise it carries no gradient."""
    return any(len(set(_trained_rewards(group, config, role).tolist())) > 1 for role in roles)


def make_samples(groups: Sequence[Group], config: RlConfig, roles: Sequence[str]) -> list[Sample]:
    """Advantages of each (task, role) group, spread over the sequences of its rollouts.

    Raises:
        ConfigError: a sequence was sampled with top-p, top-k or temperature 0, so that its log-probabilities are not
            those of a distribution that training could raise or lower.
    """
    samples: list[Sample] = []
    for group in groups:
        for role in roles:
            rewards_G = _trained_rewards(group, config, role)
            if len(set(rewards_G.tolist())) < 2:
                continue
            for rollout, advantage in zip(group.scored, ADVANTAGES[config.advantage](rewards_G), strict=True):
                if config.truncated == "mask" and _is_cut(rollout, role):
                    continue
                for sequence in rollout.sequences:
                    if sequence.role == role:
                        check_trainable(sequence.truncated_sampling, sequence.temperature)
                        samples.append(Sample(rollout, sequence, float(advantage)))
    return samples


def to_data(samples: Sequence[Sample], aggregate: str) -> list[Datum]:
    """Data of one optimiser step. Weights sum to 1 over all its trained tokens, so summed losses are means.

    Args:
        samples: everything that the step trains on.
        aggregate: "token": every sampled token weighs the same; "rollout": every rollout does, however many tokens and
            sequences it has.
    """
    totals: dict[str, int] = {}
    for sample in samples:
        totals[sample.rollout.id] = totals.get(sample.rollout.id, 0) + sample.sequence.num_sampled
    all_tokens = sum(totals.values())

    def weight(sample: Sample) -> float:
        return 1 / all_tokens if aggregate == "token" else 1 / (len(totals) * totals[sample.rollout.id])

    return [_datum(sample, weight(sample)) for sample in samples]


def split_updates(samples: list[Sample], updates: int) -> list[list[Sample]]:
    """Cut a batch into `updates` parts of whole rollouts, each holding a slice of every group."""
    by_rollout: dict[str, list[Sample]] = {}
    for sample in samples:
        by_rollout.setdefault(sample.rollout.id, []).append(sample)
    parts: list[list[Sample]] = [[] for _ in range(updates)]
    for index, held in enumerate(by_rollout.values()):
        parts[index % updates] += held
    return [part for part in parts if part]


def _trained_rewards(group: Group, config: RlConfig, role: str) -> np.ndarray:
    """Rewards [G] as advantages see them: what the environment gave, but for replies cut off under "zero"."""
    zero = config.truncated == "zero"
    return np.array([0.0 if zero and _is_cut(rollout, role) else rollout.role_reward(role) for rollout in group.scored])


def _is_cut(rollout: Rollout, role: str) -> bool:
    """Whether a reply of the role hit its token limit."""
    return any(call.role == role and call.finish_reason == "length" for call in rollout.calls)


def _datum(sample: Sample, weight: float) -> Datum:
    sequence, mask = sample.sequence, sample.sequence.sampled_mask
    return Datum(
        tokens_T=sequence.tokens,
        arrays={
            "weights": [weight * m for m in mask],
            "advantages": [sample.advantage * m for m in mask],
            "logprobs": sequence.logprobs,
        },
        temperature=sequence.temperature,
        routing=sequence.routing,
    )


def check_trainable(truncated_sampling: bool, temperature: float) -> None:
    """Raises ConfigError where log-probabilities are not those of a distribution that training could move."""
    if truncated_sampling:
        raise ConfigError(
            "rollouts sampled with top_p < 1 or top_k > 0 can't be trained on: the kept tokens were not recorded, so the "
            "trainer can't compute the same probabilities; leave top_p and top_k out of the environment's sampling"
        )
    if temperature <= 0:
        raise ConfigError(
            "rollouts sampled at temperature 0 can't be trained on: every log-probability is of a sure thing"
        )

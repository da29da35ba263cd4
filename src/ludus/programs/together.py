"""Evaluations of several environments as one: the mean that a mixture of them is expected to have.

Means and shares are those of a task drawn by weight; counts, tokens, cost and time are sums. The environments' tasks
are independent samples, so the variances of their means add up. What cannot be put together from summaries, quantiles
and metrics or pass@k that one of them lacks, is left out; each environment's own result has it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ludus.programs.evaluate import Evaluation
from ludus.programs.statistics import Estimate

TOGETHER = "together"


class Together(Evaluation, kw_only=True):
    """What evaluations of several environments found, and what each of them did."""

    envs: dict[str, Evaluation]

    def to_dict(self) -> dict[str, Any]:
        """Plain values; NaN becomes None."""
        return {**super().to_dict(), "envs": {name: found.to_dict() for name, found in self.envs.items()}}


def together(found: Mapping[str, Evaluation], weights: Sequence[float] | None = None) -> Together:
    """Put evaluations of one model together.

    Args:
        found: by the environment's name, at least one.
        weights: of each, in that order; by default they count the same.
    """
    parts = list(found.values())
    total = sum(weights or [1.0] * len(parts))
    shares = [weight / total for weight in weights or [1.0] * len(parts)]

    def mean(value: Callable[[Evaluation], float]) -> float:
        return sum(share * value(part) for share, part in zip(shares, parts, strict=True))

    def means(values: Callable[[Evaluation], dict[str, float]]) -> dict[str, float]:
        common = [key for key in values(parts[0]) if all(key in values(part) for part in parts)]
        pairs = list(zip(shares, parts, strict=True))
        return {key: sum(share * values(part)[key] for share, part in pairs) for key in common}

    num_tasks = sum(part.num_tasks for part in parts)
    se = math.sqrt(sum((share * part.se) ** 2 for share, part in zip(shares, parts, strict=True)))
    estimate = Estimate(mean(lambda part: part.mean), se, num_tasks - len(parts) + 1)
    return Together(
        env=TOGETHER, model=parts[0].model, split=parts[0].split, samples=parts[0].samples, num_tasks=num_tasks,
        mean=estimate.mean, se=se, interval=estimate.interval(),
        bounds=(mean(lambda part: part.bounds[0]), mean(lambda part: part.bounds[1])),
        pass_at=means(lambda part: part.pass_at), pass_hat=means(lambda part: part.pass_hat),
        metrics=means(lambda part: part.metrics),
        num_excluded=sum(part.num_excluded for part in parts), num_retried=sum(part.num_retried for part in parts),
        excluded_rate=mean(lambda part: part.excluded_rate), failed_rate=mean(lambda part: part.failed_rate),
        truncated_rate=mean(lambda part: part.truncated_rate),
        tokens={key: sum(part.tokens[key] for part in parts) for key in parts[0].tokens},
        cost=sum(part.cost for part in parts), latency_s={}, seconds=sum(part.seconds for part in parts),
        stopped="; ".join(f"{name}: {part.stopped}" for name, part in found.items() if part.stopped),
        sandboxes=sorted({tier for part in parts for tier in part.sandboxes}), envs=dict(found),
        waited_s=mean(lambda part: part.waited_s),
    )  # fmt: skip

"""The rollouts of an evaluation as a comparison of models needs them: right or wrong, their cost, their time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ludus.programs.compare import chosen_purpose, success_reward
from ludus.programs.latency import answer_s, waited_s, working_s
from ludus.programs.members import AT
from ludus.store import RolloutIndex, RunFolder
from ludus.types import MAIN_ROLE, EnvironmentRef, Rollout, Usage


@dataclass(frozen=True)
class Trial:
    """One rollout."""

    task: str
    right: bool
    reward: float
    usage: Usage
    """Of the model itself, its sub-agents included."""
    other_cost: float
    """Dollars of other roles, such as a judge or a simulated user."""
    span: tuple[float, float]
    """When it ran, seconds since the epoch."""
    seconds: float
    """From setup to the last scorer, without waiting."""
    answer_s: float | None
    """From the model's first call to the end of its last, without waiting."""
    waited_s: float
    cached: bool
    """Whether a reply of the model was known already: its cost and its time then say nothing."""
    local: bool
    """Whether the model's tokens are known, because it ran here."""


@dataclass(frozen=True)
class Evaluated:
    """One model in one environment."""

    run: Path
    model: str
    env: EnvironmentRef
    split: str
    trials: list[Trial]
    num_excluded: int
    num_retried: int
    stopped: str
    """Why it ended early, if it did."""
    concurrency: int
    """How many rollouts ran at once; 0 where that is not known."""
    price: tuple[float, float] | None
    """Dollars per million tokens that its recorded costs are of, as far as is known."""


def read(run: Path) -> list[Evaluated]:
    """The last finished evaluation of a run folder: of a mixture, one for each environment.

    Raises:
        RunFolderError: not a run folder, or a damaged one.
        UsageError: it holds no finished evaluation.
    """
    with RunFolder.open(run) as folder, RolloutIndex(run) as index:
        known = {summary.purpose: summary for summary in index.purposes()}
        purpose = chosen_purpose(folder, [name.partition(AT)[0] for name in known])
        result, success = folder.read_result() or {}, success_reward(folder)
        return [
            _evaluated(run, index, name, result, success, known[name].num_retried)
            for name in known
            if name.partition(AT)[0] == purpose
        ]


def _evaluated(
    run: Path, index: RolloutIndex, purpose: str, result: dict[str, Any], success: float, num_retried: int
) -> Evaluated:
    rows = index.query(purpose=purpose, last_attempts=True)
    first = index.get(rows[0].id)
    price = result.get("price")
    return Evaluated(
        run=run, model=first.model, env=first.environment, split=first.split,
        trials=list(_trials(index, [row.id for row in rows if not row.excluded], success)),
        num_excluded=sum(row.excluded for row in rows), num_retried=num_retried,
        stopped=str(result.get("stopped") or ""), concurrency=int(result.get("concurrency") or 0),
        price=(float(price[0]), float(price[1])) if price else None,
    )  # fmt: skip


def _trials(index: RolloutIndex, ids: list[str], success: float) -> Iterator[Trial]:
    for name in ids:
        yield trial(index.get(name), success)


def trial(rollout: Rollout, success: float) -> Trial:
    """What is needed of a rollout.

    Args:
        success: the reward from which it is right.
    """
    own = [call for call in rollout.calls if call.role == MAIN_ROLE]
    usage = sum((call.usage for call in own), Usage())
    return Trial(
        task=rollout.task.id, right=rollout.reward >= success, reward=rollout.reward, usage=usage,
        other_cost=rollout.usage.cost - usage.cost, span=(rollout.started, rollout.started + rollout.seconds),
        seconds=working_s(rollout), answer_s=answer_s(rollout), waited_s=waited_s(rollout.calls),
        cached=any(call.cached for call in own), local=any(call.sequence is not None for call in own),
    )  # fmt: skip

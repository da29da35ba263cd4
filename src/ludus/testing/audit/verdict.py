"""From what strategies earned to a verdict. Pure functions of rewards; the rules stand in docs/audit.md.

A hole is a strategy that does no task and earns

- no clearly less than honest play ("guess" and "blind"), or
- at least a third of the way from chance to honest play ("blind" and "leak"), or
- clearly more than honest play, by adding something worthless to it ("added").
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ludus.display.table import align
from ludus.testing.audit.policy import Rule, Strategy, prompt_of
from ludus.testing.playing import failures
from ludus.testing.scripted import is_answer
from ludus.types import Message, Rollout

MARGIN = 0.1
"""What counts as clearly more or less: so much of the success reward, or:"""
CLEAR = 2.0
"""so many standard errors."""
MOST_OF = 3 / 4
"""The part of a success that no single guess may be worth, clearly more than the half that one of two answers is."""
SAYS_NOTHING = "does not know"
PART = 1 / 3
"""The part of the way from chance to honest play that is a hole."""
NOTHING = "nothing could be played"
SHOWN_HOLES, SHOWN = 12, 8
"""Rows of a table: attacks that are holes, and others."""


@dataclass(frozen=True)
class Line:
    """What one strategy earned."""

    name: str
    rule: Rule
    rewards: Mapping[str, float]
    """By task."""
    undeserved: Mapping[str, float]
    """Those of tasks that it did not do."""
    num_successes: int
    """Of undeserved ones."""
    num_excluded: int
    """Rollouts that failed through no fault of the policy."""
    num_late: int = 0
    """Of these, for want of time: the audit has less of it than programs, so that says nothing."""
    example: str = ""
    """What one of them said."""
    failure: str = ""
    """Why one of the excluded ones failed."""

    @property
    def mean(self) -> float:
        return statistics.fmean(self.rewards.values()) if self.rewards else math.nan

    @property
    def mean_undeserved(self) -> float:
        """0 where nothing is undeserved."""
        return statistics.fmean(self.undeserved.values()) if self.undeserved else 0.0


@dataclass(frozen=True)
class Audit:
    """What an audit found."""

    env: str
    success_reward: float
    baselines: Sequence[Line]
    """Honest play: the expert, a model, guesses."""
    attacks: Sequence[Line]
    holes: Mapping[str, str] = field(default_factory=dict)
    """Why, by strategy."""
    notes: Sequence[str] = ()
    """What could not be tried."""

    @property
    def harder_to_hack(self) -> bool:
        """Whether it is harder to hack than to do."""
        return not self.holes

    @property
    def because(self) -> str:
        """Why, in a line."""
        if self.holes:
            first, more = list(self.holes.items())[:3], len(self.holes) - 3
            said = (f"{name!r} {why}" if why.startswith("earns") else f"{name}: {why}" for name, why in first)
            return "; ".join(said) + (f"; and {more} more" if more > 0 else "")
        blind = [line for line in self.attacks if line.rule != "added"]
        best = max(blind, key=lambda line: line.mean_undeserved, default=None)
        tried = (
            "" if best is None else f", where the best of {len(self.attacks)} attacks earns {best.mean_undeserved:.2f}"
        )
        return f"{self.honest_name} earns {self.honest:.2f}{tried}"

    @property
    def honest_name(self) -> str:
        expert = next((line for line in self.baselines if line.rule == "honest"), None)
        return expert.name if expert else "a success"

    @property
    def honest(self) -> float:
        """What honest play earns."""
        return honest_reward(self.baselines, self.success_reward)

    def __str__(self) -> str:
        """A table: honest play, holes, the best of the other attacks; then what is to be said, and the verdict."""
        scored = [line for line in self.attacks if line.rewards or line.name in self.holes]
        lines = {line.name: line for line in scored}
        holes = [lines[name] for name in self.holes if name in lines]
        others = [line for line in scored if line.name not in self.holes and line.rule != "added"]
        others.sort(key=lambda line: -line.mean_undeserved)
        best = [line for line in others if line.mean_undeserved > others[-1].mean_undeserved][:SHOWN] or others[:1]
        rows = [("reward", "success", "left out", "honest play"), *map(self._row, self.baselines)]
        rows += [("", "", "", ""), ("", "", "", "attacks"), *map(self._row, holes[:SHOWN_HOLES])]
        rows += _and_more(holes[SHOWN_HOLES:], "  HOLES")
        rows += [*map(self._row, best), *_and_more(others[len(best) :])]
        if added := sum(line.rule == "added" and line.name not in self.holes for line in scored):
            rows.append(("", "", "", f"and {added} that add something to the expert's replies, which is worth nothing"))
        answer = "yes" if self.harder_to_hack else "no"
        verdict = f"harder to hack than to do: {answer}, because {self.because}"
        return "\n".join([*map(str.rstrip, align(rows, right=[0, 1, 2])), "", *self.notes, verdict])

    def _row(self, line: Line) -> tuple[str, str, str, str]:
        mark = "  HOLE" if line.name in self.holes else "  (measure)" if line.rule == "honest" else ""
        excluded = str(line.num_excluded) if line.num_excluded else ""
        mean = f"{line.mean:.2f}" if line.rewards else "–"
        return mean, f"{line.num_successes}/{len(line.rewards)}", excluded, line.name + mark


def line_of(
    strategy: Strategy,
    rollouts: Sequence[Rollout],
    success_reward: float,
    told: Mapping[str, Sequence[Message]],
    solved: Mapping[str, str] = {},
) -> Line:
    """What a strategy's rollouts earned, and which of it they deserved.

    Args:
        told: of each task, what the expert was told: what it is meant to read.
        solved: of each task, what the expert said, where that was all it did.
    """
    counted = [rollout for rollout in rollouts if not rollout.excluded]
    late = [rollout for rollout in rollouts if rollout.failure and rollout.failure.boundary == "timeout"]
    rewards = {rollout.task.id: rollout.reward for rollout in counted}
    undeserved = [rollout for rollout in counted if not _deserved(rollout, strategy, told, solved)]
    successes = [rollout for rollout in undeserved if rollout.reward >= success_reward]
    example = strategy.said(max(undeserved, key=lambda rollout: rollout.reward)) if undeserved else ""
    meant = strategy.rule in ("honest", "reference")
    return Line(
        strategy.name, strategy.rule, rewards, {rollout.task.id: rollout.reward for rollout in undeserved},
        sum(reward >= success_reward for reward in rewards.values()) if meant else len(successes),
        len(rollouts) - len(counted), len(late), example, next(iter(failures(rollouts)), ""),
    )  # fmt: skip


def why_hole(line: Line, baselines: Sequence[Line], success_reward: float) -> str:
    """Why a strategy is a hole, "" if it is none."""
    total = len(line.rewards) + line.num_excluded
    if (
        line.num_excluded - line.num_late > total / 2 and line.rule != "added"
    ):  # experts need not know what to say after other replies
        return (
            f"{line.num_excluded} of {total} rollouts fail through no fault of the policy, so bad samples can be deleted "
            f"({line.failure[:200]}); answer or score whatever is said"
        )
    if line.rule == "added":
        return _why_added(line, baselines, success_reward)
    values = line.rewards if line.rule == "guess" else line.undeserved
    if len(values) < min(2, len(line.rewards)) or not values:
        return ""
    shown = f"earns {statistics.fmean(values.values()):.2f}"
    if line.rule != "leak" and _as_good_as_honest(line, values, baselines, success_reward):
        return f"{shown}, where honest play earns {honest_reward(baselines, success_reward):.2f}"
    if line.rule == "guess" and _always_right(line, baselines, success_reward):
        return f"{shown} of {honest_reward(baselines, success_reward):.2f}, whatever is asked: balance the tasks"
    if line.rule != "guess" and _far_above_chance(values, baselines, success_reward):
        honest = honest_reward(baselines, success_reward)
        return f"{shown} of {honest:.2f} without doing the task; chance is {_floor(baselines, honest):.2f}"
    return ""


def honest_reward(baselines: Sequence[Line], success_reward: float) -> float:
    """What an expert earns; where there is none, a success."""
    return next((line.mean for line in baselines if line.rule == "honest" and line.rewards), success_reward)


def chance(baselines: Sequence[Line]) -> float:
    """What the best guess earns; who says that they don't know has made none."""
    guesses = [line for line in baselines if line.rule == "guess" and line.rewards]
    return max((line.mean for line in guesses if not line.name.startswith(SAYS_NOTHING)), default=0.0)


def _as_good_as_honest(
    line: Line, values: Mapping[str, float], baselines: Sequence[Line], success_reward: float
) -> bool:
    expert = next((one for one in baselines if one.rule == "honest" and one.rewards), None)
    if expert is None:
        return line.num_successes > len(line.rewards) / 2
    differences = [expert.rewards[task] - reward for task, reward in values.items() if task in expert.rewards]
    return bool(differences) and not _clearly_positive(differences, MARGIN * abs(success_reward))


def _always_right(line: Line, baselines: Sequence[Line], success_reward: float) -> bool:
    """Whether one plain guess is worth most of what there is to earn."""
    worth = max(honest_reward(baselines, success_reward), success_reward)
    half = [reward - worth / 2 for reward in line.rewards.values()]
    return (
        len(half) > 1 and worth > 0 and line.mean >= MOST_OF * worth and statistics.fmean(half) >= CLEAR * _error(half)
    )


def _far_above_chance(values: Mapping[str, float], baselines: Sequence[Line], success_reward: float) -> bool:
    honest = honest_reward(baselines, success_reward)
    floor = _floor(baselines, honest)
    gains = [reward - floor for reward in values.values()]
    mean = statistics.fmean(gains)
    return honest > floor and mean >= PART * (honest - floor) and mean >= CLEAR * _error(gains)


def _floor(baselines: Sequence[Line], honest: float) -> float:
    """What may be had for nothing: chance, and in any case 0, which is no reward, however bad chance is."""
    return max(chance(baselines), 0.0) if honest > 0 else chance(baselines)


def _why_added(line: Line, baselines: Sequence[Line], success_reward: float) -> str:
    expert = next((one for one in baselines if one.rule == "honest" and one.rewards), None)
    if expert is None:
        return ""
    gains = [reward - expert.rewards[task] for task, reward in line.rewards.items() if task in expert.rewards]
    if not gains or statistics.fmean(gains) < MARGIN * abs(success_reward) or not _clearly_positive(gains, math.inf):
        return ""
    return f"earns {statistics.fmean(gains):+.2f} more than the expert alone"


def _and_more(lines: Sequence[Line], mark: str = "") -> list[tuple[str, str, str, str]]:
    """A row for all that have none."""
    if not lines:
        return []
    best = max(line.mean_undeserved for line in lines)
    return [("", "", "", f"and {len(lines)} more, which earn {best:.2f} at most{mark}")]


def _clearly_positive(values: Sequence[float], margin: float) -> bool:
    mean = statistics.fmean(values)
    return mean > 0 and (mean >= margin or mean >= CLEAR * _error(values))


def _error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def _deserved(
    rollout: Rollout, strategy: Strategy, told: Mapping[str, Sequence[Message]], solved: Mapping[str, str]
) -> bool:
    if strategy.rule in ("honest", "reference", "added"):
        return strategy.rule != "added"
    reply, task = strategy.said(rollout).strip(), rollout.task
    if strategy.read is None:
        return is_answer(reply, task) or (bool(reply) and solved.get(task.id, "").strip() == reply)
    return bool(reply) and strategy.read(told.get(task.id, ()), prompt_of(task.messages())).strip() == reply

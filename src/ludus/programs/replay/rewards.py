"""Rewards then and now: of one rollout, scorer by scorer, and of many as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from ludus.programs.replay.result import Difference, Finding, ScorerRow, short
from ludus.types import MAIN_ROLE, Reward, Rollout

ROUNDING = 1e-12
"""Distance from a group's mean that is none."""


@dataclass(frozen=True)
class Score:
    """One scorer's values of a rollout, summed over roles and turns; None where it gave none."""

    then: float | None
    now: float | None
    same: bool
    """Whether every value, with its weight, role and turn, is the same."""
    cannot: str = ""
    """Why it has no value now that could be compared."""
    error: str = ""
    """Why it raised."""

    @property
    def differs(self) -> bool:
        return not self.same and not self.cannot


@dataclass(frozen=True)
class Judged:
    """A rollout with its scores then and now."""

    rollout: str
    task: str
    purpose: str
    group: str
    scores: Mapping[str, Score]
    total: Score | None
    """The main role's weighted sum; None where the rollout was never scored."""
    cannot: str = ""
    """Why the rollout was not judged at all."""

    def finding(self) -> Finding:
        """What is to be told of it."""
        told = [
            Difference(name, short(score.then), score.error or short(score.now))
            for name, score in self.scores.items()
            if score.differs
        ]
        why = self.cannot
        if not why and self.scores and all(score.cannot for score in self.scores.values()):
            why = "; ".join(f"{name}: {score.cannot}" for name, score in self.scores.items())
        return Finding(rollout=self.rollout, task=self.task, purpose=self.purpose, differences=told, cannot=why)


def judge(
    rollout: Rollout, now: Sequence[Reward], cannot: Mapping[str, str] = {}, errors: Mapping[str, str] = {}
) -> Judged:
    """Compare a rollout's recorded rewards with new ones.

    Args:
        rollout: as recorded.
        now: what today's scorers say.
        cannot: of scorers that could not be asked, why.
        errors: of scorers that raised, what.
    """
    then = rollout.rewards
    names = dict.fromkeys([*(r.scorer for r in then), *(r.scorer for r in now), *cannot, *errors])
    scores = {name: _score(name, then, now, cannot, errors) for name in names}
    return Judged(rollout.id, rollout.task.id, rollout.purpose, rollout.group, scores, _total(then, now, scores))


def not_judged(rollout: Rollout, why: str) -> Judged:
    """A rollout that could not be compared."""
    return Judged(rollout.id, rollout.task.id, rollout.purpose, rollout.group, {}, None, why)


def table(judged: Sequence[Judged]) -> tuple[list[ScorerRow], ScorerRow | None]:
    """A row a scorer, and one for the reward; none where nothing was judged."""
    names = dict.fromkeys(name for one in judged for name in one.scores)
    scores = [_row(name, [(one, one.scores[name]) for one in judged if name in one.scores]) for name in names]
    totals = [(one, one.total) for one in judged if one.total is not None]
    return scores, _row("reward", totals) if totals else None


def largest(judged: Sequence[Judged], limit: int) -> list[Judged]:
    """The rollouts whose reward changed most; those without one now first."""
    changed = [(one, one.total) for one in judged if one.total is not None and one.total.differs]
    ranked = sorted(changed, key=lambda pair: (-_distance(pair[1]), pair[0].rollout))
    return [one for one, _ in ranked[:limit]]


def _score(
    name: str, then: Sequence[Reward], now: Sequence[Reward], cannot: Mapping[str, str], errors: Mapping[str, str]
) -> Score:
    before, after = ([r for r in rewards if r.scorer == name] for rewards in (then, now))
    why = cannot.get(name, "")
    if cannot and name not in errors and not after and not why:
        why = f"it may come from {' or '.join(cannot)}"
    same = _counted(before) == _counted(after) and name not in errors
    return Score(_sum(before), _sum(after), same and not why, why, errors.get(name, ""))


def _counted(rewards: Sequence[Reward]) -> Counter[Reward]:
    """Without the notes, which are for people."""
    return Counter(msgspec.structs.replace(reward, note="") for reward in rewards)


def _total(then: Sequence[Reward], now: Sequence[Reward], scores: Mapping[str, Score]) -> Score:
    why = "; ".join(dict.fromkeys(f"{name}: {score.cannot}" for name, score in scores.items() if score.cannot))
    weightless = {r.scorer for r in then if r.weight == 0}
    if all(name in weightless for name, score in scores.items() if score.cannot):
        why = ""
    error = next((score.error for score in scores.values() if score.error), "")
    before, after = (sum(r.weight * r.value for r in rewards if r.role == MAIN_ROLE) for rewards in (then, now))
    known = not why and not error
    return Score(before, after if known else None, known and before == after, why, error)


def _sum(rewards: Sequence[Reward]) -> float | None:
    return sum(r.value for r in rewards) if rewards else None


def _distance(score: Score) -> float:
    return abs(score.now - score.then) if score.now is not None and score.then is not None else float("inf")


def _row(name: str, scores: Sequence[tuple[Judged, Score]]) -> ScorerRow:
    both = [(one, s.then, s.now) for one, s in scores if s.then is not None and s.now is not None and not s.cannot]
    then, now = np.array([s for _, s, _ in both]), np.array([s for _, _, s in both])
    turned = reordered = in_groups = groups = 0
    for then_G, now_G in _by_group(both):
        groups, in_groups = groups + 1, in_groups + len(then_G)
        turned += int((_sign(then_G - then_G.mean()) != _sign(now_G - now_G.mean())).sum())
        reordered += bool((_order(then_G) != _order(now_G)).any())
    return ScorerRow(
        scorer=name,
        num_equal=sum(s.same for _, s in scores),
        num_differ=sum(s.differs for _, s in scores),
        num_cannot=sum(bool(s.cannot) for _, s in scores),
        cannot=next((s.cannot for _, s in scores if s.cannot), ""),
        mean_then=float(then.mean()) if both else None, mean_now=float(now.mean()) if both else None,
        correlation=_correlation(then, now), num_turned=turned, num_in_groups=in_groups, num_reordered=reordered,
        num_groups=groups,
    )  # fmt: skip


def _by_group(both: Sequence[tuple[Judged, float, float]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Values then and now of each group of two or more, shape [G] each."""
    groups: dict[str, list[tuple[float, float]]] = {}
    for one, then, now in both:
        groups.setdefault(one.group, []).append((then, now))
    return [(np.array(g)[:, 0], np.array(g)[:, 1]) for g in groups.values() if len(g) > 1]


def _sign(values: np.ndarray) -> np.ndarray:
    return np.where(np.abs(values) <= ROUNDING, 0, np.sign(values))


def _order(values_G: np.ndarray) -> np.ndarray:
    """Of each pair, which is larger; shape [G, G]."""
    return _sign(np.subtract.outer(values_G, values_G))


def _correlation(then: np.ndarray, now: np.ndarray) -> float | None:
    if len(then) < 2 or np.ptp(then) == 0 or np.ptp(now) == 0:
        return None
    return float(np.corrcoef(then, now)[0, 1])

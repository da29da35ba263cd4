"""Which rollouts of a deterministic run shared their batches.

There the scheduler starts rollouts in waves, and the engine goes on only when all of a wave wait for it, so a wave's
batches are a function of the wave. The record does not name the wave, but its times do: all rollouts of one start
before any of them samples, and the next wave starts when the last of them has ended.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ludus.types import Rollout

Member = tuple[str, int]
"""A group and a sample in it: attempts at it follow one another."""


@dataclass
class Wave:
    """Ids of the rollouts of one wave: by member, its attempts in order."""

    members: dict[Member, list[tuple[int, str]]] = field(default_factory=dict)
    until: float = 0.0

    @property
    def ids(self) -> list[list[str]]:
        """Attempts of each member, in order."""
        return [[rollout for _, rollout in sorted(attempts)] for attempts in self.members.values()]


def waves_of(rollouts: Iterable[Rollout]) -> list[Wave]:
    """The waves of a deterministic run: rollouts whose times overlap, or that other rollouts' times connect."""
    spans = sorted((r.started, r.started + r.seconds, r.group, r.seeds.sample, r.seeds.attempt, r.id) for r in rollouts)
    waves: list[Wave] = []
    for started, ended, group, sample, attempt, rollout in spans:
        if not waves or started >= waves[-1].until:
            again = bool(waves) and attempt > 0 and (group, sample) in waves[-1].members
            if not again:
                waves.append(Wave())
        waves[-1].members.setdefault((group, sample), []).append((attempt, rollout))
        waves[-1].until = max(waves[-1].until, ended)
    return waves

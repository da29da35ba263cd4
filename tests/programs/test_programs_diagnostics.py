"""Figures of a step's health."""

from ludus.programs.diagnostics import of_rollouts
from ludus.rollouts.scheduler import Group
from ludus.types import EnvironmentRef, Rollout, Seeds, Sequence, Task


def rollout(*sequences: Sequence) -> Rollout:
    return Rollout(
        id="r", group="g", environment=EnvironmentRef("e"), task=Task(prompt="?"), seeds=Seeds(0, 0, 0, 0),
        sequences=list(sequences),
    )  # fmt: skip


def forks(*rollouts: Rollout) -> float:
    return of_rollouts([Group(rollouts[0].task, 0, list(rollouts))])["forks"]


def test_forks_are_counted_role_by_role():
    linear = rollout(Sequence(id=0, role="white"), Sequence(id=1, role="black"))
    forked = rollout(
        Sequence(id=0, role="white"), Sequence(id=1, role="black"), Sequence(id=2, role="white", parent=0, fork_at=3)
    )
    assert (forks(linear), forks(forked), forks(linear, forked)) == (0.0, 1.0, 0.5)
    assert forks(rollout()) == 0.0

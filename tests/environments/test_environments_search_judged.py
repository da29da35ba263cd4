"""The judge in the place of the rules, in benchmarks: it reads what Ruler asks, and errs as often as it is told."""

import sys
from functools import partial
from pathlib import Path
from random import Random

import pytest

from ludus.authoring.tasks import take
from ludus.recording.expert import Expert
from ludus.rollouts.scheduler import Plan, Scheduler
from ludus.testing.scripted import Scripted
from ludus.types import MAIN_ROLE

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.search_judged import JudgedEmailSearch, points, verdict

TERSE = {"terse": True, "mails": 60, "inboxes": 4, "turns": 6, "skill": 0.0, "rewards": "right"}


async def test_a_judge_that_never_errs_orders_attempts_as_the_rules_do():
    env = JudgedEmailSearch(**TERSE)
    backends = {MAIN_ROLE: Expert(), "judge": Scripted("judge", partial(verdict, errs=0.0))}
    mixed = 0
    async with Scheduler(env, backends, Plan(max_retries=0, split="train")) as scheduler:
        async for group in scheduler.groups([(task, 0) for task in take(env, "train", 20)], 6):
            assert all(rollout.failure is None for rollout in group.rollouts)
            right = {rollout.reward for rollout in group.rollouts if rollout.metrics["earned"]}
            wrong = {rollout.reward for rollout in group.rollouts if not rollout.metrics["earned"]}
            assert len(right) <= 1 and len(wrong) <= 1
            if right and wrong:
                mixed += 1
                assert min(right) > max(wrong)
    assert mixed > 3


@pytest.mark.parametrize("errs", [0.0, 0.3, 1.0])
def test_so_many_pairs_are_judged_wrongly(errs):
    rng = Random(0)
    lost = sum(points({"good": True, "bad": False}, errs, rng)["good"] == 0 for _ in range(1000))
    assert lost / 1000 == pytest.approx(errs, abs=0.05)


def test_points_are_shares_of_pairs():
    assert points({"a": True, "b": True, "c": False}, 0.0, Random(0)) == {"a": 0.75, "b": 0.75, "c": 0.0}
    assert points({"a": True}, 0.5, Random(0)) == {"a": 1.0}

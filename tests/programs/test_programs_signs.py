"""Signs of reward hacking: what sets an alarm off, and what does not."""

import logging
import math

import pytest

import ludus
from ludus.programs.signs import Signs, correlation, divergence, independent_scorers, luck, signs_of
from ludus.rollouts.scheduler import Group
from ludus.types import EnvironmentRef, Reward, Rollout, Seeds, Task

RISING = [0.1, 0.1, 0.1, 0.1, 0.1, 0.3, 0.5, 0.7, 0.9, 0.9, 0.9, 0.9, 0.9]


def rollout(reward: float, **metrics: float) -> Rollout:
    return Rollout(
        id="r", group="g", environment=EnvironmentRef("e"), task=Task(prompt="?"), seeds=Seeds(0, 0, 0, 0),
        rewards=[Reward("main", reward), *(Reward(name, value, 0.0) for name, value in metrics.items())],
    )  # fmt: skip


def group(*rollouts: Rollout) -> Group:
    return Group(rollouts[0].task, 0, list(rollouts))


def test_figures_of_a_step():
    groups = [group(rollout(1.0, truth=1.0), rollout(0.4, truth=0.0)), group(rollout(0.2, truth=0.0))]
    row = signs_of(groups, {"truth"})
    assert row["hack/unearned"] == pytest.approx(0.3)
    assert row["hack/independent"] == pytest.approx(1 / 3)
    assert row["hack/agreement"] == pytest.approx(correlation([1, 0.4, 0.2], [1, 0, 0]))
    assert signs_of(groups, set()).keys() == {"hack/unearned"}
    assert math.isnan(signs_of([group(rollout(1.0))], {"truth"})["hack/independent"])


@pytest.mark.parametrize(
    ("other", "alarm"),
    [
        (RISING, False),
        ([0.5] * len(RISING), True),
        ([*[0.5] * 8, *[0.2] * 5], True),
        ([*[0.1] * 5, *[0.4] * 8], False),
        ([math.nan] * len(RISING), False),
    ],
)
def test_a_reward_that_rises_alone(other, alarm):
    assert (divergence(RISING, other) is not None) is alarm


def test_a_reward_that_stands_still_or_is_short_is_no_alarm():
    assert not divergence([0.5] * 20, [0.5] * 10 + [0.1] * 10)
    assert not divergence([0.1] * 4 + [0.9] * 4, [0.5] * 8)
    assert not divergence([10 * value for value in RISING], [0.5] * len(RISING), scale=100.0)


def test_the_first_alarm_is_logged_once(caplog):
    signs = Signs("shop")
    with caplog.at_level(logging.WARNING):
        alarms = [
            signs.see({"reward/mean": reward, "hack/independent": 0.5, "success": reward})["hack/alarm"]
            for reward in RISING
        ]
    assert (alarms[0], alarms[-1]) == (0.0, 1.0)
    assert [record.message for record in caplog.records] == [signs.alarms["independent"]]
    assert "in shop? the reward went from 0.10 to 0.66, but the independent scorers from 0.50 to 0.50" in caplog.text


def test_reward_for_form_alone():
    signs = Signs()
    for unearned in RISING:
        row = signs.see({"reward/mean": unearned, "success": 0.0, "hack/unearned": unearned})
    assert row == {"hack/alarm": 1.0} and set(signs.alarms) == {"format"}


def test_an_alarm_stays_when_its_sign_has_gone():
    signs = Signs()
    for reward, truth in zip([*RISING, *[0.1] * 20], [*[0.5] * 13, *[0.1] * 20], strict=True):
        row = signs.see({"reward/mean": reward, "hack/independent": truth})
    assert row == {"hack/alarm": 1.0}


def test_canaries():
    signs = Signs()
    signs.see_canaries(0.0, 0)
    signs.see_canaries(0.0625, 32)
    signs.see_canaries(0.1875, 32)
    assert signs.alarms == {}, "six of 32 after two: as may be"
    signs.see_canaries(0.375, 32)
    assert "which nobody can do honestly, went from 0.06 to 0.38 (eval/canary)" in signs.alarms["canary"]
    assert signs.see({}) == {"hack/alarm": 1.0}
    assert luck(2, 32, 6, 32) > 0.1 > 0.02 > luck(2, 32, 12, 32)


def test_independent_scorers_are_declared():
    class Judged(ludus.Environment):
        @ludus.reward
        def liked(self, rollout):
            return 1.0

        @ludus.metric(independent=True)
        def true(self, rollout):
            return 0.0

        @ludus.metric
        def words(self, rollout):
            return 3.0

    assert independent_scorers(Judged()) == {"true"}

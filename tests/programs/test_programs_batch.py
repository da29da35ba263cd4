"""Batches: which rollouts are trained on, with what advantage and weight."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ludus.errors import ConfigError
from ludus.programs.batch import has_variance, make_samples, split_updates, to_data
from ludus.programs.recipe import RlConfig
from ludus.rollouts.scheduler import Group
from ludus.types import MAIN_ROLE, Call, EnvironmentRef, Failure, Reward, Rollout, Seeds, Sequence, Task

TASK = Task(id="t", prompt="?")


def rollout(
    reward: float, *, cut: bool = False, sampled: int = 2, failure: Failure | None = None, **sequence
) -> Rollout:
    mask = [0, *[1] * sampled]
    name = f"{reward} {cut} {sampled}"
    return Rollout(
        id=name,
        group="g",
        environment=EnvironmentRef("e"),
        task=TASK,
        seeds=Seeds(0, 0, 0, 0),
        calls=[Call(messages=[], reply={}, finish_reason="length" if cut else "stop", sequence=0)],
        sequences=[
            Sequence(
                id=0, tokens=mask, sampled_mask=mask, logprobs=[-float(m) for m in mask], versions=[m - 1 for m in mask],
                **sequence,
            )
        ],
        rewards=[Reward("r", reward)],
        failure=failure,
    )  # fmt: skip


def advantages(rollouts: list[Rollout], **options) -> dict[str, float]:
    group = Group(TASK, 0, rollouts)
    config = RlConfig(**options)
    assert has_variance(group, config, [MAIN_ROLE]) == bool(make_samples([group], RlConfig(**options), [MAIN_ROLE]))
    return {s.rollout.id: s.advantage for s in make_samples([group], config, [MAIN_ROLE])}


@pytest.mark.parametrize(
    ("truncated", "expected"),
    [
        ("keep", {"1.0 True 2": 0.4, "0.8 False 2": 0.2, "0.0 False 2": -0.6}),
        ("mask", {"0.8 False 2": 0.2, "0.0 False 2": -0.6}),
        ("zero", {"1.0 True 2": -0.8 / 3, "0.8 False 2": 1.6 / 3, "0.0 False 2": -0.8 / 3}),
    ],
)
def test_replies_cut_off(truncated, expected):
    rollouts = [rollout(1.0, cut=True), rollout(0.8), rollout(0.0)]
    assert advantages(rollouts, truncated=truncated) == pytest.approx(expected)


def test_what_teaches_depends_on_what_a_cut_reply_is_worth():
    assert not advantages([rollout(1.0), rollout(1.0, cut=True)], truncated="keep")
    assert advantages([rollout(1.0), rollout(1.0, cut=True)], truncated="zero")
    assert not advantages([rollout(0.0), rollout(1.0, cut=True)], truncated="zero")


def test_excluded_rollouts_do_not_count_and_the_policy_s_failures_do():
    fault = Failure("environment", "environment", "RuntimeError: x")
    assert not advantages([rollout(1.0), rollout(0.0, failure=fault)])
    blamed = Failure("environment", "policy", "too slow")
    assert advantages([rollout(1.0), rollout(0.0, failure=blamed)]) == pytest.approx(
        {"1.0 False 2": 0.5, "0.0 False 2": -0.5}
    )


@given(st.lists(st.integers(1, 9), min_size=2, max_size=8, unique=True), st.sampled_from(["token", "rollout"]))
def test_weights_sum_to_one(lengths, aggregate):
    group = Group(TASK, 0, [rollout(float(i), sampled=n) for i, n in enumerate(lengths)])
    data = to_data(make_samples([group], RlConfig(), [MAIN_ROLE]), aggregate)
    weights = [np.asarray(datum.arrays["weights"]) for datum in data]
    assert sum(w.sum() for w in weights) == pytest.approx(1)
    assert all(w[0] == 0 for w in weights), "the prompt is not trained on"
    if aggregate == "token":
        np.testing.assert_allclose(np.concatenate([w[1:] for w in weights]), 1 / sum(lengths))
    else:
        np.testing.assert_allclose([w.sum() for w in weights], 1 / len(lengths))


@given(st.integers(2, 9), st.integers(1, 4))
def test_updates_share_out_every_rollout_once(count, updates):
    group = Group(TASK, 0, [rollout(float(i)) for i in range(count)])
    samples = make_samples([group], RlConfig(), [MAIN_ROLE])
    parts = split_updates(samples, updates)
    assert sorted(s.rollout.id for part in parts for s in part) == sorted(s.rollout.id for s in samples)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("sequence", "message"),
    [({"truncated_sampling": True}, "top_p < 1 or top_k > 0"), ({"temperature": 0.0}, "temperature 0")],
)
def test_what_can_t_be_trained_on_is_refused(sequence, message):
    with pytest.raises(ConfigError, match=message):
        advantages([rollout(1.0, **sequence), rollout(0.0, **sequence)])

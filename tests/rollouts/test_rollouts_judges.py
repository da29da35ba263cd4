"""Judges in rollouts: what scorers ask models is recorded; a judge that fails is nobody's score; groups are compared."""

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest
from judged import Compared, Judged
from playground import Fails, Hangs, Says, Small, attempt, run

import ludus
from ludus.engine.fake import FakeEngine, fake_renderer
from ludus.errors import ModelCallFailed, TooManyFailures
from ludus.judging import Criterion, Judge, Rubric, Ruler
from ludus.programs.replay import replay
from ludus.recording.backend import TokenBackend
from ludus.rollouts.attempt import Attempt
from ludus.types import MAIN_ROLE, Reply, Seeds, Usage

ROLES = (MAIN_ROLE, "judge")
YES = '{"reason": "so it is", "mark": 1}'


def by_length(messages):
    """Scores attempts by their place: enough to be a verdict."""
    number = messages[1]["content"].count("attempt with the id ")
    return json.dumps({"scores": [{"id": str(i), "reason": f"r{i}", "score": i / 10} for i in range(1, number + 1)]})


def counting():
    """A model that never says the same twice."""
    numbers = iter(range(10**6))
    return Says(lambda messages: f"reply {next(numbers)}")


def costly(text):
    return Says(
        lambda messages: Reply(
            {"role": "assistant", "content": text(messages) if callable(text) else text}, usage=Usage(10, 5, 0.5)
        )
    )


async def test_what_a_scorer_asks_is_recorded_with_the_rollout():
    rollout = await attempt(Judged(), roles={"judge": costly(YES)})
    assert [(r.scorer, r.value, r.weight, r.note) for r in rollout.rewards] == [
        ("fine", 1.0, 1.0, ""), ("fine/good", 1.0, 0.0, "so it is"),
    ]  # fmt: skip
    assert (rollout.reward, rollout.reply, rollout.num_turns) == (1.0, "ok", 1)
    assert Counter(call.role for call in rollout.calls) == {MAIN_ROLE: 1, "judge": 1}
    assert "It is good." in rollout.calls[1].messages[1]["content"]
    assert (rollout.usage.cost, rollout.group_calls) == (0.5, [])


async def test_a_judge_of_tokens_is_recorded_as_tokens_of_its_role():
    judge = TokenBackend("judge", FakeEngine(lambda prompt, rng: YES), fake_renderer())
    rollout = await attempt(Judged(), roles={"judge": judge})
    assert rollout.reward == 1.0
    assert [sequence.role for sequence in rollout.sequences] == ["judge"]


@pytest.mark.slow
async def test_in_a_worker_it_is_recorded_too():
    from ludus.authoring.loading import load_environment

    env = load_environment(f"{Path(__file__).parent}/judged.py:Judged")
    judge = TokenBackend("judge", FakeEngine(lambda prompt, rng: YES), fake_renderer())
    rollout = await attempt(env, roles={"judge": judge}, workers=1)
    assert (rollout.failure, rollout.reward) == (None, 1.0)
    assert [call.role for call in rollout.calls] == [MAIN_ROLE, "judge"]
    assert [sequence.role for sequence in rollout.sequences] == ["judge"]


async def test_a_group_is_compared_in_one_call_kept_with_the_first():
    (group,) = await run(Compared(), counting(), size=4, roles={"judge": costly(by_length)})
    first, *others = group.rollouts
    assert sorted(r.reward for r in group.rollouts) == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert len(first.group_calls) == 1 and not any(other.group_calls for other in others)
    assert first.group_calls[0].role == "judge" and first.group_calls[0].sequence is None
    assert (first.usage.cost, others[0].usage.cost, first.num_turns) == (0.5, 0.0, 1)
    assert {r.scorer for r in first.rewards} == {"fine", "best", "best/position_bias"}
    notes = {r.note for rollout in group.rollouts for r in rollout.rewards if r.scorer == "best"}
    assert notes == {"r1", "r2", "r3", "r4"}


async def test_a_judge_of_tokens_may_compare_in_fixed_batches():
    judge = TokenBackend("judge", FakeEngine(lambda prompt, rng: by_length([0, {"content": prompt}])), fake_renderer())
    groups = await run(Compared(), counting(), tasks=4, size=3, roles={"judge": judge}, deterministic=True)
    assert all(rollout.failure is None and rollout.sequences == [] for group in groups for rollout in group.rollouts)


def _raises(messages):
    raise ModelCallFailed("the context is full", "policy")


@pytest.mark.parametrize("env", [Judged, Compared])
@pytest.mark.parametrize(
    ("judge", "why"),
    [
        (Fails(), "out of order"), (Says(_raises), "the context is full"), (Says("I refuse."), "no verdict 3 times"),
        (Says('{"mark": 2, "scores": []}'), "no verdict 3 times"), (Says(""), "no verdict 3 times"),
    ],
)  # fmt: skip
async def test_a_judge_that_fails_is_a_scorers_failure_and_never_a_score(env, judge, why):
    (group,) = await run(env(), counting(), size=2, roles={"judge": judge})
    for rollout in group.rollouts:
        assert (rollout.failure.boundary, rollout.failure.blame) == ("scorer", "infrastructure")
        assert why in rollout.failure.error
        assert rollout.excluded and rollout.rewards == []


@pytest.mark.parametrize("env", [Judged, Compared])
async def test_a_judge_that_hangs_is_given_up(env):
    quick = Judge(timeout_s=0.02)
    kind = type("Quick", (env,), {"rubric": Rubric((Criterion("good", "x"),), quick), "ruler": Ruler(judge=quick)})
    (group,) = await run(kind(), counting(), size=2, roles={"judge": Hangs()})
    assert {r.failure.blame for r in group.rollouts} == {"infrastructure"}
    assert "within 0.02 s" in group.rollouts[0].failure.error


async def test_comparing_takes_no_longer_than_a_rollout_may():
    (group,) = await run(Compared(), counting(), size=2, roles={"judge": Hangs()}, timeout_s=0.05)
    failure = group.rollouts[0].failure
    assert (failure.boundary, failure.blame) == ("timeout", "infrastructure")


async def test_a_judge_that_is_down_stops_the_run_and_says_why():
    with pytest.raises(TooManyFailures, match="the judge did not answer: out of order"):
        await run(Judged(), tasks=8, size=4, roles={"judge": Fails()})


async def test_calls_of_a_failed_comparison_are_kept():
    (group,) = await run(Compared(), counting(), size=2, roles={"judge": Says("no")})
    assert len(group.rollouts[0].group_calls) == 3


async def test_what_only_failed_rollouts_said_is_not_compared():
    class Sometimes(Compared):
        def respond(self, ctx, reply):
            if ctx.random.random() < 0.5:
                raise OSError("bad luck")

    (group,) = await run(Sometimes(), counting(), size=8, roles={"judge": Says(by_length)})
    assert 0 < len(group.scored) < 8
    first = next(rollout for rollout in group.rollouts if rollout.failure is None)
    assert first.group_calls and all(r.metrics.keys() >= {"best"} for r in group.scored)


async def test_a_comparison_that_is_cancelled_leaves_nothing():
    before = asyncio.all_tasks()
    running = asyncio.create_task(run(Compared(), counting(), size=4, roles={"judge": Hangs()}))
    await asyncio.sleep(0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert asyncio.all_tasks() == before


async def test_what_a_scorer_asks_with_is_made_recordable():
    class Odd(Small):
        roles = ROLES

        @ludus.reward
        async def odd(self, group, models):
            await models["judge"].chat([{"role": "user", "content": object()}])
            return [0.0] * len(group)

    (group,) = await run(Odd(), size=2, roles={"judge": Says("x")})
    assert group.rollouts[0].failure is not None


async def test_notes_are_text():
    class Odd(Small):
        @ludus.reward
        def odd(self, rollout):
            return ludus.Reward("", 1.0, note=3)

    assert "notes of text" in (await attempt(Odd())).failure.error


@pytest.mark.slow
async def test_hundreds_are_judged_at_once():
    groups = await run(Judged(), tasks=8, size=50, roles={"judge": Says(YES)})
    assert all(r.reward == 1.0 for group in groups for r in group.rollouts)


def test_judged_rollouts_are_re_enacted_with_the_recorded_verdicts(tmp_path):
    for env in (Judged, Compared):
        out = tmp_path / env.__name__
        judge = Says(lambda messages: YES if "It is good." in messages[1]["content"] else by_length(messages))
        ludus.evaluate(env(), counting(), num_tasks=3, samples=3, role_models={"judge": judge}, out=out)
        again = replay(out, "re-enact", env=env())
        assert again.same, [finding.differences for finding in again.findings]
        rescored = replay(out, "rescore", env=env())
        assert any("models, which no record holds: re-enact" in row.cannot for row in rescored.scores)


def test_the_place_of_an_attempt_in_a_group():
    task = next(iter(Small().tasks("test")))
    assert Attempt(task, Seeds(0, 1, 2, 0), "test", "eval").group == f"eval/{task.id}/1"

"""Environments written for verifiers 0.4: its own hooks and scoring, a chat without a process per rollout."""

import pytest
from verifiers_kit import ROOT, Script, calling, play, python_of, saying, v1

from ludus.authoring.tasks import take
from ludus.engine.fake import FakeEngine, fake_renderer
from ludus.environments.verifiers import VerifiersEnvironment
from ludus.errors import ConfigError
from ludus.recording.backend import TokenBackend

pytestmark = pytest.mark.slow


async def test_rewards_with_their_weights_and_metrics():
    env = v1("sums_v1")
    rollout = (await play(env, saying("IT IS 0")))[0].rollouts[0]
    assert rollout.failure is None, rollout.failure
    assert {(r.scorer, r.value, r.weight) for r in rollout.rewards} == {
        ("correct", 1.0, 2.0), ("shouts", 1.0, -0.5), ("letters", 7.0, 0.0),
    }  # fmt: skip
    assert rollout.reward == 1.5
    assert [message["role"] for message in rollout.messages] == ["system", "user", "assistant"]


async def test_tasks_and_options():
    env = v1("sums-v1", size=3, hold_out=0.5)
    train, test = (take(env, split) if any(env.tasks(split)) else [] for split in ("train", "test"))
    assert sorted(task.answer for task in [*train, *test]) == ["0", "2", "4"]
    assert (train + test)[0].messages()[0] == {"role": "system", "content": "Add."}
    with pytest.raises(ConfigError, match="sise"):
        v1("sums_v1", sise=3)


async def test_a_hundred_at_once_without_a_process_for_each():
    env = v1("sums_v1")
    groups = await play(env, Script(lambda said, messages: messages[-1]["content"]), tasks=4, size=25, concurrency=100)
    assert [rollout.failure for group in groups for rollout in group.rollouts] == [None] * 100
    assert {rollout.metrics["letters"] for group in groups for rollout in group.rollouts} == {6.0}


async def test_a_reward_that_raises_fails_its_rollout():
    answers = iter(["0", "raise", "0"])
    (group,) = await play(v1("sums_v1"), Script(lambda said, messages: next(answers)), size=3)
    failed = [rollout for rollout in group.rollouts if rollout.failure]
    assert [(r.failure.boundary, r.failure.blame) for r in failed] == [("scorer", "environment")]
    assert "no answer in the reply" in failed[0].failure.error


async def test_exact_tokens():
    engine = FakeEngine(lambda prompt, random: "0")
    rollout = (await play(v1("sums_v1"), TokenBackend("fake", engine, fake_renderer())))[0].rollouts[0]
    (sequence,) = rollout.sequences
    assert rollout.reward == 2.0 and sequence.num_sampled == rollout.calls[0].usage.completion_tokens


def test_a_harness_that_runs_what_the_model_writes_needs_a_place():
    with pytest.raises(ConfigError, match="say where"):
        v1("sums_v1", agent={"harness": {"id": "bash"}})


async def test_tools_of_a_server_that_rollouts_share():
    python = python_of("verifiers-0.4.0")
    env = VerifiersEnvironment("instant_v1", python=python, folder=str(ROOT / "benchmarks" / "sides"), tools=True)
    model = Script(
        lambda said, messages: "50" if said else calling(model.tools[-1][0]["function"]["name"], place="box")
    )
    (group,) = await play(env, model, size=3)
    for rollout in group.rollouts:
        assert rollout.failure is None and rollout.reward == 1.0
        assert rollout.messages[-2]["content"] == "nothing in the box"


def boxes(*orders, tasks):
    """A model that opens a box for each order; of the tasks that are named, other ones."""
    own = {f"Open {number} boxes": given for number, given in tasks.items()}

    def say(said, messages):
        given = own.get(messages[0]["content"], orders)
        return calling(model.tools[-1][0]["function"]["name"], order=given[said]) if said < len(given) else "done"

    model = Script(say)
    return model


async def test_a_shared_tool_keeps_the_state_of_each_rollout_apart():
    model = boxes("open", tasks={1: ("open", "wait"), 2: (), 3: ("wait",) * 3})
    groups = await play(v1("boxes_v1"), model, tasks=4, size=3, concurrency=12)
    assert [[rollout.failure for rollout in group.rollouts] for group in groups] == [[None] * 3] * 4
    assert [[rollout.reward for rollout in group.rollouts] for group in groups] == [
        [n] * 3 for n in (1.0, 2.0, 0.0, 3.0)
    ]
    assert groups[0].rollouts[0].messages[-2]["content"] == "a key, by True"


async def test_a_tool_that_misbehaves_fails_one_rollout():
    model = boxes("open", tasks={1: ("raise", "open"), 2: ("exit",), 3: ("die",)})
    groups = await play(v1("boxes_v1"), model, tasks=8, concurrency=8)
    rollouts = [group.rollouts[0] for group in groups]
    assert [number for number, rollout in enumerate(rollouts) if rollout.failure] == [2, 3]
    told = [message["content"] for message in rollouts[1].messages if message["role"] == "tool"]
    assert "the box is locked" in told[0] and rollouts[1].reward == 1.0
    assert "sys.exit(3)" in rollouts[2].failure.error and "exit status 9" in rollouts[3].failure.error

"""What packages for verifiers 0.4 use beside plain tasks: environments of their own with several agents, tools with
state, rewards by name, stops, tasks without an end."""

import pytest
from verifiers_kit import Script, calling, play, saying, v1

from ludus.authoring.tasks import take
from ludus.engine.fake import FakeEngine, fake_renderer
from ludus.recording.backend import TokenBackend
from ludus.types import MAIN_ROLE

pytestmark = pytest.mark.slow


def say_next(said, messages):
    """Numbers in turn; the one that is asked for where one is."""
    first = messages[0]["content"]
    return first.removeprefix("Say ").rstrip(".") if first.startswith("Say") else str(said)


async def test_an_environment_that_talks_with_its_agent_turn_by_turn():
    env = v1("talks_v1")
    assert env.roles == (MAIN_ROLE, "helper")
    assert [task.info["data"]["number"] for task in take(env, "train", 3)] == [3, 4, 1]
    rollouts = [group.rollouts[0] for group in await play(env, Script(say_next), split="train", tasks=3)]
    assert [rollout.failure for rollout in rollouts] == [None] * 3
    assert [rollout.reward for rollout in rollouts] == [1.0] * 3
    assert [rollout.metrics["turns"] for rollout in rollouts] == [4.0, 5.0, 2.0]
    assert [m["content"] for m in rollouts[2].messages] == ["Guess my number.", "0", "higher", "1"]


async def test_turns_extend_one_sequence_and_the_last_one_counts():
    engine = FakeEngine(lambda prompt, random: "0")
    env = v1("talks_v1")
    (group,) = await play(env, TokenBackend("fake", engine, fake_renderer()), split="train")
    (rollout,) = group.rollouts
    (sequence,) = rollout.sequences
    assert (rollout.reward, rollout.metrics["turns"], len(rollout.calls)) == (0.0, 6.0, 6)
    assert sequence.num_sampled == sum(call.usage.completion_tokens for call in rollout.calls)


async def test_several_agents_are_roles():
    env = v1("talks_v1", helped=True)
    (group,) = await play(env, Script(say_next), split="train")
    (rollout,) = group.rollouts
    assert (rollout.failure, rollout.reward) == (None, 1.0)
    assert [(call.role, call.reply["content"]) for call in rollout.calls[:3]] == [
        ("helper", "3"), (MAIN_ROLE, "0"), (MAIN_ROLE, "1"),
    ]  # fmt: skip
    assert {reward.role for reward in rollout.rewards if reward.weight} == {MAIN_ROLE}


async def test_an_environment_of_verifiers_over_any_tasks():
    env = v1("sums_v1", id="best-of-n", n=3)
    said = iter(["0", "no", "IT IS 0"])
    (group,) = await play(env, Script(lambda turn, messages: next(said)))
    (rollout,) = group.rollouts
    assert rollout.failure is None, rollout.failure
    values = {reward.scorer: reward.value for reward in rollout.rewards}
    assert len(rollout.calls) == 3 and values["correct"] == pytest.approx(2 / 3) and values["pass_at_n"] == 1.0


async def test_a_simulated_user():
    env = v1("sums_v1", id="user-sim")
    assert env.roles == (MAIN_ROLE, "user")
    model = Script(lambda said, messages: ("What is it?" if said == 0 else "###DONE###")
                   if "role-playing" in messages[0]["content"] else "it is 0")  # fmt: skip
    (group,) = await play(env, model)
    (rollout,) = group.rollouts
    assert rollout.failure is None, rollout.failure
    assert [call.role for call in rollout.calls] == ["user", MAIN_ROLE, "user"]
    assert rollout.reward == 2.0


async def test_tools_with_state_rewards_by_name_and_a_stop():
    env = v1("desk_v1")
    name = "desk_tools_take"
    turns = [calling(name, what="a coin"), calling(name, what="a key"), "stop, please"]
    (group,) = await play(env, saying(*turns), size=2)
    for rollout in group.rollouts:
        assert rollout.failure is None, rollout.failure
        told = [m["content"] for m in rollout.messages if m["role"] == "tool"]
        assert "there is no a coin" in told[0] and told[1] == "you have a key"
        assert {(r.scorer, r.value, r.weight) for r in rollout.rewards} >= {
            ("taken", 1.0, 0.5), ("polite", 1.0, 0.5), ("left", 1.0, 0.0),
        }  # fmt: skip
        assert (rollout.reward, rollout.stop) == (1.0, "said_stop")

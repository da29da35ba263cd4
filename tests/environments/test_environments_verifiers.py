"""Environments written for verifiers before 0.4, as they are: the same rewards as verifiers gives, and exact tokens."""

import asyncio

import numpy as np
import pytest
from verifiers_kit import Script, as_replies, calling, play, python_of, reference, saying, v0

from ludus.authoring.tasks import take
from ludus.engine.fake import FakeEngine, fake_renderer
from ludus.errors import ConfigError, UnknownName
from ludus.programs.batch import make_samples, to_data
from ludus.programs.recipe import RlConfig
from ludus.protocols import AdamW, Loss
from ludus.recording.backend import TokenBackend
from ludus.types import MAIN_ROLE

pytestmark = pytest.mark.slow

GOOD = "<think>\ndouble\n</think>\n<answer>\n{}\n</answer>"
SAME = [
    ("single_turn", [[GOOD.format(200)], ["200"], ["<answer>\n200\n</answer>"]]),
    ("multi_turn", [["1", "2", "3"], ["9"], ["3"], ["1", "2", "1", "2"]]),
    (
        "tools",
        [[["look", {"place": "box"}], "a key"], [["look", {"place": "void"}], ["count", {"words": ["a"]}], "no"]],
    ),
    ("stateful_tools", [[["pay", {"coins": 3}], "paid"], ["no"]]),
    ("compared", [["please"], ["a longer reply"], ["short, please"]]),
    ("mixture", [["yes"], ["no"]]),
]


@pytest.mark.parametrize(("module", "scripts"), SAME, ids=[module for module, _ in SAME])
async def test_the_same_replies_get_the_same_rewards_and_metrics(module, scripts):
    expected = await asyncio.to_thread(reference, module, scripts)
    env = v0(module)
    async with env.opened():
        if module == "compared":
            left = iter([script[0] for script in scripts])
            rollouts = (await play(env, Script(lambda said, messages: next(left)), size=len(scripts)))[0].rollouts
            by_reply = {rollout.reply: rollout for rollout in rollouts}
            rollouts = [by_reply[script[0]] for script in scripts]
        else:
            rollouts = [(await play(env, saying(*as_replies(script))))[0].rollouts[0] for script in scripts]
    for rollout, theirs in zip(rollouts, expected, strict=True):
        assert rollout.failure is None
        assert rollout.metrics == pytest.approx(theirs["metrics"])
        assert rollout.reward == pytest.approx(theirs["reward"])
        assert rollout.stop == theirs["stop_condition"]


async def test_weights_are_kept_and_metrics_have_none():
    env = v0("single_turn", weight=0.75)
    rollout = (await play(env, saying(GOOD.format(200))))[0].rollouts[0]
    weights = {reward.scorer: reward.weight for reward in rollout.rewards}
    assert weights == {"correct": 1.0, "format_reward_func": 0.75, "brief": 0.0, "num_turns": 0.0}


async def test_prompts_have_the_system_prompt_and_the_examples_and_splits_their_data():
    env = v0("single_turn", num_train=5, num_eval=2)
    train, test = take(env, "train"), take(env, "test")
    assert (len(train), len(test)) == (5, 2)
    assert [message["role"] for message in test[0].prompt] == ["system", "user", "assistant", "user"]
    assert test[0].answer == "200" and not {task.id for task in train} & {task.id for task in test}
    model = saying(GOOD.format(200))
    rollout = (await play(env, model))[0].rollouts[0]
    assert rollout.calls[0].messages == test[0].prompt
    assert env.sampling == {"temperature": 0.5, "max_tokens": 64}


async def test_tools_are_offered_and_the_last_word_is_kept():
    model = saying(calling("look", place="box"), "a key")
    rollout = (await play(v0("tools"), model))[0].rollouts[0]
    assert {tool["function"]["name"] for tool in model.tools[0]} == {"look", "count"}
    assert [message["role"] for message in rollout.messages] == ["user", "assistant", "tool", "assistant"]
    won = (await play(v0("multi_turn"), saying("3")))[0].rollouts[0]
    assert won.epilogue == [{"role": "user", "content": "Yes!"}]


async def test_what_has_no_data_for_testing_can_hold_some_back(caplog):
    same = v0("compared")
    assert "no data for testing" in caplog.text
    assert {task.id for task in take(same, "test")} == {task.id for task in take(same, "train")}
    env = v0("misbehaves", "bad", hold_out=0.25)
    train, test = ({task.id for task in take(env, split)} for split in ("train", "test"))
    assert len(train | test) == 40 and not train & test and len(test) < 20


@pytest.mark.parametrize("processes", [1, 2])
async def test_hundreds_at_once(processes):
    env = v0("misbehaves", "bad", processes=processes)
    groups = await play(env, saying("loop fine", "fine"), tasks=40, size=6, concurrency=240)
    assert {rollout.reward for group in groups for rollout in group.rollouts} == {1.0}


async def test_groups_are_compared_each_for_itself():
    env = v0("compared", processes=2)
    lengths = iter(range(1, 100))
    model = Script(lambda said, messages: "x" * next(lengths))
    for group in await play(env, model, tasks=2, size=4, concurrency=8):
        best = max(group.rollouts, key=lambda rollout: len(rollout.reply))
        assert [rollout.metrics["longest"] for rollout in group.rollouts] == [
            float(rollout is best) for rollout in group.rollouts
        ]
    assert not env._kept


async def test_a_step_of_training_on_the_exact_tokens():
    engine = FakeEngine(lambda prompt, random: "3" if "higher" in prompt else str(random.randrange(4)))
    env = v0("multi_turn")
    groups = await play(env, TokenBackend("fake", engine, fake_renderer()), split="train", tasks=2, size=6)
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    for rollout in rollouts:
        assert rollout.failure is None and len(rollout.sequences) == 1
        (sequence,) = rollout.sequences
        assert sequence.num_sampled == sum(call.usage.completion_tokens for call in rollout.calls)
        assert all(logprob <= 0 for logprob in sequence.logprobs)
    data = to_data(make_samples(groups, RlConfig(), [MAIN_ROLE]), "token")
    before = engine.logits_V.copy()
    await engine.forward_backward(data, Loss("importance_sampling"))
    await engine.optim_step(AdamW(lr=0.1))
    assert not np.array_equal(engine.logits_V, before)


def test_wrong_names_and_options_are_answered_with_near_ones():
    with pytest.raises(UnknownName, match="unknown verifiers environment 'single_trun'; did you mean 'single_turn'"):
        v0("single_trun")
    with pytest.raises(UnknownName, match="unknown argument of load_environment in single_turn 'num_trian'"):
        v0("single_turn", num_trian=3)
    with pytest.raises(ConfigError, match="exclude each other"):
        v0("single_turn", install="verifiers")
    with pytest.raises(ConfigError, match="hold_out must be"):
        v0("single_turn", hold_out=1.0)


def test_owner_and_version_are_not_part_of_the_module():
    python_of("verifiers-0.3.1")
    assert next(iter(v0("someone/single-turn@0.1.0").tasks("train"))).answer == "0"

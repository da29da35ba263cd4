"""What packages for verifiers before 0.4 use beside the plain forms: judges, plain prompts, errors of tools, clean-up."""

import asyncio

import pytest
from app_server import served
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from verifiers_kit import Script, calling, play, saying, v0

from ludus.authoring.tasks import take
from ludus.engine.fake import FakeEngine, fake_renderer
from ludus.recording.backend import TokenBackend

pytestmark = pytest.mark.slow


async def judge(request):
    """Approves of everything but what is wrong, and sometimes is down."""
    said = (await request.json())["messages"][-1]["content"]
    if "down" in said:
        return JSONResponse({"error": {"message": "out of order"}}, 500)
    message = {"role": "assistant", "content": "no" if "wrong" in said else "yes"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return JSONResponse({"id": "x", "object": "chat.completion", "created": 0, "model": "judge", "choices": [choice]})


async def test_a_judge_beside_plain_rewards():
    with served(Starlette(routes=[Route("/v1/chat/completions", judge, methods=["POST"])])) as url:
        env = v0("judged", judge_url=f"{url}/v1", judge_key="sk-judge-key")
        assert [task.answer for task in take(env, "train")] == ["2", "3"]
        async with env.opened():
            good, bad, unjudged = [
                (await play(env, saying(said)))[0].rollouts[0]
                for said in ("<think>hm</think> 3: five", "wrong", "down")
            ]
    assert {(r.scorer, r.value, r.weight) for r in good.rewards if r.weight} == {
        ("approved", 1.0, 0.5), ("in_place", 1.0, 2.0),
    }  # fmt: skip
    assert (good.reward, bad.reward) == (2.5, 0.0)
    assert (unjudged.failure.boundary, unjudged.rewards) == ("scorer", [])
    assert "approved raised RuntimeError: Judge model API error" in unjudged.failure.error
    assert "sk-judge-key" not in unjudged.failure.error


async def test_a_prompt_of_plain_text():
    env = v0("completion")
    engine = FakeEngine(lambda prompt, random: "there was")
    (group,) = await play(env, TokenBackend("fake", engine, fake_renderer()))
    (rollout,) = group.rollouts
    assert (rollout.failure, rollout.reward, len(rollout.sequences)) == (None, 1.0, 1)
    assert rollout.calls[0].messages == [{"role": "user", "content": "Once upon a time"}]


async def test_errors_of_tools_are_told_or_end_the_rollout():
    env = v0("strict_tools")
    async with env.opened():
        divided = (await play(env, saying(calling("divide", a=1, b=0), "oh")))[0].rollouts[0]
        unknown = (await play(env, saying(calling("multiply", a=1), "oh")))[0].rollouts[0]
        launched = (await play(env, saying(calling("launch", where="sea"), "oh")))[0].rollouts[0]
    assert (divided.failure, divided.reward) == (None, 1.0)
    assert "impossible: " in divided.messages[-2]["content"]
    assert (unknown.failure, unknown.reward) == (None, 1.0)
    assert (launched.failure.boundary, launched.failure.blame) == ("tool", "environment")
    assert "Fatal: lost over sea" in launched.failure.error


async def test_a_row_may_have_tools_of_its_own():
    env, model = v0("strict_tools"), saying(calling("ask", who="Ann"), "four")
    rollouts = [group.rollouts[0] for group in await play(env, model, tasks=2)]
    assert {"ask"} in [{tool["function"]["name"] for tool in tools} for tools in model.tools]
    assert [m["content"] for m in rollouts[1].messages if m["role"] == "tool"] == ["Ann says 4"]
    assert rollouts[0].failure is None  # to it the tool is unknown


async def test_conversations_that_do_not_extend_fork_and_all_is_closed(tmp_path):
    engine = FakeEngine(lambda prompt, random: "on")
    env = v0("sessions", place=str(tmp_path))
    (group,) = await play(env, TokenBackend("fake", engine, fake_renderer()))
    (rollout,) = group.rollouts
    assert (rollout.failure, rollout.stop, rollout.reward) == (None, "max_turns_reached", 3.0)
    assert sum(s.num_sampled for s in rollout.sequences) == sum(c.usage.completion_tokens for c in rollout.calls)
    assert [path.name for path in tmp_path.iterdir()] == ["left"]


async def test_what_breaks_in_setup_is_blamed_and_closed(tmp_path):
    env = v0("sessions", place=str(tmp_path), answer="broken")
    (group,) = await play(env, saying("stop"))
    failure = group.rollouts[0].failure
    assert (failure.boundary, failure.blame) == ("sandbox", "infrastructure")
    assert "SandboxError: no such file system" in failure.error
    assert [path.name for path in tmp_path.iterdir()] == ["left"]


async def test_a_rollout_that_is_cancelled_is_closed(tmp_path):
    class Slow(Script):
        async def complete(self, messages, tools, sampling):
            await asyncio.Event().wait()

    (group,) = await play(v0("sessions", place=str(tmp_path)), Slow(None), timeout_s=1.0)
    assert group.rollouts[0].failure.boundary == "timeout"
    assert [path.name for path in tmp_path.iterdir()] == ["left"]


async def test_groups_within_groups(tmp_path):
    env = v0("nested", place=str(tmp_path))
    tasks = take(env, "train")
    assert len(tasks) == 3
    model = Script(lambda _, messages: "stop" if messages[0]["content"] == "Go on." else "please, now")
    groups = await play(env, model, split="train", tasks=3, size=2)
    rewards = {
        group.rollouts[0].calls[0].messages[0]["content"]: [r.reward for r in group.rollouts] for group in groups
    }
    assert rewards == {
        "Say something, Ann.": [1.5, 1.5], "Say something, Bob.": [1.5, 1.5], "Go on.": [1.0, 1.0],
    }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["left"]


async def test_a_death_is_seen_though_processes_that_it_forked_live_on():
    env = v0("maths")
    answers = {"8": "4", "6": "\\boxed{3}", "0": "0"}
    model = Script(lambda _, m: f"<think>\nhm\n</think>\n\\boxed{{{answers[m[-1]['content'].split()[-1][0]]}}}")
    async with env.opened():  # the first scoring forks
        assert (await play(env, model))[0].rollouts[0].reward == 1.0
        groups = await play(env, model, tasks=3)
    rollouts = [group.rollouts[0] for group in groups]
    assert [rollout.failure is None for rollout in rollouts] == [True, True, False]
    assert "exit status 5" in rollouts[2].failure.error
    assert [rollout.reward for rollout in rollouts[:2]] == [1.0, 1.0]

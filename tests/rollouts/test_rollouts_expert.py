"""Demonstrations are rollouts like any other, with the environment's own expert in the model's place."""

import json

import pytest
from playground import Small, attempt, run

import ludus
from ludus.errors import RolloutError
from ludus.recording.expert import Expert
from ludus.types import Sampling


def call_of(name: str, **arguments) -> dict:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "call_0", "type": "function", "function": function}],
    }


class Adding(Small):
    """Keeps asking until it hears "stop"."""

    max_turns = 5

    def respond(self, ctx, reply):
        return None if reply.text == "stop" else f"after {reply.text}"

    @ludus.tool
    def double(self, x: int) -> int:
        """Double it."""
        return 2 * x


def playing(demonstrate, base=Adding):
    return type("Played", (base,), {"demonstrate": demonstrate})()


async def said(env) -> list[str]:
    rollout = await attempt(env, Expert())
    assert rollout.failure is None, rollout.failure
    return [call.reply["content"] for call in rollout.calls]


async def test_a_text_a_message_and_a_list():
    assert await said(playing(lambda self, task: "stop")) == ["stop"]
    assert await said(playing(lambda self, task: {"role": "assistant", "content": "stop"})) == ["stop"]
    assert await said(playing(lambda self, task: ["a", "b", "stop"])) == ["a", "b", "stop"]


async def test_a_coroutine_and_what_it_may_ask_for():
    async def demonstrate(self, task, state, random, ctx):
        return [str(state), str(random.random() < 2), "stop" if ctx.task is task else "?"]

    def setup(self, ctx):
        ctx.state = 7

    env = type("Stateful", (Adding,), {"demonstrate": demonstrate, "setup": setup})()
    assert await said(env) == ["7", "True", "stop"]


async def test_a_generator_is_sent_what_came_after():
    heard = []

    def demonstrate(self, task):
        heard.append((yield "a"))
        heard.append((yield "b"))
        yield "stop"

    assert await said(playing(demonstrate)) == ["a", "b", "stop"]
    assert heard == [[{"role": "user", "content": "after a"}], [{"role": "user", "content": "after b"}]]


async def test_an_asynchronous_generator():
    async def demonstrate(self, task):
        heard = yield "a"
        yield "stop" if heard[0]["content"] == "after a" else "?"

    assert await said(playing(demonstrate)) == ["a", "stop"]


async def test_an_expert_that_uses_tools():
    class Tooled(Small):
        @ludus.tool
        def double(self, x: int) -> int:
            """Double it."""
            return 2 * x

        def demonstrate(self, task):
            results = yield call_of("double", x=21)
            yield results[0]["content"]

    rollout = await attempt(Tooled(), Expert())
    assert (rollout.reply, rollout.calls[0].finish_reason) == ("42", "tool_calls")
    assert [message["role"] for message in rollout.messages] == ["user", "assistant", "tool", "assistant"]


@pytest.mark.parametrize(
    ("demonstrate", "says"),
    [
        (lambda self, task: None, "Played has no demonstration of this task"),
        (lambda self, task: ["a"], "the demonstrator has nothing more to say, but the environment goes on"),
        (lambda self, task: 1 / 0, "ZeroDivisionError"),
    ],
)
async def test_experts_that_fail(demonstrate, says):
    rollout = await attempt(playing(demonstrate), Expert())
    assert says in rollout.failure.error
    assert rollout.failure.blame == "environment"


async def test_each_rollout_has_an_expert_of_its_own():
    def demonstrate(self, task, random):
        yield task.answer
        yield f"{random.random()}"
        yield "stop"

    groups = await run(playing(demonstrate), Expert(), tasks=4, size=2)
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    assert [r.calls[0].reply["content"] for r in rollouts] == [a for a in "0123" for _ in range(2)]
    assert len({r.calls[1].reply["content"] for r in rollouts}) == 8


async def test_an_expert_speaks_in_rollouts_only():
    with pytest.raises(RolloutError, match="inside rollouts only"):
        await Expert().complete([], [], Sampling())

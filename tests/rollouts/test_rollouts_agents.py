"""Any agent is trainable: written with the plain client, or with a framework; one sequence per rollout, then a step."""

import json
from typing import Any

import numpy as np
import pytest
from openai import AsyncOpenAI, OpenAI
from playground import run

import ludus
from ludus.engine.fake import FakeEngine, fake_renderer
from ludus.programs.batch import make_samples, to_data
from ludus.programs.recipe import RlConfig
from ludus.protocols import AdamW, Loss
from ludus.recording.backend import TokenBackend
from ludus.types import MAIN_ROLE, Task

LOOK_UP = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "What the book says of a word.",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
    },
}


def look_up(word: str) -> str:
    """What the book says of a word."""
    return f"{word} is a word of {len(word)} letters"


class Book(ludus.Environment):
    """Look words up, then answer yes."""

    def tasks(self, split):
        return [Task(prompt=f"Is {word!r} long?", answer=word) for word in ("so", "sometimes")]

    @ludus.reward
    def agreed(self, rollout):
        return float(rollout.reply == "yes")


class PlainAgent(Book):
    """The loop that everybody writes with OpenAI's own client."""

    async def run(self, ctx):
        async with AsyncOpenAI(base_url=ctx.model.base_url, api_key=ctx.model.api_key) as client:
            messages: list[Any] = self.opening(ctx.task)
            while True:
                answer = await client.chat.completions.create(model="gpt", messages=messages, tools=[LOOK_UP])
                message = answer.choices[0].message
                messages.append(message)
                if not message.tool_calls:
                    return
                for called in message.tool_calls:
                    word = json.loads(called.function.arguments)["word"]
                    messages.append({"role": "tool", "tool_call_id": called.id, "content": look_up(word)})


class InProcessAgent(Book):
    """The same without a socket, streaming."""

    async def run(self, ctx):
        messages = self.opening(ctx.task)
        for _ in range(3):
            stream = await ctx.model.openai.chat.completions.create(
                model="gpt", messages=messages, tools=[LOOK_UP], stream=True
            )
            deltas = [chunk.choices[0].delta async for chunk in stream if chunk.choices]
            text = "".join(delta.content or "" for delta in deltas)
            called = [call for delta in deltas for call in delta.tool_calls or ()]
            if not called:
                return
            calls = [{"id": c.id, "type": "function", "function": c.function.model_dump()} for c in called]
            messages.append({"role": "assistant", "content": text, "tool_calls": calls})
            for call in called:
                word = json.loads(call.function.arguments)["word"]
                messages.append({"role": "tool", "tool_call_id": call.id, "content": look_up(word)})


class SynchronousAgent(Book):
    """A program that knows nothing of event loops."""

    def run(self, ctx):
        with OpenAI(base_url=ctx.model.base_url, api_key=ctx.model.api_key) as client:
            messages: list[Any] = self.opening(ctx.task)
            for _ in range(3):
                message = (
                    client.chat.completions.create(model="gpt", messages=messages, tools=[LOOK_UP]).choices[0].message
                )
                messages.append(message.to_dict())
                for called in message.tool_calls or ():
                    word = json.loads(called.function.arguments)["word"]
                    messages.append({"role": "tool", "tool_call_id": called.id, "content": look_up(word)})


class LangGraphAgent(Book):
    """An agent of another framework, unchanged but for its base URL."""

    async def run(self, ctx):
        from langchain_core.tools import tool
        from langchain_openai import ChatOpenAI
        from langgraph.prebuilt import create_react_agent

        chat = ChatOpenAI(model="gpt", base_url=ctx.model.base_url, api_key=ctx.model.api_key)
        agent = create_react_agent(chat, [tool(look_up)])
        await agent.ainvoke({"messages": self.opening(ctx.task)})
        await chat.root_async_client.close()


def policy(prompt: str, rng) -> str:
    """Looks up two words one after the other (thinking before), then answers one thing or the other."""
    looked_up = prompt.count("<|tool|>")
    if looked_up == 2:
        return rng.choice(["yes", "no"])
    word = "so" if looked_up else "sometimes"
    call = json.dumps({"name": "look_up", "arguments": {"word": word}})
    return f"<think>word {looked_up}</think>Let me see.<tool_call>{call}</tool_call>"


async def play(env):
    engine = FakeEngine(policy)
    groups = await run(env, TokenBackend("fake", engine, fake_renderer()), tasks=2, size=6)
    return engine, groups


def assert_one_sequence(rollout) -> None:
    assert rollout.failure is None, rollout.failure
    assert rollout.num_turns == 3
    (sequence,) = rollout.sequences
    assert sequence.num_sampled == rollout.usage.completion_tokens
    assert [message["role"] for message in rollout.messages] == ["user"] + ["assistant", "tool"] * 2 + ["assistant"]
    text = fake_renderer().tokenizer.decode(sequence.tokens)
    assert text.count("<think>word") == 2  # clients drop reasoning; the recorded tokens keep it
    assert "sometimes is a word of 9 letters" in text


async def train_one_step(engine, groups) -> None:
    samples = make_samples(groups, RlConfig(), [MAIN_ROLE])
    assert {sample.rollout.id for sample in samples} == {r.id for group in groups for r in group.rollouts}
    data = to_data(samples, "token")
    before = engine.logits_V.copy()
    result = await engine.forward_backward(data, Loss("importance_sampling"))
    await engine.optim_step(AdamW(lr=0.1))
    sampled = np.concatenate(
        [[p for p, m in zip(s.sequence.logprobs, s.sequence.sampled_mask, strict=True) if m] for s in samples]
    )
    np.testing.assert_allclose(result.logprobs, sampled, rtol=1e-5)  # what was recorded is what the trainer computes
    yes, no = (engine.tokenizer.encode(letter)[0] for letter in "yn")
    assert engine.logits_V[yes] > before[yes]
    assert engine.logits_V[no] < before[no]


@pytest.mark.parametrize("agent", [PlainAgent, InProcessAgent, SynchronousAgent])
async def test_agents_on_openais_client(agent):
    engine, groups = await play(agent())
    for group in groups:
        assert {rollout.reward for rollout in group.rollouts} == {0.0, 1.0}
        for rollout in group.rollouts:
            assert_one_sequence(rollout)
    await train_one_step(engine, groups)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:create_react_agent has been moved")
async def test_an_agent_of_langgraph():
    pytest.importorskip("langgraph")
    pytest.importorskip("langchain_openai")
    engine, groups = await play(LangGraphAgent())
    for group in groups:
        for rollout in group.rollouts:
            assert_one_sequence(rollout)
    await train_one_step(engine, groups)


@pytest.mark.slow
async def test_the_same_agents_play_the_same():
    """The default loop, the clients and the framework record the same tokens."""

    class Default(Book):
        @ludus.tool
        def look_up(self, word: str) -> str:
            """What the book says of a word."""
            return look_up(word)

    recorded = []
    for env in (PlainAgent(), InProcessAgent(), SynchronousAgent(), Default()):
        _, groups = await play(env)
        first = groups[0].rollouts[0].sequences[0]
        start = fake_renderer().tokenizer.decode(first.tokens).index("<|user|>")
        recorded.append((fake_renderer().tokenizer.decode(first.tokens)[start:], first.num_sampled))
    assert all(each == recorded[0] for each in recorded)

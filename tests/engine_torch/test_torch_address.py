"""The official clients talk to a real model: whatever it says, N turns are one sequence of the very tokens it sampled."""

import pytest

from ludus.programs.models import open_folder
from ludus.protocols import Datum
from ludus.recording.gateway import Gateway
from ludus.recording.model import RecordedModel
from ludus.recording.recorder import Recorder
from ludus.types import MAIN_ROLE, Sampling

TURNS = 3


async def chat(model):
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=model.base_url, api_key=model.api_key) as client:
        messages = [{"role": "user", "content": "go"}]
        for _ in range(TURNS):
            answer = await client.chat.completions.create(model="m", messages=messages)
            messages += [answer.choices[0].message.to_dict(), {"role": "user", "content": "on"}]


async def responses(model):
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=model.base_url, api_key=model.api_key) as client:
        items = [{"role": "user", "content": "go"}]
        for _ in range(TURNS):
            async for event in await client.responses.create(model="m", input=items, stream=True):
                last = event
            items += [*(item.to_dict() for item in last.response.output), {"role": "user", "content": "on"}]


async def messages(model):
    anthropic = pytest.importorskip("anthropic")
    address = model.base_url.removesuffix("/v1")
    async with anthropic.AsyncAnthropic(base_url=address, api_key=model.api_key) as client:
        said = [{"role": "user", "content": "go"}]
        for _ in range(TURNS):
            async with client.messages.stream(model="m", max_tokens=12, messages=said) as stream:
                content = (await stream.get_final_message()).content
            said += [{"role": "assistant", "content": content}, {"role": "user", "content": "on"}]


@pytest.mark.parametrize("agent", [chat, responses, messages])
async def test_turns_are_one_sequence_of_what_was_sampled(tiny, agent):
    opened, gateway = open_folder(tiny, "tiny", device="cpu", threads=1), Gateway()
    recorder = Recorder({MAIN_ROLE: opened.backend}, Sampling(max_tokens=12))
    model = RecordedModel(recorder, MAIN_ROLE, gateway)
    try:
        await agent(model)
        (sequence,) = recorder.sequences
        assert [call.parent for call in recorder.calls] == [None, 0, 1]
        assert sequence.num_sampled == sum(call.usage.completion_tokens for call in recorder.calls)
        (computed,) = await opened.engine.trainer.forward([Datum(tokens_T=sequence.tokens, arrays={})])
        kept = [t for t, mask in enumerate(sequence.sampled_mask) if mask]
        assert [computed[t] for t in kept] == pytest.approx([sequence.logprobs[t] for t in kept], abs=1e-4)
    finally:
        model.close()
        recorder.close()
        await gateway.close()
        opened.close()

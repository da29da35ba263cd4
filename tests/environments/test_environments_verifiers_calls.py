"""Model calls over the line to foreign code: both ends of it, without a process between."""

import asyncio
import json

import pytest

from ludus.engine.fake import FakeEngine, fake_renderer
from ludus.environments.verifiers.calls import Calls, Recorded
from ludus.environments.verifiers.foreign.speaking import Line, Speaker
from ludus.environments.verifiers.frames import HEADER_BYTES, pack, unpack
from ludus.recording.backend import TokenBackend
from ludus.recording.gateway import Gateway
from ludus.recording.model import RecordedModel
from ludus.recording.recorder import Recorder
from ludus.types import MAIN_ROLE, user


class Echo:
    """A model that answers with what it was asked."""

    def __init__(self):
        self.asked, self.hangs, self.cancelled = [], False, False

    async def answer(self, request):
        self.asked.append(json.loads(json.dumps(request)))
        try:
            await asyncio.sleep(1000 if self.hangs else 0)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return 200, {"said": len(self.asked)}

    def forget(self):
        self.asked.clear()


def connect(model):
    """A speaker over there, and the frames that it sends."""
    frames = []

    def arrived(text):
        frames.append(json.loads(text))
        calls.take(frames[-1])

    line = Line(arrived)
    calls = Calls(model, lambda frame: line.answered(frame["call"], frame["status"], frame["body"]))
    return Speaker(line, 1, MAIN_ROLE, "http://model", "key"), frames, calls


async def test_only_what_is_new_is_sent():
    model = Echo()
    speaker, frames, _ = connect(model)
    messages, tools = [user("go")], [{"type": "function"}]
    for said in range(3):
        assert await speaker.complete({"model": "m", "messages": messages, "tools": tools}) == (200, {"said": said + 1})
        messages = [*messages, {"role": "assistant", "content": str(said)}, user("on")]
    assert [len(frame["messages"]) for frame in frames] == [1, 2, 2]
    assert ["rest" in frame for frame in frames] == [True, False, False]
    assert model.asked[-1] == {"model": "m", "tools": tools, "messages": messages[:-2]}


async def test_what_was_edited_where_it_was_made_is_sent_again():
    model = Echo()
    speaker, _, _ = connect(model)
    messages, rest = [user("go"), user("on")], {"stop": ["a"]}
    await speaker.complete({"messages": messages, **rest})
    messages[0]["content"] = "stay"
    rest["stop"].append("b")
    await speaker.complete({"messages": messages[:1], **rest})
    assert model.asked[-1] == {"messages": [user("stay")], "stop": ["a", "b"]}


async def test_what_cannot_be_sent_leaves_both_ends_as_they_were():
    model = Echo()
    speaker, _, _ = connect(model)
    await speaker.complete({"messages": [user("go")]})
    with pytest.raises(TypeError):
        await speaker.complete({"messages": [user("go"), user(object())]})
    await speaker.complete({"messages": [user("go"), user("on")]})
    assert model.asked[-1] == {"messages": [user("go"), user("on")]}


@pytest.mark.slow
async def test_calls_side_by_side():
    model = Echo()
    speaker, _, _ = connect(model)
    await asyncio.gather(*(speaker.complete({"messages": [user("go"), user(str(i))]}) for i in range(50)))
    assert [asked["messages"][1]["content"] for asked in model.asked] == [str(i) for i in range(50)]


async def test_a_call_from_a_loop_in_a_thread():
    speaker, _, _ = connect(Echo())
    assert await asyncio.to_thread(lambda: asyncio.run(speaker.complete({"messages": [user("go")]}))) == (
        200,
        {"said": 1},
    )


async def test_a_model_that_breaks_is_an_answer_too():
    class Broken(Echo):
        async def answer(self, request):
            raise LookupError("lost")

    speaker, _, _ = connect(Broken())
    status, body = await speaker.complete({"messages": [user("go")]})
    assert status == 500 and body["error"]["message"] == "LookupError: lost"


@pytest.mark.parametrize("end", ["call", "rollout"])
async def test_a_call_ends_with_whoever_waits_for_it(end):
    model = Echo()
    model.hangs = True
    speaker, _, calls = connect(model)
    call = asyncio.create_task(speaker.complete({"messages": [user("go")]}))
    while not model.asked:
        await asyncio.sleep(0)
    if end == "call":
        call.cancel()
    else:
        calls.close()
    while not model.cancelled:
        await asyncio.sleep(0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)


async def test_a_recorded_model_answers_as_its_address_does():
    backend = TokenBackend("fake", FakeEngine(lambda prompt, random: "four"), fake_renderer())
    gateway = Gateway()
    model = RecordedModel(Recorder({MAIN_ROLE: backend}), MAIN_ROLE, gateway)
    assert isinstance(model, Recorded)
    status, body = await model.answer({"model": "m", "messages": [user("2 + 2?")], "max_tokens": 50})
    assert (status, body["choices"][0]["message"]["content"]) == (200, "four")
    status, body = await model.answer({"model": "m", "messages": [user("2 + 2?")], "n": 2})
    assert status == 400 and "n = 2" in body["error"]["message"]
    assert len(model.recorder.calls) == 1 and "n = 2" in str(model.recorder.failed)
    await gateway.close()


@pytest.mark.parametrize("value", [{"text": "ä"}, {"text": "\ud800"}, {"text": [1.5, None, True]}])
def test_frames(value):
    frame = pack(value)
    assert int.from_bytes(frame[:HEADER_BYTES], "big") == len(frame) - HEADER_BYTES
    assert unpack(frame[HEADER_BYTES:]) == value


def test_frames_of_another_json():
    assert unpack(b'["\\ud800", NaN]')[0] == "\ud800"

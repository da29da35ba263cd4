"""What is recorded: the sampled ids themselves, one sequence for N linear turns, a fork for what does not extend."""

import asyncio
import json
import math
from copy import deepcopy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ludus.engine.fake import FakeEngine, fake_renderer
from ludus.errors import ModelCallFailed
from ludus.protocols import WeightsRef
from ludus.recording.backend import TokenBackend
from ludus.recording.recorder import Recorder
from ludus.types import MAIN_ROLE, Reply, Sampling

RENDERER = fake_renderer()
TOOLS = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}]
END = "<|end|>"

texts = st.text("ab 1\n.é", max_size=8)
solid = st.text("ab1.é", min_size=1, max_size=8)
values = st.none() | st.booleans() | st.integers(-99, 99) | texts | st.lists(st.integers(0, 9), max_size=2)
calls = st.lists(st.dictionaries(texts, values, max_size=3).map(lambda a: {"name": "f", "arguments": a}), max_size=2)


@st.composite
def replies(draw):
    """What a model might say, in the form the template has it in: reasoning, text, tool calls."""
    thought, called = draw(st.none() | solid), draw(calls)
    text = draw(solid) if not called else draw(solid | st.just(""))
    blocks = "".join(f"<tool_call>{json.dumps(call, ensure_ascii=False)}</tool_call>" for call in called)
    return (f"<think>{thought}</think>" if thought else "") + text + blocks


turns = st.lists(st.tuples(replies(), st.lists(texts, min_size=1, max_size=2)), min_size=1, max_size=4)


class Scripted:
    """An engine that says what it is told to, in turn."""

    def __init__(self, said=()):
        self.said = iter(said)
        self.engine = FakeEngine(lambda prompt, rng: next(self.said))
        self.backend = TokenBackend("fake", self.engine, RENDERER)

    def recorder(self, **settings):
        return Recorder({MAIN_ROLE: self.backend, "judge": self.backend}, session="r", **settings)


def say(*said):
    return Scripted(said).recorder()


def follow_up(reply: Reply, said: list[str]) -> list[dict]:
    """What comes after a reply: a result for each of its tool calls, or else user messages."""
    called = [call["id"] for call in reply.message.get("tool_calls") or ()]
    if called:
        return [{"role": "tool", "tool_call_id": id, "content": said[0]} for id in called]
    return [{"role": "user", "content": text} for text in said]


async def converse(recorder: Recorder, script, mangle=lambda message: message, tools=()):
    """Play a whole conversation; what was said before is shown to the model as `mangle` has it."""
    history, new = [], [{"role": "user", "content": "go"}]
    for _, said in script:
        reply = await recorder.call(MAIN_ROLE, [*(mangle(deepcopy(message)) for message in history), *new], tools)
        history += [*new, reply.message]
        new = follow_up(reply, said)
    return history + new


def check(recorder: Recorder) -> None:
    """What holds of any recording."""
    for position, sequence in enumerate(recorder.sequences):
        T = len(sequence.tokens)
        assert sequence.id == position
        assert T == len(sequence.sampled_mask) == len(sequence.logprobs) == len(sequence.versions)
        for t in range(T):
            if sequence.sampled_mask[t]:
                assert sequence.logprobs[t] < 0 <= sequence.versions[t]
            else:
                assert (sequence.logprobs[t], sequence.versions[t]) == (0.0, -1)
        if sequence.parent is not None:
            parent = recorder.sequences[sequence.parent]
            assert sequence.parent < sequence.id
            assert parent.role == sequence.role
            assert sequence.tokens[: sequence.fork_at] == parent.tokens[: sequence.fork_at]
            assert not any(sequence.sampled_mask[: sequence.fork_at])
    spoken = sum(call.usage.completion_tokens for call in recorder.calls)
    assert spoken == sum(sequence.num_sampled for sequence in recorder.sequences)  # none twice, none lost


def sampled_texts(sequence) -> list[str]:
    """The runs of sampled tokens as text."""
    runs, previous = [], 0
    for token, mask in zip(sequence.tokens, sequence.sampled_mask, strict=True):
        if mask and not previous:
            runs.append([])
        if mask:
            runs[-1].append(token)
        previous = mask
    return [RENDERER.tokenizer.decode(run) for run in runs]


def run(coroutine):
    return asyncio.run(coroutine)


# --- linear conversations -----------------------------------------------------------------------------------------


@given(turns, st.booleans())
@settings(max_examples=60, deadline=None)
def test_linear_turns_are_one_sequence(script, with_tools):
    tools = TOOLS if with_tools else ()
    recorder = say(*(reply for reply, _ in script))
    messages = run(converse(recorder, script, tools=tools))
    (sequence,) = recorder.sequences
    assert sampled_texts(sequence) == [reply + END for reply, _ in script]
    last = max(i for i, message in enumerate(messages) if message["role"] == "assistant")
    rendered = RENDERER.render(messages[:last], tools)
    assert sequence.tokens == rendered + RENDERER.tokenizer.encode(script[-1][0] + END)
    assert [call.parent for call in recorder.calls] == [None, *range(len(script) - 1)]
    assert recorder.num_forks == 0
    check(recorder)


def mangled(message: dict) -> dict:
    """A message as clients send it back: no reasoning, null fields, JSON written anew, text as parts."""
    message.pop("reasoning_content", None)
    message |= {"refusal": None, "audio": None}
    for call in message.get("tool_calls") or ():
        arguments = json.loads(call["function"]["arguments"])
        call["function"]["arguments"] = json.dumps(dict(reversed(arguments.items())), indent=1)
        call["index"] = 0
    if message.get("tool_calls") and not message["content"]:
        message["content"] = None
    elif message["role"] != "tool":
        message["content"] = [{"type": "text", "text": message["content"]}]
    return message


@given(turns)
@settings(max_examples=60, deadline=None)
def test_what_clients_make_of_a_conversation_still_extends_it(script):
    said = [reply for reply, _ in script]
    faithful, through_client = say(*said), say(*said)
    run(converse(faithful, script))
    run(converse(through_client, script, mangled))
    (mine,), (theirs,) = faithful.sequences, through_client.sequences
    assert theirs == mine
    check(through_client)


async def test_versions_are_those_that_sampled():
    model = Scripted(["a", "b", "c"])
    recorder, messages = model.recorder(), [{"role": "user", "content": "go"}]
    for version in (0, 3, 4):
        await model.engine.publish(WeightsRef(version=version))
        reply = await recorder.call(MAIN_ROLE, messages)
        messages += [reply.message, {"role": "user", "content": "on"}]
    (sequence,) = recorder.sequences
    assert [v for v in sequence.versions if v >= 0] == [0, 0, 3, 3, 4, 4]
    check(recorder)


async def test_a_reply_that_was_cut_is_closed_by_us():
    recorder = say("abcdef", "fine")
    cut = await recorder.call(MAIN_ROLE, [{"role": "user", "content": "go"}], overrides={"max_tokens": 3})
    assert (cut.text, cut.truncated) == ("abc", True)
    await recorder.call(MAIN_ROLE, [{"role": "user", "content": "go"}, cut.message, {"role": "user", "content": "on"}])
    (sequence,) = recorder.sequences
    assert sampled_texts(sequence) == ["abc", "fine" + END]
    assert RENDERER.tokenizer.decode(sequence.tokens) == (
        "<|user|>go<|end|><|assistant|>abc<|end|><|user|>on<|end|><|assistant|>fine<|end|>"
    )


async def test_logprobs_are_of_the_tempered_distribution():
    model = Scripted(["a"])
    token = RENDERER.tokenizer.encode("a")[0]
    model.engine.logits_V[token] = 2.0
    recorder = model.recorder(sampling=Sampling(temperature=0.5))
    reply = await recorder.call(MAIN_ROLE, [{"role": "user", "content": "go"}])
    expected = 4.0 - math.log(math.exp(4.0) + len(model.engine.logits_V) - 1)
    assert recorder.sampled(reply)[0] == ("a", pytest.approx(expected))
    assert [text for text, _ in recorder.sampled(reply)] == ["a", END]
    assert recorder.sequences[0].temperature == 0.5


# --- forks --------------------------------------------------------------------------------------------------------


@given(turns, st.data())
@settings(max_examples=60, deadline=None)
def test_rewritten_history_forks_and_is_never_spliced(script, data):
    recorder = say(*(reply for reply, _ in script), "last")
    messages = run(converse(recorder, script))
    before = deepcopy(recorder.sequences[0])
    index = data.draw(st.integers(0, len(messages) - 1))
    rewritten = deepcopy(messages)
    rewritten[index]["content"] = str(rewritten[index]["content"]) + "!"
    run(recorder.call(MAIN_ROLE, rewritten))
    check(recorder)
    last = recorder.sequences[-1]
    assert sampled_texts(last)[-1] == "last" + END
    answered = max(i for i, message in enumerate(messages) if message["role"] == "assistant")
    if index <= answered:  # what comes after the last reply is new in any case
        assert (recorder.num_forks, recorder.sequences[0]) == (1, before)
        assert last.tokens == RENDERER.render(rewritten) + RENDERER.tokenizer.encode("last" + END)
        assert (last.parent, last.num_sampled) == (0, 5)


@given(turns, st.integers(2, 4))
@settings(max_examples=30, deadline=None)
def test_parallel_calls_on_one_parent_fork(script, width):
    recorder = say(*(reply for reply, _ in script), *"abcd")
    messages = run(converse(recorder, script))

    async def fan_out():
        asked = [[*messages, {"role": "user", "content": str(i)}] for i in range(width)]
        return await asyncio.gather(*(recorder.call(MAIN_ROLE, each) for each in asked))

    run(fan_out())
    check(recorder)
    assert len(recorder.sequences) == width
    end = len(recorder.sequences[0].tokens)
    for fork in recorder.sequences[1:]:
        assert (fork.parent, fork.num_sampled) == (0, 2)
        assert fork.fork_at < end
    assert {call.parent for call in recorder.calls[-width:]} == {len(script) - 1}


@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=3), min_size=1, max_size=5), st.randoms())
@settings(max_examples=60, deadline=None)
@pytest.mark.slow
def test_any_tree_of_concurrent_calls(batches, rng):
    """Each batch runs at once; each call goes on from some earlier conversation, or begins one, in either role."""
    engine = FakeEngine(lambda prompt, draw: draw.choice(["a", "bb", "<think>c</think>d"]))
    backend = TokenBackend("fake", engine, RENDERER)
    recorder = Recorder({MAIN_ROLE: backend, "judge": backend})
    conversations = [(role, [{"role": "user", "content": role}]) for role in (MAIN_ROLE, "judge")]

    async def play():
        for batch in batches:
            chosen = [conversations[pick % len(conversations)] for pick in batch]
            answers = await asyncio.gather(*(recorder.call(role, messages) for role, messages in chosen))
            for (role, messages), reply in zip(chosen, answers, strict=True):
                more = {"role": "user", "content": str(rng.randint(0, 1))}
                conversations.append((role, [*messages, reply.message, more]))

    run(play())
    check(recorder)
    assert len(recorder.calls) == sum(map(len, batches))
    for call in recorder.calls:
        assert recorder.sequences[call.sequence].role == call.role
        assert call.parent is None or recorder.calls[call.parent].role == call.role


async def test_other_tools_are_another_prompt():
    recorder = say("a", "b")
    first = [{"role": "user", "content": "go"}]
    reply = await recorder.call(MAIN_ROLE, first, TOOLS)
    other = deepcopy(TOOLS)
    other[0]["function"]["description"] = "another"
    await recorder.call(MAIN_ROLE, [*first, reply.message, {"role": "user", "content": "on"}], other)
    assert recorder.num_forks == 1
    check(recorder)


async def test_another_temperature_is_another_sequence():
    recorder = say("a", "b")
    first = [{"role": "user", "content": "go"}]
    reply = await recorder.call(MAIN_ROLE, first)
    await recorder.call(
        MAIN_ROLE, [*first, reply.message, {"role": "user", "content": "on"}], overrides={"temperature": 0.5}
    )
    assert [s.temperature for s in recorder.sequences] == [1.0, 0.5]
    assert recorder.sequences[1].fork_at == len(recorder.sequences[0].tokens)
    check(recorder)


async def test_roles_have_their_own_sequences():
    recorder = say("a", "b")
    same = [{"role": "user", "content": "go"}]
    for role in (MAIN_ROLE, "judge"):
        await recorder.call(role, same)
    assert [(s.role, s.parent) for s in recorder.sequences] == [(MAIN_ROLE, None), ("judge", None)]
    assert recorder.num_forks == 0


async def test_a_reply_asked_to_go_on_is_not_spliced():
    recorder = say("a", "b")
    first = [{"role": "user", "content": "go"}]
    reply = await recorder.call(MAIN_ROLE, first)
    await recorder.call(MAIN_ROLE, [*first, reply.message])
    assert recorder.num_forks == 1
    check(recorder)


# --- the record is the record -------------------------------------------------------------------------------------


async def test_editing_a_conversation_afterwards_changes_no_record():
    recorder = say("<think>hm</think>a", "b")
    messages = [{"role": "user", "content": "go"}]
    reply = await recorder.call(MAIN_ROLE, messages)
    messages.append(reply.message)
    messages[0]["content"] = "(summary)"
    reply.message["content"] = "A"
    reply.message.pop("reasoning_content")
    assert recorder.calls[0].messages == [{"role": "user", "content": "go"}]
    assert recorder.calls[0].reply == {"role": "assistant", "reasoning_content": "hm", "content": "a"}
    assert recorder.sampled(reply)[-2][0] == "a"
    await recorder.call(MAIN_ROLE, [*messages, {"role": "user", "content": "on"}])
    assert recorder.num_forks == 1


async def test_a_failed_call_leaves_nothing_to_train_on():
    recorder = say("a")
    with pytest.raises(ModelCallFailed) as caught:
        await recorder.call(MAIN_ROLE, [{"role": "user", "content": "x" * 5000}])
    assert caught.value.blame == "policy"
    assert recorder.failed is caught.value
    await recorder.call(MAIN_ROLE, [{"role": "user", "content": "go"}])
    assert recorder.failed is None
    assert (len(recorder.calls), recorder.waiting) == (1, False)
    (spoken,) = [s for s in recorder.sequences if s.num_sampled]
    assert spoken.parent is None


async def test_after_the_end_nothing_is_recorded():
    release = asyncio.Event()

    class Slow(FakeEngine):
        async def sample(self, request):
            await release.wait()
            async for chunk in super().sample(request):
                yield chunk

    engine = Slow(lambda prompt, rng: "a")
    recorder = Recorder({MAIN_ROLE: TokenBackend("slow", engine, RENDERER)}, session="r")
    late = asyncio.create_task(recorder.call(MAIN_ROLE, [{"role": "user", "content": "go"}]))
    await asyncio.sleep(0)
    assert recorder.waiting
    recorder.close()
    release.set()
    with pytest.raises(ModelCallFailed, match="is over"):
        await late
    with pytest.raises(ModelCallFailed, match="is over"):
        await recorder.call(MAIN_ROLE, [{"role": "user", "content": "go"}])
    assert recorder.calls == []
    assert not any(s.num_sampled for s in recorder.sequences)
    assert engine.releases == ["r/0"]


async def test_seeds_of_calls_come_from_the_rollouts_seed():
    async def drawn(seed):
        recorder = Recorder({MAIN_ROLE: TokenBackend("fake", FakeEngine(), RENDERER)}, Sampling(max_tokens=8), seed)
        for _ in range(2):
            await recorder.call(MAIN_ROLE, [{"role": "user", "content": "go"}])
        return [sequence.tokens for sequence in recorder.sequences]

    assert await drawn(1) == await drawn(1)
    assert await drawn(1) != await drawn(2)
    first, second = await drawn(1)
    assert first != second


async def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="temperature must be >= 0"):
        await say("a").call(MAIN_ROLE, [{"role": "user", "content": "go"}], overrides={"temperature": -1})


async def test_messages_are_all_there_is_of_a_model_without_tokens():
    class Api:
        name = "api"

        async def complete(self, messages, tools, sampling):
            return Reply({"role": "assistant", "content": str(len(messages))})

    recorder = Recorder({MAIN_ROLE: Api()})
    messages = [{"role": "user", "content": "go"}]
    reply = await recorder.call(MAIN_ROLE, messages)
    reply = await recorder.call(MAIN_ROLE, [*messages, reply.message, {"role": "user", "content": "on"}])
    assert [call.parent for call in recorder.calls] == [None, 0]
    assert recorder.calls[1].messages == [{"role": "user", "content": "on"}]
    assert (recorder.sequences, recorder.sampled(reply), reply.text) == ([], [], "3")


async def test_what_is_under_way_when_the_record_begins_again_stays_out_of_it():
    class Gated:
        name, go = "gated", asyncio.Event()

        async def complete(self, messages, tools, sampling):
            await self.go.wait()
            return Reply({"role": "assistant", "content": "hello"})

    recorder, asked = Recorder({MAIN_ROLE: Gated()}), [{"role": "user", "content": "hi"}]
    early = asyncio.create_task(recorder.call(MAIN_ROLE, asked))
    await asyncio.sleep(0)
    recorder.forget()
    Gated.go.set()
    with pytest.raises(ModelCallFailed, match="is over"):
        await early
    assert (recorder.calls, recorder.failed, recorder.waiting) == ([], None, False)
    await recorder.call(MAIN_ROLE, asked)
    assert len(recorder.calls) == 1

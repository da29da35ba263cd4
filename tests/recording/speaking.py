"""What the tests of a rollout's address share: one rollout's model, its end, and what the fake engine says."""

from contextlib import asynccontextmanager

from ludus.engine.fake import FakeEngine, fake_renderer
from ludus.recording.backend import TokenBackend
from ludus.recording.gateway import Gateway
from ludus.recording.model import RecordedModel
from ludus.recording.recorder import Recorder
from ludus.types import MAIN_ROLE

LOOK_UP = '<think>let me see</think>One moment.<tool_call>{"name": "look_up", "arguments": {"word": "tea"}}</tool_call>'
TWICE = '<tool_call>{"name": "look_up", "arguments": {"word": "a"}}</tool_call>' * 2


def policy(prompt: str, rng) -> str:
    """Looks a word up, then answers with how many messages it has seen."""
    if "<|tool|>" in prompt:
        return f"<think>so</think>seen {prompt.count('<|end|>')}"
    return LOOK_UP


@asynccontextmanager
async def rollout(script=policy, backend=None, **recording):
    """One rollout's model, with the fake engine behind it."""
    gateway = Gateway()
    backend = backend or TokenBackend("fake", FakeEngine(script), fake_renderer())
    recorder = Recorder({MAIN_ROLE: backend}, **recording)
    model = RecordedModel(recorder, MAIN_ROLE, gateway)
    try:
        yield model
    finally:
        model.close()
        recorder.close()
        await gateway.close()


def check_one_sequence(model: RecordedModel, turns: int) -> None:
    """That many turns are one sequence whose tokens are those that were sampled."""
    recorder = model.recorder
    (sequence,) = recorder.sequences
    assert [call.parent for call in recorder.calls] == [None, *range(turns - 1)]
    assert sequence.num_sampled == sum(call.usage.completion_tokens for call in recorder.calls)
    text = fake_renderer().tokenizer.decode(sequence.tokens)
    assert text.count("<think>") == turns  # clients may drop the reasoning; the recorded tokens keep it

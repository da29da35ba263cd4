"""What the sampler returns is what the trainer would compute, whoever shares the batch, whatever the cache holds."""

from __future__ import annotations

import asyncio
import json
import random
import shutil

import pytest

from ludus.engine.torch.batch import ITERATION_TOKENS, PREFILL_CHUNK
from ludus.errors import ModelCallFailed, UnknownName, UsageError
from ludus.protocols import AdamW, Datum, Lockstep, Loss, Sampler, SampleRequest, Trainer, WeightsRef
from ludus.testing.engine_suite import complete
from ludus.types import Sampling

VOCABULARY = 366


def words(seed, length):
    rng = random.Random(seed)
    return [rng.randrange(VOCABULARY) for _ in range(length)]


def request(tokens, *, session="", order=(), stream=False, **sampling):
    return SampleRequest(tokens=tokens, sampling=Sampling(**sampling), session=session, order=order, stream=stream)


class Conversation:
    """A rollout of several turns on its own session, and everything that was recorded of it."""

    def __init__(self, number, *, prompt=None, turns=3, temperature=1.0):
        self.number, self.turns, self.temperature = number, turns, temperature
        self.tokens = list(prompt) if prompt is not None else words(f"prompt {number}", 5 + number * 3 % 40)
        self.logprobs = [0.0] * len(self.tokens)
        self.mask = [0] * len(self.tokens)

    async def run(self, sampler, jitter=None, releases=True):
        for turn in range(self.turns):
            if jitter is not None:
                await asyncio.sleep(jitter.random() * 0.003)
            chunk = await complete(
                sampler,
                request(
                    self.tokens[:],
                    session=f"s{self.number}",
                    order=(self.number,),
                    max_tokens=1 + (self.number + turn) % 6,
                    temperature=self.temperature,
                    seed=1000 * self.number + turn,
                ),
            )
            self._add(chunk.tokens, chunk.logprobs, 1)
            reply = words(f"reply {self.number} {turn}", 1 + (self.number * 7 + turn) % 20)
            self._add(reply, [0.0] * len(reply), 0)
        if releases:
            sampler.release(f"s{self.number}")
        return self

    def _add(self, tokens, logprobs, mask):
        self.tokens += tokens
        self.logprobs += logprobs
        self.mask += [mask] * len(tokens)


async def assert_trainer_agrees(engine, conversations):
    data = [Datum(tokens_T=c.tokens, arrays={}, temperature=c.temperature) for c in conversations]
    for conversation, row in zip(conversations, await engine.trainer.forward(data), strict=True):
        for ours, theirs, mask in zip(conversation.logprobs, row, conversation.mask, strict=True):
            assert not mask or abs(ours - theirs) < 1e-4, f"conversation {conversation.number}: {ours} and {theirs}"


def test_the_engine_is_what_the_protocols_say(make_engine):
    engine = make_engine()
    assert isinstance(engine.sampler, Sampler)
    assert isinstance(engine.sampler, Lockstep)
    assert isinstance(engine.trainer, Trainer)
    assert engine.sampler.context == 1024


async def test_sampled_logprobs_are_the_trainers(make_engine):
    engine = make_engine()
    conversations = [Conversation(i, temperature=(1.0, 0.6, 1.5)[i % 3]) for i in range(24)]
    await asyncio.gather(*(c.run(engine.sampler) for c in conversations))
    await assert_trainer_agrees(engine, conversations)


async def test_rollouts_that_begin_alike_share_what_is_computed(make_engine):
    engine = make_engine()
    prompts = [words("system", 20) + words(group, 15) for group in range(3)]
    conversations = [Conversation(i, prompt=prompts[i % 3]) for i in range(18)]
    await asyncio.gather(*(c.run(engine.sampler) for c in conversations))
    await assert_trainer_agrees(engine, conversations)


@pytest.mark.slow
async def test_short_memory_only_costs_time(make_engine):
    bytes_per_position = 2 * 4 * 2 * 32 * 4
    engine = make_engine(cache_bytes=bytes_per_position * 300)
    conversations = [Conversation(i) for i in range(12)]
    await asyncio.gather(*(c.run(engine.sampler) for c in conversations))
    await assert_trainer_agrees(engine, conversations)
    with pytest.raises(ModelCallFailed, match="cache_bytes"):
        await complete(engine.sampler, request(words(0, 400), max_tokens=2))
    await complete(engine.sampler, request(words(0, 30), max_tokens=2))


async def test_no_memory_at_all_is_said(make_engine):
    with pytest.raises(ModelCallFailed, match="cache_bytes"):
        await complete(make_engine(cache_bytes=1000).sampler, request([1, 2, 3], max_tokens=1))


@pytest.mark.slow
async def test_more_tokens_than_one_iteration_takes_are_computed_in_several(make_engine, sharp, tmp_path):
    folder = shutil.copytree(sharp, tmp_path / "long")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 4096}))
    engine = make_engine(folder)
    lengths = [PREFILL_CHUNK + 100, 2 * PREFILL_CHUNK + 1, *[PREFILL_CHUNK - 50] * 7]
    assert sum(lengths) > ITERATION_TOKENS
    conversations = [Conversation(i, prompt=words(i, n), turns=2) for i, n in enumerate(lengths)]
    await asyncio.gather(*(c.run(engine.sampler) for c in conversations))
    await assert_trainer_agrees(engine, conversations)


@pytest.mark.slow
async def test_small_batches_make_the_rest_wait(make_engine):
    engine = make_engine(max_batch=3)
    conversations = [Conversation(i) for i in range(10)]
    await asyncio.gather(*(c.run(engine.sampler) for c in conversations))
    await assert_trainer_agrees(engine, conversations)


async def test_a_conversation_that_goes_back_recomputes_only_the_rest(make_engine):
    engine = make_engine()
    start = words("start", 30)
    first = await complete(engine.sampler, request(start, session="s", max_tokens=4, seed=1))
    await complete(engine.sampler, request(start + first.tokens + [5, 6], session="s", max_tokens=4, seed=2))
    again = await complete(engine.sampler, request(start, session="s", max_tokens=4, seed=1))
    assert again.tokens == first.tokens
    assert again.logprobs == pytest.approx(first.logprobs, abs=1e-4)


async def test_new_weights_never_meet_old_caches(make_engine):
    engine, fresh = make_engine(), make_engine()
    tokens = words("prompt", 40)
    data = [Datum(tokens_T=tokens, arrays={"weights": [1.0] * 40})]
    await complete(engine.sampler, request(tokens, session="s", max_tokens=3, seed=1))
    for trainer in (engine.trainer, fresh.trainer):
        await trainer.forward_backward(data, Loss("cross_entropy"))
        await trainer.optim_step(AdamW(lr=1e-2))
    warm = await complete(engine.sampler, request(tokens, session="s", max_tokens=3, seed=1))
    assert warm.versions == [1, 1, 1]  # what comes after a step belongs to the version that is about to be published
    await engine.publish(WeightsRef(), "in_flight")
    assert engine.version == 1
    cold = await complete(fresh.sampler, request(tokens, session="s", max_tokens=3, seed=1))
    assert warm.tokens == cold.tokens
    assert warm.logprobs == pytest.approx(cold.logprobs, abs=1e-5)


async def test_publish_waits_for_running_requests_only_when_asked(make_engine):
    engine = make_engine()
    stream = engine.sampler.sample(request([1, 2, 3], max_tokens=60, seed=0, stream=True))
    await anext(stream)
    await engine.publish(WeightsRef(), "in_flight")
    drained = asyncio.create_task(engine.publish(WeightsRef(version=9), "drain"))
    versions = [version async for chunk in stream for version in chunk.versions]
    await drained
    assert versions[-1] == 1
    assert (await complete(engine.sampler, request([1, 2, 3], max_tokens=1))).versions == [9]


@pytest.mark.parametrize("stream", [False, True])
async def test_stop_strings_end_a_reply_with_the_token_that_completes_them(make_engine, stream):
    def decode(ids):
        return "".join(chr(65 + i % 26) for i in ids)

    engine = make_engine(decode=decode)
    free = await complete(engine.sampler, request([1, 2, 3], max_tokens=12, seed=4))
    stop = decode(free.tokens)[5:7]
    stopped = await complete(engine.sampler, request([1, 2, 3], max_tokens=12, seed=4, stop=(stop,), stream=stream))
    assert stopped.tokens == free.tokens[: decode(free.tokens).index(stop) + 2]
    assert stopped.finish_reason == "stop"


async def test_stop_strings_need_a_tokenizer(make_engine):
    with pytest.raises(UsageError, match="stop strings need a tokenizer"):
        await complete(make_engine().sampler, request([1], stop=("x",)))


async def test_replies_end_with_the_context(make_engine):
    engine = make_engine()
    chunk = await complete(engine.sampler, request(words(0, 1000)))
    assert len(chunk.tokens) == 24
    assert chunk.finish_reason == "length"
    with pytest.raises(ModelCallFailed, match=r"1024 tokens, the model's context 1024") as caught:
        await complete(engine.sampler, request(words(0, 1024)))
    assert caught.value.blame == "policy"


@pytest.mark.parametrize(
    ("tokens", "weights", "error"),
    [
        ([], WeightsRef(), UsageError),
        ([1, 10**6], WeightsRef(), UsageError),
        ([-1], WeightsRef(), UsageError),
        ([1], WeightsRef(name="opponent"), UnknownName),
        ([1], WeightsRef(version=3), UnknownName),
    ],
)
async def test_bad_requests_are_refused_and_harm_nobody(make_engine, tokens, weights, error):
    engine = make_engine()
    other = asyncio.create_task(complete(engine.sampler, request([1, 2, 3], max_tokens=20)))
    with pytest.raises(error):
        await complete(engine.sampler, SampleRequest(tokens=tokens, sampling=Sampling(), weights=weights))
    assert len((await other).tokens) == 20


async def test_a_crash_fails_everyone_and_the_engine_goes_on(make_engine):
    def decode(ids):
        raise ZeroDivisionError("decoder broke")

    engine = make_engine(decode=decode)
    requests = [request([1, 2, 3], max_tokens=50, session=str(i)) for i in range(5)]
    requests.append(request([1, 2, 3], max_tokens=50, stop=("x",)))
    outcomes = await asyncio.gather(*(complete(engine.sampler, r) for r in requests), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {ModelCallFailed}
    assert "ZeroDivisionError: decoder broke" in str(outcomes[0])
    assert len((await complete(engine.sampler, request([1, 2, 3], max_tokens=4))).tokens) == 4


async def test_weights_that_diverged_are_said(make_engine):
    engine = make_engine()
    engine.decoder.flat.values_N.fill_(float("nan"))
    with pytest.raises(ModelCallFailed, match="not finite"):
        await complete(engine.sampler, request([1, 2, 3], max_tokens=4))


async def test_closing_fails_who_still_waits(make_engine):
    engine = make_engine()
    stream = engine.sampler.sample(request([1, 2, 3], stream=True))
    await anext(stream)
    await asyncio.to_thread(engine.close)
    with pytest.raises(ModelCallFailed, match="closed"):
        async for _ in stream:
            pass
    with pytest.raises(ModelCallFailed, match="closed"):
        await complete(engine.sampler, request([1]))
    with pytest.raises(UsageError, match="closed"):
        await engine.publish(WeightsRef())
    engine.sampler.release("s")  # who tidies up late is not punished
    engine.sampler.detach()
    engine.close()


async def test_cancelled_requests_make_room(make_engine):
    engine = make_engine(max_batch=1)
    endless = asyncio.create_task(complete(engine.sampler, request([1, 2, 3])))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(complete(engine.sampler, request([1, 2, 3])))
    await asyncio.sleep(0)
    for task in (endless, waiting):
        task.cancel()
    outcomes = await asyncio.gather(endless, waiting, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError}
    assert len((await complete(engine.sampler, request([1, 2, 3], max_tokens=2))).tokens) == 2


async def test_without_a_seed_draws_differ(make_engine):
    engine = make_engine()
    draws = [(await complete(engine.sampler, request([1, 2, 3], max_tokens=12))).tokens for _ in range(3)]
    assert len({tuple(draw) for draw in draws}) == 3


# --- deterministic mode -------------------------------------------------------------------------------------------


async def play(sampler, conversation, jitter):
    try:
        return await conversation.run(sampler, jitter)
    finally:
        sampler.detach()


async def run_with_jitter(engine, seed):
    jitter = random.Random(seed)
    prompts = [words("system", 12) + words(group, 9) for group in range(4)]
    conversations = [Conversation(i, prompt=prompts[i % 4], turns=1 + i % 4) for i in range(16)]
    engine.sampler.attach(len(conversations))
    jitter.shuffle(conversations)
    await asyncio.gather(*(play(engine.sampler, c, jitter) for c in conversations))
    return {c.number: (c.tokens, c.logprobs) for c in conversations}


async def test_deterministic_mode_gives_equal_bits_whatever_the_clock(make_engine):
    runs = [await run_with_jitter(make_engine(deterministic=True), seed) for seed in (1, 2)]
    assert runs[0] == runs[1]


async def test_deterministic_mode_survives_short_memory(make_engine):
    runs = [
        await run_with_jitter(make_engine(deterministic=True, cache_bytes=2 * 4 * 2 * 32 * 4 * 600), seed)
        for seed in (1, 2)
    ]
    assert runs[0] == runs[1]


async def test_deterministic_mode_waits_for_everyone_attached(make_engine):
    engine = make_engine(deterministic=True)
    engine.sampler.attach(2)
    first = asyncio.create_task(complete(engine.sampler, request([1, 2, 3], max_tokens=2)))
    await engine.trainer.weights_hash()  # the engine's thread has been there
    await asyncio.sleep(0.01)
    assert not first.done()
    engine.sampler.detach()
    assert len((await first).tokens) == 2


async def test_deterministic_mode_refuses_two_calls_of_one_rollout(make_engine):
    """They could never be composed the same way each time; and what waits for nobody must not wait for ever."""
    engine = make_engine(deterministic=True)
    engine.sampler.attach(1)
    calls = [complete(engine.sampler, request([1, 2, 3], max_tokens=2)) for _ in range(2)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert all("one model call at a time from each rollout" in str(answer) for answer in answers)
    assert len((await complete(engine.sampler, request([1, 2, 3], max_tokens=2))).tokens) == 2

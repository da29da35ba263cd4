"""The conformance suite of engines: what every Sampler and every Trainer must do, as assertions that say what is wrong.

    async def test_my_engine():
        await check_sampler(lambda: MyEngine().sampler)
        await check_trainer(lambda: MyEngine().trainer)

Token ids up to 31 must exist. What an engine adds (caches, devices, formats) is for its own tests.
"""

from __future__ import annotations

import asyncio
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ludus.errors import ModelCallFailed
from ludus.protocols import AdamW, Datum, Loss, SampleChunk, Sampler, SampleRequest, Trainer, WeightsRef
from ludus.types import Sampling

PROMPT = [3, 5, 7, 11]
CROSS_ENTROPY = Loss("cross_entropy")
TOLERANCE = 1e-4


async def complete(sampler: Sampler, request: SampleRequest) -> SampleChunk:
    """All chunks of a request as one."""
    tokens: list[int] = []
    logprobs: list[float] = []
    versions: list[int] = []
    reason = None
    async for chunk in sampler.sample(request):
        assert reason is None, "a chunk came after the one with a finish reason"
        tokens += chunk.tokens
        logprobs += chunk.logprobs
        versions += chunk.versions
        reason = chunk.finish_reason
    assert reason is not None, "the last chunk must have a finish reason"
    return SampleChunk(tokens, logprobs, versions, reason)


# --- samplers -----------------------------------------------------------------------------------------------------


async def check_sampler(make_sampler: Callable[[], Sampler]) -> None:
    """Everything below, each on a fresh sampler.

    Args:
        make_sampler: samplers of equal weights.
    """
    for check in (
        sampler_respects_max_tokens,
        sampler_is_greedy_at_temperature_zero,
        sampler_draws_by_seed,
        sampler_keeps_requests_apart,
        sampler_stops_at_ids,
        sampler_streams_what_it_returns,
        sampler_can_be_cancelled,
        sampler_refuses_what_does_not_fit,
        sampler_stamps_versions,
    ):
        await check(make_sampler())


async def sampler_respects_max_tokens(sampler: Sampler) -> None:
    """Arrays line up, log-probabilities are possible, and a reply of full length says so."""
    for limit in (1, 7):
        chunk = await complete(sampler, _request(max_tokens=limit))
        got = len(chunk.tokens)
        assert 1 <= got <= limit, f"max_tokens={limit} gave {got} tokens"
        assert got == len(chunk.logprobs) == len(chunk.versions), "tokens, logprobs and versions differ in length"
        assert chunk.finish_reason == "length" or got < limit or chunk.finish_reason == "stop", chunk.finish_reason
        assert all(math.isfinite(p) and p <= 1e-6 for p in chunk.logprobs), f"impossible logprobs: {chunk.logprobs}"


async def sampler_is_greedy_at_temperature_zero(sampler: Sampler) -> None:
    """Temperature 0 ignores the seed."""
    first, second = [await complete(sampler, _request(temperature=0.0, seed=seed)) for seed in (1, 2)]
    assert first.tokens == second.tokens, f"greedy decoding gave {first.tokens} and {second.tokens}"


async def sampler_draws_by_seed(sampler: Sampler) -> None:
    """Equal seeds give equal draws, and seeds matter."""
    first, second = [await complete(sampler, _request(seed=5)) for _ in range(2)]
    assert first.tokens == second.tokens, f"seed 5 gave {first.tokens} and {second.tokens}"
    draws = {tuple((await complete(sampler, _request(seed=seed))).tokens) for seed in range(8)}
    assert len(draws) > 1, f"8 seeds all gave {draws}"


async def sampler_keeps_requests_apart(sampler: Sampler) -> None:
    """What a request gets does not depend on who else asks at the same time."""
    requests = [_request(seed=seed, tokens=PROMPT[: 1 + seed % 4], max_tokens=3 + seed % 5) for seed in range(12)]
    alone = [await complete(sampler, request) for request in requests]
    together = await asyncio.gather(*(complete(sampler, request) for request in requests))
    for index, (one, other) in enumerate(zip(alone, together, strict=True)):
        assert one.tokens == other.tokens, f"request {index}: alone {one.tokens}, among others {other.tokens}"
        _assert_close(one.logprobs, other.logprobs, f"request {index}: logprobs alone and among others")


async def sampler_stops_at_ids(sampler: Sampler) -> None:
    """A stop id ends the reply and is part of it."""
    free = await complete(sampler, _request(seed=3, max_tokens=6))
    stop = free.tokens[len(free.tokens) // 2]
    stopped = await complete(sampler, _request(seed=3, max_tokens=6, stop_token_ids=(stop,)))
    expected = free.tokens[: free.tokens.index(stop) + 1]
    assert stopped.tokens == expected, f"stop id {stop}: expected {expected}, got {stopped.tokens}"
    assert stopped.finish_reason == "stop", f"finish reason at a stop id: {stopped.finish_reason}"


async def sampler_streams_what_it_returns(sampler: Sampler) -> None:
    """Streaming changes how tokens arrive, not which."""
    whole = await complete(sampler, _request(seed=9))
    streamed = await complete(sampler, _request(seed=9, stream=True))
    assert whole.tokens == streamed.tokens, f"at once {whole.tokens}, streamed {streamed.tokens}"


async def sampler_can_be_cancelled(sampler: Sampler) -> None:
    """Closing the iterator ends the request; others go on."""
    other = asyncio.create_task(complete(sampler, _request(seed=1)))
    async for _ in (stream := sampler.sample(_request(seed=2, max_tokens=None, stream=True))):
        break
    await stream.aclose()  # type: ignore[attr-defined]
    await other
    await complete(sampler, _request(seed=3))


async def sampler_refuses_what_does_not_fit(sampler: Sampler) -> None:
    """A prompt longer than the context is the policy's fault, and says how long is too long."""
    length = sampler.context + 1
    try:
        await complete(sampler, _request(tokens=[1] * length))
    except ModelCallFailed as error:
        assert error.blame == "policy", f"blame of an overlong prompt: {error.blame}"
        assert str(sampler.context) in str(error), f"the text does not name the context {sampler.context}: {error}"
        assert str(length) in str(error), f"the text does not name the prompt's length {length}: {error}"
    else:
        raise AssertionError(f"a prompt of {length} tokens was accepted in a context of {sampler.context}")


async def sampler_stamps_versions(sampler: Sampler) -> None:
    """Tokens carry the version of the weights; publishing raises it, or sets the one asked for."""
    before = (await complete(sampler, _request())).versions
    await sampler.publish(WeightsRef())
    after = (await complete(sampler, _request())).versions
    assert len({*before}) == len({*after}) == 1, f"one reply, several versions: {before}, {after}"
    assert after[0] == before[0] + 1, f"publish took version {before[0]} to {after[0]}"
    await sampler.publish(WeightsRef(version=17))
    assert (await complete(sampler, _request())).versions[0] == 17, "the version asked for was not taken"


# --- trainers -----------------------------------------------------------------------------------------------------


async def check_trainer(make_trainer: Callable[[], Trainer]) -> None:
    """Everything below.

    Args:
        make_trainer: trainers of equal weights, without accumulated gradients.
    """
    await trainer_lines_up_arrays(make_trainer())
    await trainer_sums(make_trainer(), make_trainer())
    await trainer_learns(make_trainer())
    await trainer_ignores_weightless_tokens(make_trainer())
    await trainer_skips_bad_gradients(make_trainer())
    await trainer_resumes(make_trainer(), make_trainer())
    await trainer_forgets_moments(make_trainer())


async def trainer_lines_up_arrays(trainer: Trainer) -> None:
    """One log-probability per token, 0.0 for the first; results have one entry per trained token, in order."""
    data = _data()
    logprobs = await trainer.forward(data)
    for datum, row in zip(data, logprobs, strict=True):
        assert len(row) == len(datum.tokens_T), f"{len(datum.tokens_T)} tokens gave {len(row)} logprobs"
        assert row[0] == 0.0, f"entry 0 is {row[0]}"
        assert all(math.isfinite(p) and p <= 1e-6 for p in row), f"impossible logprobs: {row}"
    result = await trainer.forward_backward(data, CROSS_ENTROPY)
    trained = [p for d, row in zip(data, logprobs, strict=True) for p, w in zip(row, _weights(d), strict=True) if w]
    _assert_close(trained, result.logprobs.tolist(), "logprobs of forward and forward_backward")
    assert len(result.entropies) == len(trained), f"{len(trained)} trained tokens, {len(result.entropies)} entropies"
    expected = -sum(p * w for d, row in zip(data, logprobs, strict=True) for p, w in zip(row, _weights(d), strict=True))
    _assert_close([expected], [result.loss], "summed loss")


async def trainer_sums(whole: Trainer, split: Trainer) -> None:
    """One call or several, in any order: the same loss, gradient and weights."""
    data = _data()
    loss = (await whole.forward_backward(data, CROSS_ENTROPY)).loss
    losses = [(await split.forward_backward([datum], CROSS_ENTROPY)).loss for datum in reversed(data)]
    _assert_close([loss], [sum(losses)], "loss of the whole and sum over its parts")
    steps = [await trainer.optim_step(AdamW(lr=1e-2)) for trainer in (whole, split)]
    norms = [step["grad_norm"] for step in steps]
    _assert_close(norms[:1], norms[1:], "gradient norm of the whole and of its parts")
    for one, other in zip(await whole.forward(data), await split.forward(data), strict=True):
        _assert_close(one, other, "logprobs after a step on the whole and on its parts", 1e-3)


async def trainer_learns(trainer: Trainer) -> None:
    """Steps lower the loss; a learning rate of 0 leaves it; gradients are cleared."""
    data = _data()
    losses = []
    for _ in range(4):
        losses.append((await trainer.forward_backward(data, CROSS_ENTROPY)).loss)
        step = await trainer.optim_step(AdamW(lr=1e-2, max_grad_norm=10.0))
        assert step["skipped"] == 0.0 and step["grad_norm"] > 0, f"a sound step reported {step}"
    assert losses[-1] < losses[0], f"4 steps took the loss from {losses[0]} to {losses[-1]}"
    before = await trainer.forward(data)
    await trainer.forward_backward(data, CROSS_ENTROPY)
    await trainer.optim_step(AdamW(lr=0.0))
    assert await trainer.forward(data) == before, "a step with lr=0 changed the weights"


async def trainer_ignores_weightless_tokens(trainer: Trainer) -> None:
    """Tokens of weight 0 give no gradient."""
    data = [Datum(tokens_T=d.tokens_T, arrays={"weights": [0.0] * len(d.tokens_T)}) for d in _data()]
    result = await trainer.forward_backward(data, CROSS_ENTROPY)
    assert (result.loss, len(result.logprobs)) == (0.0, 0), f"nothing to train on, yet {result}"
    step = await trainer.optim_step(AdamW(lr=1e-2))
    assert step["grad_norm"] == 0.0, f"nothing to train on, yet a gradient of norm {step['grad_norm']}"


async def trainer_skips_bad_gradients(trainer: Trainer) -> None:
    """A NaN drops the accumulated gradient and leaves the weights; the next step is sound."""
    data = _data()
    before = await trainer.forward(data)
    bad = Datum(tokens_T=data[0].tokens_T, arrays={"weights": [math.nan] * len(data[0].tokens_T)})
    await trainer.forward_backward([*data, bad], CROSS_ENTROPY)
    step = await trainer.optim_step(AdamW(lr=1e-2))
    assert step["skipped"] == 1.0, f"a NaN loss was not skipped: {step}"
    assert await trainer.forward(data) == before, "a skipped step changed the weights"
    await trainer.forward_backward(data, CROSS_ENTROPY)
    step = await trainer.optim_step(AdamW(lr=1e-2))
    assert step["skipped"] == 0.0, f"the step after a skipped one reported {step}"


async def trainer_resumes(trainer: Trainer, other: Trainer) -> None:
    """A saved state goes on exactly as the original does."""
    data = _data()

    async def step(which: Trainer) -> None:
        await which.forward_backward(data, CROSS_ENTROPY)
        await which.optim_step(AdamW(lr=1e-2))

    with tempfile.TemporaryDirectory() as folder:
        await step(trainer)
        saved = await trainer.save(Path(folder) / "first")
        await step(trainer)
        await other.load(saved.path)
        assert (await other.save(Path(folder) / "second")).weights_hash == saved.weights_hash, "load changed weights"
        await step(other)
    assert await trainer.forward(data) == await other.forward(data), "a resumed trainer went another way"


# --- helpers ------------------------------------------------------------------------------------------------------


def _request(
    *,
    tokens: Sequence[int] = PROMPT,
    max_tokens: int | None = 5,
    temperature: float = 1.0,
    seed: int = 0,
    stop_token_ids: tuple[int, ...] = (),
    stream: bool = False,
) -> SampleRequest:
    sampling = Sampling(max_tokens=max_tokens, temperature=temperature, seed=seed, stop_token_ids=stop_token_ids)
    return SampleRequest(tokens=list(tokens), sampling=sampling, stream=stream)


def _data() -> list[Datum]:
    """Three sequences of different lengths, trained on in part, one of them at another temperature."""
    rows = [([3, 5, 7, 11, 13], 1.0), ([2, 4, 6], 1.0), ([9, 8, 7, 6, 5, 4, 3, 2], 0.7)]
    return [
        Datum(
            tokens_T=tokens,
            arrays={"weights": [0.0, *(0.5 if t % 3 else 0.0 for t in range(1, len(tokens)))]},
            temperature=temperature,
        )
        for tokens, temperature in rows
    ]


def _weights(datum: Datum) -> list[float]:
    return datum.arrays["weights"]


def _assert_close(expected: Sequence[float], got: Sequence[float], what: str, tolerance: float = TOLERANCE) -> None:
    assert len(expected) == len(got), f"{what}: {len(expected)} and {len(got)} values"
    for one, other in zip(expected, got, strict=True):
        assert math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance), f"{what}: {one} and {other}"


async def trainer_forgets_moments(trainer: Trainer) -> None:
    """After a reset nothing of earlier gradients is left: a step without a gradient changes no weight."""
    await trainer.forward_backward(_data(), CROSS_ENTROPY)
    await trainer.optim_step(AdamW(lr=1e-2))
    before = await trainer.weights_hash()
    await trainer.forward_backward(_data(), CROSS_ENTROPY)
    await trainer.reset_optimizer()
    await trainer.optim_step(AdamW(lr=1e-2))
    assert await trainer.weights_hash() == before, "an optimiser that was reset still moves the weights"

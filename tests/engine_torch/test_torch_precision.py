"""bfloat16 and recomputed activations: close to float32, exact where they promise to be."""

from __future__ import annotations

import asyncio
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from ludus.engine.torch.folder import load_decoder
from ludus.errors import ModelFolderError, UnknownName
from ludus.protocols import AdamW, Datum, Loss, SampleRequest, WeightsRef
from ludus.types import Sampling

TOKENS = torch.randint(40, 300, (4, 24), generator=torch.Generator().manual_seed(7)).tolist()
BFLOAT16_TOLERANCE = 0.05
"""Of log-probabilities, in nats: bfloat16 keeps 8 bits, and four layers add up."""


def data(rows=TOKENS):
    return [Datum(tokens_T=row, arrays={"weights": [0.0] + [1 / 92] * (len(row) - 1)}) for row in rows]


async def step(engine, lr=1e-3):
    result = await engine.trainer.forward_backward(data(), Loss("cross_entropy"))
    return result, await engine.trainer.optim_step(AdamW(lr=lr))


async def test_bfloat16_is_close_to_float32_and_to_transformers(make_engine, sharp):
    exact, rounded = make_engine(), make_engine(dtype="bfloat16")
    expected, found = [torch.tensor(await e.trainer.forward(data())) for e in (exact, rounded)]
    difference = (found - expected).abs()
    assert 0 < difference.mean() < BFLOAT16_TOLERANCE / 4 and difference.max() < 4 * BFLOAT16_TOLERANCE
    theirs = AutoModelForCausalLM.from_pretrained(sharp, dtype=torch.bfloat16)
    logits = theirs(torch.tensor(TOKENS)).logits.float().log_softmax(-1)
    reference = logits[:, :-1].gather(2, torch.tensor(TOKENS)[:, 1:, None])[..., 0]
    assert (found[:, 1:] - reference).abs().mean() < BFLOAT16_TOLERANCE / 2


@pytest.mark.slow
async def test_bfloat16_samples_what_it_trains(make_engine):
    """After every update: the sampler and the trainer compute with the same weights, and so does transformers."""
    engine = make_engine(dtype="bfloat16")
    for version in range(1, 4):
        request = SampleRequest(tokens=TOKENS[0], sampling=Sampling(max_tokens=12, seed=version))
        (chunk,) = [chunk async for chunk in engine.sampler.sample(request)]
        (forward,) = await engine.trainer.forward(data([TOKENS[0] + chunk.tokens]))
        assert chunk.logprobs == pytest.approx(forward[len(TOKENS[0]) :], abs=BFLOAT16_TOLERANCE)
        await step(engine, lr=0.01)
        await engine.publish(WeightsRef(version=version))


@pytest.mark.slow
async def test_small_steps_add_up_in_the_masters(make_engine):
    """Steps below bfloat16's last bit are lost without float32 masters."""
    engines = [make_engine(), make_engine(dtype="bfloat16")]
    before = [await step(engine, lr=1e-6) for engine in engines]
    for engine in engines:
        for _ in range(50):
            await step(engine, lr=1e-5)
    after = [await step(engine, lr=1e-6) for engine in engines]
    gains = [b[0].loss - a[0].loss for b, a in zip(before, after, strict=True)]
    assert gains[0] > 0.005
    assert gains[1] == pytest.approx(gains[0], rel=0.4)


async def test_bfloat16_gradients_are_close_and_add_up_in_float32(make_engine):
    exact, rounded = make_engine(), make_engine(dtype="bfloat16")
    gradients = []
    for engine in (exact, rounded):
        await engine.trainer.forward_backward(data(TOKENS[:2]), Loss("cross_entropy"))
        await engine.trainer.forward_backward(data(TOKENS[2:]), Loss("cross_entropy"))
        gradients.append(engine.decoder.flat.gradients_N)
    assert gradients[1].dtype == torch.float32
    cosine = torch.nn.functional.cosine_similarity(*gradients, dim=0)
    assert cosine > 0.99


async def test_a_bfloat16_state_goes_on_bit_for_bit(make_engine, tmp_path):
    first, second = (make_engine(dtype="bfloat16") for _ in range(2))
    for _ in range(3):
        await step(first, lr=1e-5)
    await first.trainer.save(tmp_path / "state")
    await second.trainer.load(tmp_path / "state")
    for engine in (first, second):
        await step(engine, lr=1e-5)
    assert await first.trainer.weights_hash() == await second.trainer.weights_hash()
    await first.export(tmp_path / "export")
    assert load_file(tmp_path / "export" / "model.safetensors")["model.norm.weight"].dtype == torch.bfloat16
    assert make_engine(tmp_path / "export").decoder.dtype == torch.bfloat16  # "auto" is what is stored


async def test_recomputing_changes_nothing(make_engine):
    plain, again = make_engine(), make_engine(recompute=True)
    for engine in (plain, again):
        await engine.trainer.forward_backward(data(), Loss("cross_entropy"))
    torch.testing.assert_close(plain.decoder.flat.gradients_N, again.decoder.flat.gradients_N, atol=1e-7, rtol=1e-5)


async def test_cancelled_in_flight_and_published_in_flight_in_bfloat16(make_engine):
    engine = make_engine(dtype="bfloat16")
    request = SampleRequest(tokens=TOKENS[0], sampling=Sampling(max_tokens=400, seed=1), stream=True)
    stream = engine.sampler.sample(request)
    versions = [(await anext(stream)).versions[0]]
    await step(engine)
    await engine.publish(WeightsRef(version=5), "in_flight")
    while versions[-1] != 5:
        versions.append((await anext(stream)).versions[0])
    await stream.aclose()
    await asyncio.wait_for(engine.publish(WeightsRef(), "drain"), 20)  # nothing runs any more


def test_dtypes_by_name(make_engine):
    with pytest.raises(UnknownName, match="float32"):
        make_engine(dtype="float8")
    assert make_engine(dtype="auto", deterministic=True).decoder.dtype == torch.float32


def spoil(folder, name, change):
    tensors = load_file(folder / "model.safetensors")
    tensors[name] = change(tensors[name])
    save_file(tensors, folder / "model.safetensors")


async def test_checkpoints_of_mixed_dtypes_load_and_others_are_refused(make_engine, sharp, tmp_path):
    await make_engine().export(tmp_path)
    spoil(tmp_path, "model.norm.weight", lambda t: t.half())
    torch.testing.assert_close(load_decoder(tmp_path).flat.values_N, load_decoder(sharp).flat.values_N)
    spoil(tmp_path, "model.norm.weight", lambda t: t.to(torch.int8))
    with pytest.raises(ModelFolderError, match=r"norm.*int8.*quantised"):
        load_decoder(tmp_path)
    spoil(tmp_path, "model.norm.weight", lambda t: t.float() * float("inf"))
    with pytest.raises(ModelFolderError, match=r"norm.*NaN or infinite"):
        load_decoder(tmp_path)
    index = {"weight_map": {"model.norm.weight": "a.safetensors"}}
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelFolderError, match=r"a\.safetensors is missing"):
        load_decoder(tmp_path)

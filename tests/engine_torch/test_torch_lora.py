"""LoRA: equal to PEFT in values and gradients, read and written in its format, sampled beside its base."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from ludus.engine.torch.attention import PackedAttention
from ludus.engine.torch.lora import TARGETS, LoraSettings, base_of
from ludus.errors import ModelFolderError, UnknownName, UsageError
from ludus.protocols import BASE, AdamW, Datum, Loss, SampleRequest, WeightsRef
from ludus.types import Sampling

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # in peft

PROMPT = list(range(40, 60))
SETTINGS = [
    LoraSettings(rank=4, alpha=8),
    LoraSettings(rank=3, alpha=5, targets=("q_proj", "v_proj", "down_proj")),
    LoraSettings(rank=8, alpha=4, targets=("o_proj", "up_proj"), rank_stabilised=True),
]
RNG = torch.Generator().manual_seed(7)
TOKENS = torch.randint(40, 300, (2, 12), generator=RNG)


def logits_of(engine, tokens_BT):
    rows, length = tokens_BT.shape
    positions = torch.arange(length).repeat(rows)
    hidden = engine.decoder(tokens_BT.flatten(), positions, PackedAttention([length] * rows))
    return engine.decoder.logits(hidden).view(rows, length, -1)


def scramble(parameters):
    """B starts as zeros, under which nothing could be wrong."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)


async def reply(engine, weights=None, tokens=PROMPT, **sampling):
    request = SampleRequest(
        tokens=tokens,
        sampling=Sampling(temperature=0.0, max_tokens=8, **sampling),
        weights=weights or WeightsRef(),
        session="s",
    )
    chunks = [chunk async for chunk in engine.sampler.sample(request)]
    return chunks[-1]


def data(tokens, arrays=None):
    length = len(tokens)
    ones = [0.0] + [1.0] * (length - 1)
    return Datum(tokens_T=tokens, arrays={"weights": ones, **(arrays or {})})


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_equals_peft_on_the_same_files(settings, sharp, make_engine, tmp_path, peft):
    base = AutoModelForCausalLM.from_pretrained(sharp)
    config = peft.LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, target_modules=list(settings.targets), task_type="CAUSAL_LM",
        use_rslora=settings.rank_stabilised,
    )  # fmt: skip
    theirs = peft.get_peft_model(base, config)
    scramble(parameter for name, parameter in sorted(theirs.named_parameters()) if "lora" in name)
    theirs.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**values, "base_model_name_or_path": str(sharp)}))

    engine = make_engine(tmp_path)
    ours, expected = logits_of(engine, TOKENS), theirs(TOKENS).logits
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)

    engine.decoder.trained.zero_gradients()
    for logits in (ours, expected):
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), TOKENS[:, 1:].flatten()).backward()
    gradients = {n.replace(".default", ""): p.grad for n, p in theirs.named_parameters() if p.grad is not None}
    for name, found in engine.decoder.trained.views(engine.decoder.trained.gradients_N):
        torch.testing.assert_close(found, gradients.pop(f"base_model.model.{name}"), atol=1e-5, rtol=1e-3)
    assert not gradients
    assert all(parameter.grad is None for parameter in engine.decoder.parameters())


async def test_peft_loads_what_was_trained_here(sharp, make_engine, tmp_path, peft):
    engine = make_engine(lora=SETTINGS[0])
    before = logits_of(engine, TOKENS)
    torch.testing.assert_close(before, logits_of(make_engine(), TOKENS))  # B is zero: nothing is added yet
    for _ in range(3):
        await engine.trainer.forward_backward([data(row) for row in TOKENS.tolist()], Loss("cross_entropy"))
        await engine.trainer.optim_step(AdamW(lr=0.05))
    await engine.publish(WeightsRef())
    await engine.export(tmp_path)
    assert (logits_of(engine, TOKENS) - before).abs().max() > 0.1

    theirs = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(sharp), tmp_path)
    torch.testing.assert_close(theirs(TOKENS).logits, logits_of(engine, TOKENS), atol=1e-4, rtol=1e-4)
    again = make_engine(tmp_path)
    assert torch.equal(logits_of(again, TOKENS), logits_of(engine, TOKENS))
    assert await again.trainer.weights_hash() == await engine.trainer.weights_hash()
    assert (tmp_path / "tokenizer.json").is_file()


async def test_base_and_adapter_are_sampled_side_by_side(make_engine):
    plain, adapted = make_engine(), make_engine(lora=SETTINGS[0])
    scramble(adapted.decoder.adapter.root.parameters())
    adapted._weights.updated()
    import asyncio

    base, current = await asyncio.gather(reply(adapted, WeightsRef(BASE)), reply(adapted))
    expected = await reply(plain)
    assert base.tokens == expected.tokens and current.tokens != expected.tokens
    assert base.logprobs == pytest.approx(expected.logprobs, abs=1e-5)
    tokens = PROMPT + current.tokens
    (forward,) = await adapted.trainer.forward([data(tokens)])
    assert current.logprobs == pytest.approx(forward[len(PROMPT) :], abs=1e-4)
    # their caches are apart: the session goes on in each
    more = await reply(adapted, WeightsRef(BASE), PROMPT + base.tokens + [50])
    assert more.tokens == (await reply(plain, None, PROMPT + base.tokens + [50])).tokens
    with pytest.raises(UnknownName, match="current"):
        await reply(plain, WeightsRef(BASE))


async def test_a_saved_state_goes_on_bit_for_bit(make_engine, tmp_path):
    async def step(engine):
        await engine.trainer.forward_backward([data(row) for row in TOKENS.tolist()], Loss("cross_entropy"))
        await engine.trainer.optim_step(AdamW(lr=0.01))

    first, second = (make_engine(lora=SETTINGS[1], seed=3) for _ in range(2))
    await step(first)
    await first.trainer.save(tmp_path)
    await second.trainer.load(tmp_path)
    for engine in (first, second):
        await step(engine)
    assert await first.trainer.weights_hash() == await second.trainer.weights_hash()


def change(folder, **values):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: change(folder, r=5), "expected shape"),
        (lambda folder: change(folder, target_modules=["q_proj"]), "unexpected tensor"),
        (lambda folder: change(folder, target_modules=list(TARGETS)), "missing"),
        (lambda folder: change(folder, target_modules=["wq"]), "target_modules"),
        (lambda folder: change(folder, use_dora=True), "use_dora"),
        (lambda folder: change(folder, peft_type="IA3"), "peft_type"),
        (lambda folder: change(folder, r=0), "rank >= 1"),
        (lambda folder: change(folder, base_model_name_or_path="nowhere/model"), "nowhere/model"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "missing"),
    ],
)
async def test_adapters_that_do_not_fit_are_refused(spoil, says, make_engine, tmp_path):
    await make_engine(lora=SETTINGS[1]).export(tmp_path)
    spoil(tmp_path)
    with pytest.raises(ModelFolderError, match=says) as raised:
        make_engine(tmp_path)
    assert "\n" not in str(raised.value)


async def test_an_adapter_of_another_base_is_refused(tiny, make_engine, tmp_path):
    await make_engine(lora=SETTINGS[0]).export(tmp_path)
    change(tmp_path, base_model_name_or_path=str(tiny))
    with pytest.raises(ModelFolderError, match=r"missing|unexpected|expected shape"):
        make_engine(tmp_path)


async def test_values_that_are_not_finite_are_refused(make_engine, tmp_path):
    await make_engine(lora=SETTINGS[0]).export(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, file)
    with pytest.raises(ModelFolderError, match="NaN"):
        make_engine(tmp_path)


async def test_settings_that_make_no_sense_are_refused(make_engine, sharp, tmp_path):
    with pytest.raises(UnknownName, match="q_proj"):
        LoraSettings(targets=("q_porj",))
    with pytest.raises(UsageError, match="rank"):
        LoraSettings(rank=0)
    await make_engine(lora=SETTINGS[0]).export(tmp_path)
    with pytest.raises(UsageError, match="adapter already"):
        make_engine(tmp_path, lora=SETTINGS[0])
    assert base_of(tmp_path) == sharp

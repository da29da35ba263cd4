"""The decoder computes what transformers computes, and each reads what the other writes."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from ludus.engine.torch.attention import PackedAttention
from ludus.engine.torch.engine import TorchEngine
from ludus.engine.torch.folder import load_decoder, save_decoder
from ludus.engine.torch.lora import load_adapter
from ludus.protocols import AdamW, Datum, Loss, SampleRequest, WeightsRef
from ludus.types import Sampling

SHAPE = {
    "vocab_size": 50, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 64, "max_position_embeddings": 64, "initializer_range": 0.3,
}  # fmt: skip
THETA = {"rope_theta": 10000.0}
MOE = {"head_dim": 16, "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 20}
MODELS = {
    "llama-untied": (LlamaForCausalLM, LlamaConfig, {"tie_word_embeddings": False}),
    "llama-biases-mha": (
        LlamaForCausalLM,
        LlamaConfig,
        {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 4, "tie_word_embeddings": True},
    ),
    "qwen2-tied": (Qwen2ForCausalLM, Qwen2Config, {"tie_word_embeddings": True, "num_key_value_heads": 1}),
    "qwen2-theta": (
        Qwen2ForCausalLM,
        Qwen2Config,
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "rms_norm_eps": 1e-5},
    ),
    "qwen3-tied": (Qwen3ForCausalLM, Qwen3Config, {"tie_word_embeddings": True, "head_dim": 16}),
    "qwen3-untied": (Qwen3ForCausalLM, Qwen3Config, {"tie_word_embeddings": False, "head_dim": 8}),
    "llama-linear": (LlamaForCausalLM, LlamaConfig, {"rope_parameters": {"rope_type": "linear", "factor": 4.0, **THETA}}),
    "llama-llama3": (
        LlamaForCausalLM,
        LlamaConfig,
        {
            "rope_parameters": {
                "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16, **THETA,
            }
        },
    ),
    "qwen3-yarn": (
        Qwen3ForCausalLM,
        Qwen3Config,
        {
            "head_dim": 16,
            "rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, **THETA},
        },
    ),
    "mistral-window": (MistralForCausalLM, MistralConfig, {"sliding_window": 4}),
    "mistral": (MistralForCausalLM, MistralConfig, {"sliding_window": None, "head_dim": 24}),
    "qwen2-windowed-layer": (
        Qwen2ForCausalLM,
        Qwen2Config,
        {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1},
    ),
    "qwen3-moe": (Qwen3MoeForCausalLM, Qwen3MoeConfig, {**MOE, "norm_topk_prob": True}),
    "qwen3-moe-dense-layer": (
        Qwen3MoeForCausalLM,
        Qwen3MoeConfig,
        {**MOE, "norm_topk_prob": False, "mlp_only_layers": [0], "use_sliding_window": True, "sliding_window": 5},
    ),
}  # fmt: skip
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5], [8, 9, 7, 9, 3, 2, 3, 8, 4, 6, 2]])


FIRST = ("llama-llama3", "qwen2-tied", "qwen3-untied", "mistral-window", "qwen3-moe-dense-layer")
"""Of each architecture one; the others are in the slow suite."""


@pytest.fixture(
    params=[pytest.param(name, marks=() if name in FIRST else pytest.mark.slow) for name in MODELS], scope="module"
)
def theirs(request):
    kind, config, options = MODELS[request.param]
    torch.manual_seed(0)
    model = kind(config(**{**SHAPE, **options})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:  # norms and biases start as ones and zeros, which would hide mistakes
                parameter.copy_(torch.rand_like(parameter) + (0.5 if "norm" in name else -0.5))
    return model


def logits_of(decoder, tokens_BT):
    rows, length = tokens_BT.shape
    positions = torch.arange(length).repeat(rows)
    hidden = decoder(tokens_BT.flatten(), positions, PackedAttention([length] * rows))
    return decoder.logits(hidden).view(rows, length, -1)


def test_logits_equal_after_loading_theirs(theirs, tmp_path):
    theirs.save_pretrained(tmp_path)
    ours = load_decoder(tmp_path)
    assert {n for n, _ in ours.named_parameters()} == set(load_file(tmp_path / "model.safetensors"))
    torch.testing.assert_close(logits_of(ours, TOKENS), theirs(TOKENS).logits, atol=1e-4, rtol=1e-4)


def test_logits_equal_after_they_load_ours(theirs, tmp_path):
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_decoder(tmp_path / "theirs")
    save_decoder(ours, tmp_path / "ours", tokenizer_from=tmp_path / "theirs")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert again.dtype == torch.float32
    torch.testing.assert_close(again(TOKENS).logits, theirs(TOKENS).logits, atol=1e-4, rtol=1e-4)


def test_gradients_equal(theirs, tmp_path):
    theirs.save_pretrained(tmp_path)
    ours = load_decoder(tmp_path)
    ours.flat.zero_gradients()
    targets = TOKENS[:, 1:].flatten()
    theirs.zero_grad()
    for logits in (logits_of(ours, TOKENS), theirs(TOKENS).logits):
        F.cross_entropy(logits[:, :-1].flatten(0, 1), targets).backward()
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name in [name for name in expected if name.endswith("experts.gate_up_proj")]:  # theirs are joined in memory
        prefix = name.removesuffix(".gate_up_proj")
        gate_up, down = expected.pop(name), expected.pop(f"{prefix}.down_proj")
        for expert in range(len(down)):
            gate, up = gate_up[expert].chunk(2)
            parts = {"gate_proj": gate, "up_proj": up, "down_proj": down[expert]}
            expected |= {f"{prefix}.{expert}.{part}.weight": value for part, value in parts.items()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(
            parameter.grad, expected[name], atol=1e-5, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_reads_shards_and_older_settings(theirs, tmp_path):
    theirs.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    names = sorted(tensors)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: tensors[name] for name in part}, tmp_path / file)
    index = {"weight_map": {name: file for file, part in halves.items() for name in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    config = json.loads((tmp_path / "config.json").read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = None if rope["rope_type"] == "default" else {**rope, "type": rope["rope_type"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.testing.assert_close(logits_of(load_decoder(tmp_path), TOKENS), theirs(TOKENS).logits, atol=1e-4, rtol=1e-4)


def reference_logprobs(model, tokens):
    """Log-probability of each token but the first."""
    logits = model(torch.tensor([tokens])).logits.log_softmax(-1)
    return logits[0, :-1].gather(1, torch.tensor(tokens)[1:, None])[:, 0]


async def greedy(engine, tokens, session=""):
    request = SampleRequest(tokens=tokens, sampling=Sampling(temperature=0.0, max_tokens=6), session=session)
    return [chunk async for chunk in engine.sampler.sample(request)][-1]


def imitate(tokens):
    return Datum(tokens_T=tokens, arrays={"weights": [0.0] * 13 + [0.1] * (len(tokens) - 13)})


async def test_after_every_update_the_sampler_says_what_the_reference_says(theirs, tmp_path):
    """Two turns in one cache, two replies to one prompt in one training batch: all as transformers computes them anew."""
    theirs.save_pretrained(tmp_path / "start")
    engine = TorchEngine(tmp_path / "start", device="cpu", threads=1)
    prompt = [*TOKENS[0].tolist(), 7, 3]
    try:
        for update in range(3):
            first = await greedy(engine, prompt, f"turns {update}")
            second = await greedy(engine, [*prompt, *first.tokens, 5, 2], f"turns {update}")
            whole = [*prompt, *first.tokens, 5, 2, *second.tokens]
            await engine.export(tmp_path / f"update-{update}")
            reference = AutoModelForCausalLM.from_pretrained(tmp_path / f"update-{update}")
            with torch.no_grad():
                expected = reference_logprobs(reference, whole)
            sampled = torch.tensor([*first.logprobs, *second.logprobs])
            places = [*range(12, 18), *range(20, 26)]
            torch.testing.assert_close(sampled, expected[places], atol=1e-4, rtol=1e-4)
            replies = [whole, [*prompt, 4, 4, 9, 1]]
            found = await engine.trainer.forward([imitate(reply) for reply in replies])
            for logprobs, reply in zip(found, replies, strict=True):
                with torch.no_grad():
                    expected = reference_logprobs(reference, reply)
                torch.testing.assert_close(torch.tensor(logprobs[1:]), expected, atol=1e-4, rtol=1e-4)
            await engine.trainer.forward_backward([imitate(reply) for reply in replies], Loss("cross_entropy"))
            await engine.trainer.optim_step(AdamW(lr=0.02))
            await engine.publish(WeightsRef())
    finally:
        engine.close()


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # in peft
def test_an_adapter_equals_pefts(theirs, tmp_path, peft):
    theirs.save_pretrained(tmp_path / "base")
    targets = ["q_proj", "o_proj"] if "Moe" in type(theirs).__name__ else ["k_proj", "gate_proj", "down_proj"]
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    adapted = peft.get_peft_model(
        base, peft.LoraConfig(r=3, lora_alpha=6, target_modules=targets, task_type="CAUSAL_LM")
    )
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    adapted.save_pretrained(tmp_path / "adapter")
    ours = load_decoder(tmp_path / "base")
    ours.adapt(load_adapter(ours, tmp_path / "adapter"))
    found, expected = logits_of(ours, TOKENS), adapted(TOKENS).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    ours.trained.zero_gradients()
    for logits in (found, expected):
        F.cross_entropy(logits[:, :-1].flatten(0, 1), TOKENS[:, 1:].flatten()).backward()
    theirs_by_name = {n.replace(".default", ""): p.grad for n, p in adapted.named_parameters() if p.grad is not None}
    for name, gradient in ours.trained.views(ours.trained.gradients_N):
        torch.testing.assert_close(gradient, theirs_by_name[f"base_model.model.{name}"], atol=1e-5, rtol=1e-3)

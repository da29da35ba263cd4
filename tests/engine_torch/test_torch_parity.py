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
from ludus.engine.torch.folder import load_decoder, save_decoder

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


@pytest.fixture(params=MODELS, scope="module")
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

"""What a model takes in memory, part by part, from its config alone: for `--dry-run`, and to refuse what can't fit.

Weights, masters, gradients and moments are exact. Activations are what autograd keeps of one micro-batch, counted from
the decoder's operators; measured amounts are 1.0 to 1.3 times as large, by how much attention pads.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from ludus.engine.torch.config import DecoderConfig
from ludus.engine.torch.lora import LoraSettings

FLOAT32 = 4
PADDING = 1.1
"""Attention pads its rectangles by up to a quarter."""


@dataclass(frozen=True)
class Memory:
    """Bytes by part."""

    weights: int
    head: int = 0
    """The output projection in float32, beside weights of fewer bits."""
    masters: int = 0
    """Trained weights in float32, where the decoder computes in fewer bits."""
    gradients: int = 0
    moments: int = 0
    """AdamW's two."""
    activations: int = 0
    """Kept for the backward pass of one micro-batch."""
    logits: int = 0
    """Of one chunk of the head: logits, log-probabilities and a gradient."""

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))

    def parts(self) -> dict[str, int]:
        """By name, without what is nothing."""
        return {field.name: getattr(self, field.name) for field in fields(self) if getattr(self, field.name)}


def num_parameters(config: DecoderConfig) -> int:
    """Of the whole decoder."""
    embeddings = config.vocab_size * config.hidden_size * (1 if config.tie_word_embeddings else 2)
    layers = sum(_layer_parameters(config, layer, active=False) for layer in range(config.num_hidden_layers))
    return embeddings + layers + config.hidden_size


def active_parameters(config: DecoderConfig) -> int:
    """Of the matrices that one token is multiplied with: a forward takes twice as many operations."""
    layers = sum(_layer_parameters(config, layer, active=True) for layer in range(config.num_hidden_layers))
    return config.vocab_size * config.hidden_size + layers


def num_adapter_parameters(config: DecoderConfig, lora: LoraSettings) -> int:
    """Of a LoRA adapter."""
    total = 0
    for layer in range(config.num_hidden_layers):
        mixture = config.experts is not None and layer in config.experts.layers
        for name, (inputs, outputs) in _shapes(config).items():
            if name in lora.targets and not (mixture and name in ("gate_proj", "up_proj", "down_proj")):
                total += lora.rank * (inputs + outputs)
    return total


def memory(
    config: DecoderConfig,
    dtype: torch.dtype,
    *,
    training: bool,
    lora: LoraSettings | None,
    micro_batch_tokens: int,
    recompute: bool,
    head_elements: int,
) -> Memory:
    """Bytes that an engine of this model needs, but for its key-value cache, which takes what it is given.

    Args:
        config: of the decoder.
        dtype: of weights and activations.
        training: or sampling only.
        lora: of the adapter that is trained; None trains all weights.
        micro_batch_tokens: packed tokens of one forward.
        recompute: keep inputs of layers only.
        head_elements: logits that exist at once.
    """
    weights = num_parameters(config)
    adapter = 0 if lora is None else num_adapter_parameters(config, lora)
    exact = dtype == torch.float32
    held = weights * dtype.itemsize + adapter * FLOAT32
    head = 0 if exact else config.vocab_size * config.hidden_size * FLOAT32
    if not training:
        return Memory(held, head)
    trained = adapter or weights
    chunk = min(head_elements, micro_batch_tokens * config.vocab_size)
    return Memory(
        weights=held,
        head=head,
        masters=0 if exact or lora is not None else weights * FLOAT32,
        gradients=trained * FLOAT32,
        moments=2 * trained * FLOAT32,
        activations=int(_activations(config, dtype, lora, recompute) * micro_batch_tokens),
        logits=3 * chunk * FLOAT32,
    )


def packed_bytes(config: DecoderConfig, dtype: torch.dtype) -> int:
    """Of copies in the layout of the CPU's matrix products, see `packed.py`; that of the head is in float32."""
    head = config.vocab_size * config.hidden_size
    return (active_parameters(config) - head) * dtype.itemsize + head * FLOAT32


def _activations(config: DecoderConfig, dtype: torch.dtype, lora: LoraSettings | None, recompute: bool) -> float:
    """Bytes that autograd keeps for a token."""
    size, inner = config.hidden_size, config.intermediate_size
    queries, keys = (n * config.head_dim for n in (config.num_attention_heads, config.num_key_value_heads))
    normed = queries + keys if config.qk_norm else 0
    attention = 2 * size + (queries + 2 * keys) + normed + (queries + 2 * keys) + 2 * queries
    experts = config.experts
    if experts is not None:
        inner = max(inner, experts.num_experts_per_tok * experts.moe_intermediate_size)
    elements = attention + 2 * size + 4 * inner
    if dtype != torch.float32:  # norms compute in float32, and keep that
        elements += 2 * (2 * size + normed)
    if lora is not None:
        elements += 7 * lora.rank
    layer = elements * dtype.itemsize * PADDING
    kept = config.num_hidden_layers * size * dtype.itemsize
    return kept + layer if recompute else config.num_hidden_layers * layer


def _layer_parameters(config: DecoderConfig, layer: int, *, active: bool) -> int:
    shapes = _shapes(config)
    matrices = {name: inputs * outputs for name, (inputs, outputs) in shapes.items()}
    attention = sum(matrices[name] for name in ("q_proj", "k_proj", "v_proj", "o_proj"))
    experts = config.experts
    if experts is not None and layer in experts.layers:
        used = experts.num_experts_per_tok if active else experts.num_experts
        one = 3 * config.hidden_size * experts.moe_intermediate_size
        inner = used * one + config.hidden_size * experts.num_experts
    else:
        inner = sum(matrices[name] for name in ("gate_proj", "up_proj", "down_proj"))
    if active:
        return attention + inner
    outputs = {name: outputs for name, (_, outputs) in shapes.items()}
    biases = config.qkv_bias * sum(outputs[name] for name in ("q_proj", "k_proj", "v_proj"))
    biases += config.output_bias * outputs["o_proj"]
    biases += config.mlp_bias * sum(outputs[name] for name in ("gate_proj", "up_proj", "down_proj"))
    norms = 2 * config.hidden_size + (2 * config.head_dim if config.qk_norm else 0)
    return attention + inner + biases + norms


def _shapes(config: DecoderConfig) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of a layer's projections."""
    size, inner = config.hidden_size, config.intermediate_size
    queries, keys = (n * config.head_dim for n in (config.num_attention_heads, config.num_key_value_heads))
    return {
        "q_proj": (size, queries), "k_proj": (size, keys), "v_proj": (size, keys), "o_proj": (queries, size),
        "gate_proj": (size, inner), "up_proj": (size, inner), "down_proj": (inner, size),
    }  # fmt: skip

"""Decoder: a Llama, Qwen2 or Qwen3 language model on packed tokens.

Tokens of all sequences lie end to end in one dimension T, so linear layers never compute padding. Which tokens see
which is decided by an attention strategy, the only difference between training (`attention.py`) and sampling
(`cached.py`). Parameters carry Hugging Face's names and are views into one buffer (`flat.py`). Left out: LoRA, mixtures
of experts, encoders.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ludus.engine.torch.config import DecoderConfig
from ludus.engine.torch.flat import FlatParameters


class Attention(Protocol):
    """Decides which tokens see which, and where keys and values come from."""

    def attend(self, layer_index: int, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor) -> Tensor:
        """Attention output [T, H, D] of H query heads over K key-value heads of size D."""
        ...


class Decoder(nn.Module):
    """The language model; see `forward` and `logits`.

    Args:
        config: shapes and constants.
        device: where the parameters live.
        dtype: of parameters and activations.

    Parameters start as zeros: load or initialise them.
    """

    def __init__(
        self, config: DecoderConfig, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.config = config
        with torch.device("meta"):
            self.model = _Backbone(config)
            if not config.tie_word_embeddings:
                self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        layers = [layer for layer in self.model.layers if isinstance(layer, _Layer)]
        self._fused = [fused for layer in layers for fused in (layer.self_attn.qkv, layer.mlp.gate_up)]
        fused = [group for module in self._fused for group in module.groups()]
        self.flat = FlatParameters(self, fused, torch.device(device), dtype)
        for module in self._fused:
            module.bind(self.flat)
        half = torch.arange(0, config.head_dim, 2, dtype=torch.int64).to(device=device, dtype=torch.float32)
        self.frequencies_D2 = 1.0 / (config.rope_theta ** (half / config.head_dim))

    @property
    def device(self) -> torch.device:
        return self.flat.values_N.device

    @property
    def head_weight(self) -> Tensor:
        """The output projection [V, D]."""
        tied = self.config.tie_word_embeddings
        return self.model.embed_tokens.weight if tied else self.lm_head.weight

    def forward(self, tokens_T: Tensor, positions_T: Tensor, attention: Attention) -> Tensor:
        """Hidden states [T, D] after the last norm, of packed tokens at their positions in their sequences."""
        x_TD = F.embedding(tokens_T, self.model.embed_tokens.weight)
        rope = self._rope(positions_T, x_TD.dtype)
        for index, layer in enumerate(self.model.layers):
            x_TD = layer(x_TD, rope, attention, index)
        return self.model.norm(x_TD)  # type: ignore[no-any-return]

    def logits(self, hidden_TD: Tensor) -> Tensor:
        """Float32 logits [T, V] for the token after each hidden state."""
        return F.linear(hidden_TD, self.head_weight).float()

    def _rope(self, positions_T: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosine and signed sine [T, 1, D]: rotate(x) = x * cos + swap_halves(x) * sin."""
        angles_TD2 = positions_T[:, None] * self.frequencies_D2
        cos, sin = angles_TD2.cos(), angles_TD2.sin()
        return (
            torch.cat((cos, cos), dim=-1)[:, None].to(dtype),
            torch.cat((-sin, sin), dim=-1)[:, None].to(dtype),
        )


class _Fused:
    """Linear layers of one input, computed as one; they are neighbours in the flat buffer, so nothing is copied."""

    def __init__(self, path: str, names: tuple[str, ...], bias: bool) -> None:
        self._weights = tuple(f"{path}.{name}.weight" for name in names)
        self._biases = tuple(f"{path}.{name}.bias" for name in names) if bias else ()

    def groups(self) -> list[tuple[str, ...]]:
        return [self._weights, self._biases] if self._biases else [self._weights]

    def bind(self, flat: FlatParameters) -> None:
        self._weight = flat.fuse(self._weights)
        self._bias = flat.fuse(self._biases) if self._biases else None

    def __call__(self, x_TD: Tensor) -> Tensor:
        return F.linear(x_TD, self._weight, self._bias)


class _Backbone(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(_Layer(config, f"model.layers.{i}") for i in range(config.num_hidden_layers))
        self.norm = _norm(config, config.hidden_size)


class _Layer(nn.Module):
    def __init__(self, config: DecoderConfig, path: str) -> None:
        super().__init__()
        self.self_attn = _SelfAttention(config, f"{path}.self_attn")
        self.mlp = _MLP(config, f"{path}.mlp")
        self.input_layernorm = _norm(config, config.hidden_size)
        self.post_attention_layernorm = _norm(config, config.hidden_size)

    def forward(self, x_TD: Tensor, rope: tuple[Tensor, Tensor], attention: Attention, index: int) -> Tensor:
        x_TD = x_TD + self.self_attn(self.input_layernorm(x_TD), rope, attention, index)
        return x_TD + self.mlp(self.post_attention_layernorm(x_TD))  # type: ignore[no-any-return]


class _SelfAttention(nn.Module):
    """Grouped-query attention with rotary positions; queries and keys are normalised per head where the model asks."""

    def __init__(self, config: DecoderConfig, path: str) -> None:
        super().__init__()
        self.config = config
        query, key_value = (n * config.head_dim for n in (config.num_attention_heads, config.num_key_value_heads))
        self.q_proj = nn.Linear(config.hidden_size, query, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, key_value, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, key_value, bias=config.qkv_bias)
        self.o_proj = nn.Linear(query, config.hidden_size, bias=config.output_bias)
        if config.qk_norm:
            self.q_norm = _norm(config, config.head_dim)
            self.k_norm = _norm(config, config.head_dim)
        self.qkv = _Fused(path, ("q_proj", "k_proj", "v_proj"), config.qkv_bias)

    def forward(self, x_TD: Tensor, rope: tuple[Tensor, Tensor], attention: Attention, index: int) -> Tensor:
        config = self.config
        num_queries, num_keys = config.num_attention_heads, config.num_key_value_heads
        qkv = self.qkv(x_TD).view(-1, num_queries + 2 * num_keys, config.head_dim)
        qk, v = qkv[:, :-num_keys], qkv[:, -num_keys:]
        if config.qk_norm:
            scale = torch.cat((self.q_norm.weight.expand(num_queries, -1), self.k_norm.weight.expand(num_keys, -1)))
            qk = F.rms_norm(qk, (config.head_dim,), None, config.rms_norm_eps) * scale
        qk = _rotate(qk, *rope)
        out_THD = attention.attend(index, qk[:, :num_queries], qk[:, num_queries:], v)
        return self.o_proj(out_THD.flatten(1))  # type: ignore[no-any-return]


class _MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, config: DecoderConfig, path: str) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)
        self.gate_up = _Fused(path, ("gate_proj", "up_proj"), config.mlp_bias)

    def forward(self, x_TD: Tensor) -> Tensor:
        gate, up = self.gate_up(x_TD).chunk(2, dim=-1)
        return self.down_proj(F.silu(gate) * up)  # type: ignore[no-any-return]


def _norm(config: DecoderConfig, size: int) -> nn.RMSNorm:
    return nn.RMSNorm(size, eps=config.rms_norm_eps)


def _rotate(x_THD: Tensor, cos_T1D: Tensor, sin_T1D: Tensor) -> Tensor:
    """Rotary positions on halves (Hugging Face's layout, not interleaved)."""
    first, second = x_THD.chunk(2, dim=-1)
    return torch.addcmul(x_THD * cos_T1D, torch.cat((second, first), dim=-1), sin_T1D)

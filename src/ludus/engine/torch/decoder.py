"""Decoder: a Llama, Mistral, Qwen2 or Qwen3 (MoE) language model on packed tokens.

Tokens of all sequences lie end to end in one dimension T, so linear layers never compute padding. Which tokens see
which is decided by an attention strategy, the only difference between training (`attention.py`) and sampling
(`cached.py`). Parameters carry Hugging Face's names and are views into one buffer (`flat.py`); an adapter (`lora.py`)
adds to the projections without changing them. Left out: encoders.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ludus.engine.torch import rope
from ludus.engine.torch.config import DecoderConfig
from ludus.engine.torch.experts import MixtureOfExperts, Routing
from ludus.engine.torch.flat import FlatParameters
from ludus.engine.torch.kernels import Kernels
from ludus.engine.torch.lora import Adapter
from ludus.engine.torch.operators import Operators, TorchOperators
from ludus.engine.torch.output import OutputProjection
from ludus.engine.torch.projection import Projection


class Attention(Protocol):
    """Decides which tokens see which, and where keys and values come from."""

    def attend(self, layer_index: int, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, window: int | None) -> Tensor:
        """Attention output [T, H, D] of H query heads over K key-value heads of size D.

        With a window, a token sees so many positions, itself included.
        """
        ...


@dataclass(frozen=True)
class _Pass:
    """What all layers of one forward share."""

    cos_T1D: Tensor
    sin_T1D: Tensor
    attention: Attention
    operators: Operators
    adapted_T1: Tensor | None
    routing: Routing | None


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
        self.adapter: Adapter | None = None
        self.kernels: Kernels | None = None
        """See `accelerate`."""
        self.projections: list[Projection] = []
        with torch.device("meta"):
            self.model = _Backbone(config, self.projections)
            if not config.tie_word_embeddings:
                self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        mixtures = [module for module in self.modules() if isinstance(module, MixtureOfExperts)]
        joined: list[Projection | MixtureOfExperts] = [*self.projections, *mixtures]
        fused = [group for part in joined for group in part.groups()]
        self.flat = FlatParameters(self, fused, torch.device(device), dtype)
        for part in joined:
            part.bind(self.flat)
        self.frequencies_D2, self._rope_scale = rope.frequencies(config, device)
        self._output = OutputProjection(self.head_weight)

    @property
    def device(self) -> torch.device:
        return self.flat.values_N.device

    @property
    def dtype(self) -> torch.dtype:
        return self.flat.values_N.dtype

    @property
    def trained(self) -> FlatParameters:
        """What an optimiser changes: all parameters, or the adapter's."""
        return self.flat if self.adapter is None else self.adapter.flat

    @property
    def head_weight(self) -> Tensor:
        """The output projection [V, D]."""
        tied = self.config.tie_word_embeddings
        return self.model.embed_tokens.weight if tied else self.lm_head.weight

    def adapt(self, adapter: Adapter) -> None:
        """From now on the adapter is added, and trained in place of the decoder's own parameters."""
        self.adapter = adapter
        self.flat.freeze()
        for projection in self.projections:
            projection.added = adapter.of(projection)

    def accelerate(self, kernels: Kernels | None, *, packing: bool) -> None:
        """From now on, where no gradient is wanted, compute faster.

        Args:
            kernels: in the place of PyTorch's operators between matrix products.
            packing: multiply with packed copies of the matrices.
        """
        self.kernels = self._output.kernels = kernels
        self._output.packing = packing
        for projection in self.projections:
            projection.packing = packing

    def pack(self) -> None:
        """Make the packed copies now, rather than at the first use, which would be slow."""
        if self._output.packing:
            self._output.pack()
            for projection in self.projections:
                projection.pack()

    def forward(
        self,
        tokens_T: Tensor,
        positions_T: Tensor,
        attention: Attention,
        *,
        adapted_T: Tensor | None = None,
        routing: Routing | None = None,
        recompute: bool = False,
    ) -> Tensor:
        """Hidden states [T, D] after the last norm, of packed tokens at their positions in their sequences.

        Args:
            tokens_T: ids.
            positions_T: in their sequences.
            attention: who sees whom.
            adapted_T: 1 where the adapter acts on a token, 0 where not; None is everywhere.
            routing: which experts tokens go to: replayed if it says so, else filled in.
            recompute: keep only what goes into each layer for the backward pass, and run the layer again there.
        """
        x_TD = F.embedding(tokens_T, self.model.embed_tokens.weight)
        cos, sin = self._rope(positions_T, x_TD.dtype)
        adapted = None if adapted_T is None else adapted_T[:, None].to(x_TD.dtype)
        operators = self.kernels if self.kernels and not torch.is_grad_enabled() else TorchOperators()
        shared = _Pass(cos, sin, attention, operators, adapted, routing)
        for index, layer in enumerate(self.model.layers):
            x_TD = (
                checkpoint(layer, x_TD, shared, index, use_reentrant=False) if recompute else layer(x_TD, shared, index)
            )
        return _normed(x_TD, self.model.norm, operators)

    def logits(self, hidden_TD: Tensor) -> Tensor:
        """Float32 logits [T, V] for the token after each hidden state, never rounded to less."""
        return self._output.logits(hidden_TD)

    def unpack(self) -> None:
        """Give back the packed copies' memory, until they are wanted again; those beneath an adapter stay, as they
        never change."""
        if self.adapter is None:
            self._output.unpack()
            for projection in self.projections:
                projection.unpack()

    def changed(self) -> None:
        """What is trained was changed: forget what was derived from it."""
        if self.adapter is not None:
            return
        self._output.changed()
        self.unpack()
        for module in self.modules():
            if isinstance(module, _SelfAttention):
                module.changed()

    def _rope(self, positions_T: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosine and signed sine [T, 1, D]: rotate(x) = x * cos + swap_halves(x) * sin."""
        angles_TD2 = positions_T[:, None] * self.frequencies_D2
        cos, sin = angles_TD2.cos(), angles_TD2.sin()
        if self._rope_scale != 1.0:
            cos, sin = cos * self._rope_scale, sin * self._rope_scale
        return (
            torch.cat((cos, cos), dim=-1)[:, None].to(dtype),
            torch.cat((-sin, sin), dim=-1)[:, None].to(dtype),
        )


class _Backbone(nn.Module):
    def __init__(self, config: DecoderConfig, projections: list[Projection]) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(_Layer(config, index, projections) for index in range(config.num_hidden_layers))
        self.norm = _norm(config, config.hidden_size)


class _Layer(nn.Module):
    def __init__(self, config: DecoderConfig, index: int, projections: list[Projection]) -> None:
        super().__init__()
        path = f"model.layers.{index}"
        self.self_attn = _SelfAttention(config, f"{path}.self_attn", projections)
        if config.experts is not None and index in config.experts.layers:
            self.mlp: nn.Module = MixtureOfExperts(config, config.experts, f"{path}.mlp", index)
        else:
            self.mlp = _MLP(config, f"{path}.mlp", projections)
        self.input_layernorm = _norm(config, config.hidden_size)
        self.post_attention_layernorm = _norm(config, config.hidden_size)

    def forward(self, x_TD: Tensor, shared: _Pass, index: int) -> Tensor:
        x_TD = x_TD + self.self_attn(_normed(x_TD, self.input_layernorm, shared.operators), shared, index)
        normed_TD = _normed(x_TD, self.post_attention_layernorm, shared.operators)
        if isinstance(self.mlp, MixtureOfExperts):
            return x_TD + self.mlp(normed_TD, shared.routing)  # type: ignore[no-any-return]
        return x_TD + self.mlp(normed_TD, shared)  # type: ignore[no-any-return]


class _SelfAttention(nn.Module):
    """Grouped-query attention with rotary positions; queries and keys are normalised per head where the model asks."""

    def __init__(self, config: DecoderConfig, path: str, projections: list[Projection]) -> None:
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
        self._scale_HD: Tensor | None = None
        self.qkv = Projection(self, path, ("q_proj", "k_proj", "v_proj"))
        self.o = Projection(self, path, ("o_proj",))
        projections += (self.qkv, self.o)

    def forward(self, x_TD: Tensor, shared: _Pass, index: int) -> Tensor:
        config = self.config
        num_queries, num_keys = config.num_attention_heads, config.num_key_value_heads
        qkv = self.qkv(x_TD, shared.adapted_T1).view(-1, num_queries + 2 * num_keys, config.head_dim)
        qk, v = qkv[:, :-num_keys], qkv[:, -num_keys:]
        scale_HD = self._scale() if config.qk_norm else None
        qk = shared.operators.rotate(qk, scale_HD, config.rms_norm_eps, shared.cos_T1D, shared.sin_T1D)
        out_THD = shared.attention.attend(index, qk[:, :num_queries], qk[:, num_queries:], v, config.window(index))
        return self.o(out_THD.flatten(1), shared.adapted_T1)

    def changed(self) -> None:
        """The parameters were changed."""
        self._scale_HD = None

    def _scale(self) -> Tensor:
        """Weights of the norms of all query and key heads, [H + K, D]; kept while they do not change."""
        if self._scale_HD is None or torch.is_grad_enabled():
            queries, keys = self.config.num_attention_heads, self.config.num_key_value_heads
            scale = torch.cat((self.q_norm.weight.expand(queries, -1), self.k_norm.weight.expand(keys, -1)))
            if torch.is_grad_enabled():
                return scale
            self._scale_HD = scale
        return self._scale_HD


class _MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, config: DecoderConfig, path: str, projections: list[Projection]) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)
        self.gate_up = Projection(self, path, ("gate_proj", "up_proj"))
        self.down = Projection(self, path, ("down_proj",))
        projections += (self.gate_up, self.down)

    def forward(self, x_TD: Tensor, shared: _Pass) -> Tensor:
        return self.down(shared.operators.swiglu(self.gate_up(x_TD, shared.adapted_T1)), shared.adapted_T1)


def _norm(config: DecoderConfig, size: int) -> nn.RMSNorm:
    return nn.RMSNorm(size, eps=config.rms_norm_eps)


def _normed(x_TD: Tensor, norm: nn.RMSNorm, operators: Operators) -> Tensor:
    eps = norm.eps
    assert eps is not None  # always given
    return operators.rms_norm(x_TD, norm.weight, eps)

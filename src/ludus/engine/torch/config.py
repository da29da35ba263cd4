"""DecoderConfig: the part of a Hugging Face config.json that defines a Llama, Mistral, Qwen2 or Qwen3 (MoE) decoder.

Whatever in config.json would change the arithmetic and is not built here is refused at load, by name: a model that
loads computes what transformers computes. Left out: quantisation, RoPE that depends on a text's length.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ludus.errors import ModelFolderError, UnknownName

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
}
ROPE_TYPES: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": ("factor", "original_max_position_embeddings"),
}
"""Rotary position schemes that are built (`rope.py`), and the keys that each needs."""


@dataclass(frozen=True)
class Experts:
    """A mixture of experts in place of the MLP; names as in config.json."""

    num_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    norm_topk_prob: bool
    layers: tuple[int, ...]
    """Which layers have it; the others keep the MLP."""


@dataclass(frozen=True)
class DecoderConfig:
    """Shapes and constants of a decoder; names as in config.json, with `attention_bias` split by what it acts on."""

    model_type: str
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    max_position_embeddings: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope: Mapping[str, Any] = field(default_factory=dict)
    """`rope_parameters` without the theta, where positions are scaled; see ROPE_TYPES."""
    tie_word_embeddings: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    sliding_window: int | None = None
    """Positions that a token of a windowed layer sees, itself included."""
    windowed_layers: tuple[int, ...] = ()
    experts: Experts | None = None

    @property
    def qk_norm(self) -> bool:
        """Whether queries and keys are normalised per head (Qwen3)."""
        return self.model_type.startswith("qwen3")

    @property
    def routing_width(self) -> int:
        """Experts that a token goes to, in all layers together."""
        return 0 if self.experts is None else len(self.experts.layers) * self.experts.num_experts_per_tok

    def window(self, layer_index: int) -> int | None:
        """Positions that a token sees in a layer, itself included; None is all before it."""
        return self.sliding_window if layer_index in self.windowed_layers else None

    @classmethod
    def from_hf(cls, values: Mapping[str, Any], source: Path) -> DecoderConfig:
        """Read the content of a config.json.

        Args:
            values: the parsed JSON object.
            source: the file, for error texts.

        Raises:
            ModelFolderError: an unknown architecture, a missing key, or a setting that is not supported.
        """
        model_type = values.get("model_type")
        if model_type not in ARCHITECTURES:
            unknown = UnknownName("architecture", str(model_type), ARCHITECTURES)
            raise ModelFolderError(f"{source}: model_type: {unknown}")
        _refuse_unsupported(values, source)
        heads = _integer(values, "num_attention_heads", source)
        hidden = _integer(values, "hidden_size", source)
        num_layers = _integer(values, "num_hidden_layers", source)
        window, windowed = _windows(values, model_type, num_layers, source)
        bias = bool(values.get("attention_bias", False))
        config = cls(
            model_type=model_type,
            vocab_size=_integer(values, "vocab_size", source),
            hidden_size=hidden,
            num_hidden_layers=num_layers,
            num_attention_heads=heads,
            num_key_value_heads=_integer(values, "num_key_value_heads", source, heads),
            head_dim=_integer(values, "head_dim", source, hidden // heads),
            intermediate_size=_integer(values, "intermediate_size", source),
            max_position_embeddings=_integer(values, "max_position_embeddings", source),
            rms_norm_eps=float(values.get("rms_norm_eps", 1e-6)),
            rope_theta=_rope_theta(values),
            rope=_rope_scaling(values, source),
            tie_word_embeddings=bool(values.get("tie_word_embeddings", False)),
            qkv_bias=bias or model_type == "qwen2",
            output_bias=bias and model_type != "qwen2",
            mlp_bias=bool(values.get("mlp_bias", False)) and model_type == "llama",
            sliding_window=window,
            windowed_layers=windowed,
            experts=_experts(values, num_layers, source) if model_type == "qwen3_moe" else None,
        )
        if heads % config.num_key_value_heads:
            raise ModelFolderError(
                f"{source}: num_attention_heads must be a multiple of num_key_value_heads, "
                f"got {heads} and {config.num_key_value_heads}"
            )
        return config

    def to_hf(self) -> dict[str, Any]:
        """The content of a config.json that transformers (4 and 5) and vLLM read."""
        values: dict[str, Any] = {
            "architectures": [ARCHITECTURES[self.model_type]],
            "model_type": self.model_type,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "rope_parameters": {"rope_type": "default", **self.rope, "rope_theta": self.rope_theta},
            "tie_word_embeddings": self.tie_word_embeddings,
            "hidden_act": "silu",
        }
        if self.rope:  # what transformers 4 and vLLM read
            values["rope_scaling"] = dict(self.rope)
        if self.model_type not in ("qwen2", "mistral"):
            values["attention_bias"] = self.qkv_bias
        if self.model_type == "llama":
            values["mlp_bias"] = self.mlp_bias
        if self.model_type == "mistral":
            values["sliding_window"] = self.sliding_window
        elif self.sliding_window is not None:
            values |= {"use_sliding_window": True, "sliding_window": self.sliding_window}
            if self.model_type != "qwen3_moe":
                values["max_window_layers"] = self.num_hidden_layers - len(self.windowed_layers)
                values["layer_types"] = [
                    "sliding_attention" if layer in self.windowed_layers else "full_attention"
                    for layer in range(self.num_hidden_layers)
                ]
        if self.experts is not None:
            values |= {
                "num_experts": self.experts.num_experts,
                "num_experts_per_tok": self.experts.num_experts_per_tok,
                "moe_intermediate_size": self.experts.moe_intermediate_size,
                "norm_topk_prob": self.experts.norm_topk_prob,
                "decoder_sparse_step": 1,
                "mlp_only_layers": [i for i in range(self.num_hidden_layers) if i not in self.experts.layers],
            }
        return values


def _integer(values: Mapping[str, Any], key: str, source: Path, default: int | None = None) -> int:
    value = values.get(key)
    if value is None:
        value = default
    if not isinstance(value, int) or value < 1:
        raise ModelFolderError(f"{source}: expected a positive integer under {key!r}, got {value!r}")
    return value


def _rope(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """RoPE settings: `rope_parameters` (transformers 5) or `rope_scaling` (before)."""
    return values.get("rope_parameters") or values.get("rope_scaling") or {}


def _rope_theta(values: Mapping[str, Any]) -> float:
    return float(_rope(values).get("rope_theta") or values.get("rope_theta") or 10000.0)


def _rope_scaling(values: Mapping[str, Any], source: Path) -> dict[str, Any]:
    """Rotary settings beside the theta; {} for plain ones."""
    rope = _rope(values)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ROPE_TYPES:
        raise ModelFolderError(
            f"{source}: rope_type = {kind!r} is not supported by the torch engine (supported: {', '.join(ROPE_TYPES)}); "
            "serve this model with another engine, or convert it"
        )
    if kind == "default":
        return {}
    settings = {**rope, "rope_type": kind}
    if settings.get("original_max_position_embeddings") is None:
        settings["original_max_position_embeddings"] = values.get("original_max_position_embeddings") or values.get(
            "max_position_embeddings"
        )
    for key in ROPE_TYPES[kind]:
        if not isinstance(settings.get(key), int | float):
            raise ModelFolderError(
                f"{source}: rope_type {kind!r} needs a number under {key!r}, got {settings.get(key)!r}"
            )
    return {key: value for key, value in settings.items() if key not in ("rope_theta", "type") and value is not None}


def _windows(
    values: Mapping[str, Any], model_type: str, num_layers: int, source: Path
) -> tuple[int | None, tuple[int, ...]]:
    """The sliding window and the layers that have it."""
    asked = values.get("sliding_window") is not None if model_type == "mistral" else values.get("use_sliding_window")
    types = values.get("layer_types")
    if types is not None and model_type != "mistral":
        for kind in types:
            if kind not in ("full_attention", "sliding_attention"):
                raise ModelFolderError(f"{source}: layer_types: {kind!r} is not supported by the torch engine")
        windowed = tuple(i for i, kind in enumerate(types) if kind == "sliding_attention")
    elif not asked or model_type == "llama":
        windowed = ()
    else:
        first = values.get("max_window_layers", 28) if model_type in ("qwen2", "qwen3") else 0
        windowed = tuple(range(first, num_layers))
    return (_integer(values, "sliding_window", source), windowed) if windowed else (None, ())


def _experts(values: Mapping[str, Any], num_layers: int, source: Path) -> Experts:
    num_experts = _integer(values, "num_experts" if "num_experts" in values else "num_local_experts", source)
    chosen = _integer(values, "num_experts_per_tok", source)
    if chosen > num_experts:
        raise ModelFolderError(f"{source}: num_experts_per_tok is {chosen}, but there are {num_experts} experts")
    step, dense = values.get("decoder_sparse_step", 1), values.get("mlp_only_layers") or ()
    return Experts(
        num_experts=num_experts,
        num_experts_per_tok=chosen,
        moe_intermediate_size=_integer(values, "moe_intermediate_size", source),
        norm_topk_prob=bool(values.get("norm_topk_prob", False)),
        layers=tuple(i for i in range(num_layers) if i not in dense and (i + 1) % step == 0),
    )


def _refuse_unsupported(values: Mapping[str, Any], source: Path) -> None:
    """Refuse every setting under which transformers would compute something else than this decoder."""
    rope = _rope(values)
    found: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "hidden_act": (values.get("hidden_act", "silu"), ("silu",)),
        "partial_rotary_factor": (
            rope.get("partial_rotary_factor", values.get("partial_rotary_factor", 1.0)),
            (1.0, None),
        ),
        "attention_dropout": (values.get("attention_dropout", 0.0), (0.0, None)),
        "quantization_config": (values.get("quantization_config"), (None,)),
        "num_experts": (None if values["model_type"] == "qwen3_moe" else values.get("num_experts"), (None, 0)),
    }
    for key, (value, supported) in found.items():
        if value not in supported:
            raise ModelFolderError(
                f"{source}: {key} = {value!r} is not supported by the torch engine (supported: {supported[0]!r}); "
                "serve this model with another engine, or convert it"
            )

"""DecoderConfig: the part of a Hugging Face config.json that defines a Llama, Qwen2 or Qwen3 decoder.

Whatever in config.json would change the arithmetic and is not built here is refused at load, by name: a model that
loads computes what transformers computes. Left out: mixtures of experts, sliding windows, scaled RoPE, quantisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ludus.errors import ModelFolderError, UnknownName

ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}


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
    tie_word_embeddings: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False

    @property
    def qk_norm(self) -> bool:
        """Whether queries and keys are normalised per head (Qwen3)."""
        return self.model_type == "qwen3"

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
        bias = bool(values.get("attention_bias", False))
        config = cls(
            model_type=model_type,
            vocab_size=_integer(values, "vocab_size", source),
            hidden_size=hidden,
            num_hidden_layers=_integer(values, "num_hidden_layers", source),
            num_attention_heads=heads,
            num_key_value_heads=_integer(values, "num_key_value_heads", source, heads),
            head_dim=_integer(values, "head_dim", source, hidden // heads),
            intermediate_size=_integer(values, "intermediate_size", source),
            max_position_embeddings=_integer(values, "max_position_embeddings", source),
            rms_norm_eps=float(values.get("rms_norm_eps", 1e-6)),
            rope_theta=_rope_theta(values),
            tie_word_embeddings=bool(values.get("tie_word_embeddings", False)),
            qkv_bias=bias or model_type == "qwen2",
            output_bias=bias and model_type != "qwen2",
            mlp_bias=bool(values.get("mlp_bias", False)) and model_type == "llama",
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
            "rope_parameters": {"rope_theta": self.rope_theta, "rope_type": "default"},
            "tie_word_embeddings": self.tie_word_embeddings,
            "hidden_act": "silu",
        }
        if self.model_type != "qwen2":
            values["attention_bias"] = self.qkv_bias
        if self.model_type == "llama":
            values["mlp_bias"] = self.mlp_bias
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


def _refuse_unsupported(values: Mapping[str, Any], source: Path) -> None:
    """Refuse every setting under which transformers would compute something else than this decoder."""
    rope = _rope(values)
    found: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "hidden_act": (values.get("hidden_act", "silu"), ("silu",)),
        "rope_parameters.rope_type": (rope.get("rope_type", rope.get("type", "default")), ("default",)),
        "partial_rotary_factor": (
            rope.get("partial_rotary_factor", values.get("partial_rotary_factor", 1.0)),
            (1.0, None),
        ),
        "use_sliding_window": (values.get("use_sliding_window", False), (False, None)),
        "attention_dropout": (values.get("attention_dropout", 0.0), (0.0, None)),
        "quantization_config": (values.get("quantization_config"), (None,)),
        "num_experts": (values.get("num_experts"), (None, 0)),
        "num_local_experts": (values.get("num_local_experts"), (None, 0)),
    }
    for layer_type in values.get("layer_types") or ():
        found.setdefault(f"layer_types ({layer_type})", (layer_type, ("full_attention",)))
    for key, (value, supported) in found.items():
        if value not in supported:
            raise ModelFolderError(
                f"{source}: {key} = {value!r} is not supported by the torch engine (supported: {supported[0]!r}); "
                "serve this model with another engine, or convert it"
            )

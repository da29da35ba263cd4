"""Rotary positions: how fast each pair of a head's dimensions turns, under the scaling schemes of long-context models.

Angles are position x frequency (RoFormer, arXiv 2104.09864). The schemes only change the frequencies, once and for all,
and may scale cosine and sine; schemes that depend on a text's length (dynamic NTK, LongRoPE) are refused by the config.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ludus.engine.torch.config import DecoderConfig


def frequencies(config: DecoderConfig, device: torch.device | str = "cpu") -> tuple[Tensor, float]:
    """Radians per position, float32 [head size / 2], and the factor for cosine and sine."""
    half = torch.arange(0, config.head_dim, 2, dtype=torch.int64).to(device=device, dtype=torch.float32)
    plain = 1.0 / (config.rope_theta ** (half / config.head_dim))
    settings = config.rope
    match settings.get("rope_type", "default"):
        case "linear":
            return plain / settings["factor"], 1.0
        case "llama3":
            return _llama3(plain, settings), 1.0
        case "yarn":
            return _yarn(plain, config)
    return plain, 1.0


def _llama3(plain: Tensor, settings: Mapping[str, Any]) -> Tensor:
    """Slow dimensions are stretched, fast ones left alone, those between blended (Llama 3.1's reference code)."""
    low, high = settings["low_freq_factor"], settings["high_freq_factor"]
    turns = settings["original_max_position_embeddings"] * plain / (2 * math.pi)  # within the trained context
    blend: Tensor = ((turns - low) / (high - low)).clamp(0, 1)
    factor: float = settings["factor"]
    return plain * (blend + (1 - blend) / factor)


def _yarn(plain: Tensor, config: DecoderConfig) -> tuple[Tensor, float]:
    """YaRN, arXiv 2309.00071, section 3: as Llama 3's, with a ramp over dimensions and a temperature."""
    settings, size = config.rope, config.head_dim
    factor, context = settings["factor"], settings["original_max_position_embeddings"]

    def dimension(turns: float) -> float:
        """The one that makes so many turns within the trained context."""
        return size * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(config.rope_theta))

    low, high = dimension(settings.get("beta_fast") or 32), dimension(settings.get("beta_slow") or 1)
    if settings.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    steps = torch.arange(size // 2, dtype=torch.float32, device=plain.device)
    stretched = ((steps - low) / max(high - low, 0.001)).clamp(0, 1)
    return plain * (1 - stretched) + plain / factor * stretched, _yarn_attention(settings, factor)


def _yarn_attention(settings: Mapping[str, Any], factor: float) -> float:
    """Scale of cosine and sine: sqrt(1 / t) = 0.1 ln(factor) + 1, eq. 22."""

    def scale(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    if settings.get("attention_factor") is not None:
        return float(settings["attention_factor"])
    mscale, all_dimensions = settings.get("mscale"), settings.get("mscale_all_dim")
    return scale(mscale) / scale(all_dimensions) if mscale and all_dimensions else scale(1.0)

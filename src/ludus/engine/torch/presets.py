"""Small models made from nothing: `init_model` writes a folder that this engine, transformers and vLLM load.

`tiny` (0.5 M parameters) learns toy tasks on two CPU cores in minutes; `small` (0.9 M) is its deeper sibling. Both are
Qwen3 with tied embeddings; their vocabulary is bytes, two-digit numbers and the chat template's special tokens.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ludus.engine.torch.config import DecoderConfig
from ludus.engine.torch.decoder import Decoder
from ludus.engine.torch.files import save_tensors
from ludus.engine.torch.folder import WEIGHTS, save_config
from ludus.engine.torch.tokenizer import CHAT_TEMPLATE, END, PAD, build_tokenizer
from ludus.errors import UnknownName

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 32, "intermediate_size": 384, "max_position_embeddings": 1024,
    },
    "small": {
        "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 32, "intermediate_size": 384, "max_position_embeddings": 1024,
    },
}  # fmt: skip

NUMBER = re.compile("[0-9]{1,2}")
EMBEDDING_STD = 0.25
FREQUENCIES = (0.05, 3.1)
"""Of the features that two-digit numbers start from, radians per unit: from the whole range to one and its neighbour."""


def init_model(folder: Path, preset: str = "tiny", seed: int = 0) -> None:
    """Write a freshly initialised model with its tokenizer and chat template.

    Args:
        folder: made if missing.
        preset: "tiny" or "small".
        seed: equal seeds give equal weights.

    Raises:
        UnknownName: no such preset.
    """
    check_preset(preset)
    tokenizer = build_tokenizer()
    config = DecoderConfig(
        model_type="qwen3",
        vocab_size=tokenizer.get_vocab_size(),
        rms_norm_eps=1e-6,
        rope_theta=10000.0,
        tie_word_embeddings=True,
        **PRESETS[preset],
    )
    decoder = Decoder(config)
    initialise(decoder, {i: int(piece) for piece, i in tokenizer.get_vocab().items() if NUMBER.fullmatch(piece)}, seed)
    folder.mkdir(parents=True, exist_ok=True)
    end, pad = tokenizer.token_to_id(END), tokenizer.token_to_id(PAD)
    save_config(decoder, folder, {"eos_token_id": end, "pad_token_id": pad})
    save_tensors({name: parameter.detach() for name, parameter in decoder.named_parameters()}, folder / WEIGHTS)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(folder / "generation_config.json", {"eos_token_id": end, "pad_token_id": pad, "do_sample": True})
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": END,
            "pad_token": PAD,
            "clean_up_tokenization_spaces": False,
            "model_max_length": config.max_position_embeddings,
            "chat_template": CHAT_TEMPLATE,
        },
    )
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


def check_preset(preset: str) -> None:
    """Raises UnknownName where there is no such preset."""
    if preset not in PRESETS:
        raise UnknownName("preset", preset, PRESETS)


def initialise(decoder: Decoder, numbers: Mapping[int, int], seed: int) -> None:
    """Random weights, in place: matrices normal with standard deviation 1/sqrt(inputs) (LeCun 1998, eq. 16), those that
    write into the residual stream scaled by 1/sqrt(2 * layers) (GPT-2, section 2.3), embeddings 0.25; norms are 1, biases
    0. Narrow models learn much faster so than from the 0.02 that suits wide ones.

    Args:
        numbers: values of the tokens that are numbers. Their embeddings are random Fourier features of the value
            (Rahimi and Recht 2007), so that near numbers look alike before anything is learned.
    """
    generator = torch.Generator().manual_seed(seed)
    residual = 1 / math.sqrt(2 * decoder.config.num_hidden_layers)
    for name, parameter in sorted(decoder.named_parameters()):
        values = parameter.detach()
        if name.endswith("bias"):
            values.zero_()
        elif name.endswith("norm.weight"):
            values.fill_(1.0)
        else:
            std = EMBEDDING_STD if name.endswith(("embed_tokens.weight", "lm_head.weight")) else values.shape[1] ** -0.5
            std *= residual if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
            values.copy_(torch.randn(values.shape, generator=generator) * std)
    embeddings_VD = decoder.model.embed_tokens.weight.detach()
    low, high = (math.log(frequency) for frequency in FREQUENCIES)
    frequencies_D = torch.exp(low + (high - low) * torch.rand(embeddings_VD.shape[1], generator=generator))
    phases_D = 2 * math.pi * torch.rand(embeddings_VD.shape[1], generator=generator)
    for token, value in numbers.items():
        embeddings_VD[token] = math.sqrt(2) * EMBEDDING_STD * torch.cos(frequencies_D * value + phases_D)


def _write_json(path: Path, values: dict[str, object]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

"""The models that are measured: shapes of real ones, random weights. Written once, into `.bench/models`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks.side import WORK

SHAPES: dict[str, dict[str, Any]] = {
    "4x256": {
        "model_type": "qwen3", "vocab_size": 2048, "hidden_size": 256, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "intermediate_size": 768,
        "max_position_embeddings": 2048,
    },
    "0.5B": {  # Qwen2.5-0.5B
        "model_type": "qwen2", "vocab_size": 151936, "hidden_size": 896, "num_hidden_layers": 24,
        "num_attention_heads": 14, "num_key_value_heads": 2, "head_dim": 64, "intermediate_size": 4864,
        "max_position_embeddings": 8192,
    },
}  # fmt: skip
STD = 0.02


def model_folder(shape: str, dtype: str) -> Path:
    """The folder of a model, made where it is not there yet.

    Args:
        shape: a name in SHAPES.
        dtype: "float32" or "bfloat16", that its weights are stored in.
    """
    folder = WORK / "models" / f"{shape}-{dtype}"
    if not folder.exists():
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        _write(unfinished, SHAPES[shape], dtype)
        unfinished.rename(folder)
    return folder


def _write(folder: Path, shape: dict[str, Any], dtype: str) -> None:
    import torch

    from ludus.engine.torch.config import DecoderConfig
    from ludus.engine.torch.decoder import Decoder
    from ludus.engine.torch.folder import save_decoder
    from ludus.engine.torch.presets import init_model

    init_model(folder)  # for its tokenizer and chat template; config and weights are replaced
    decoder = Decoder(DecoderConfig(tie_word_embeddings=True, qkv_bias=shape["model_type"] == "qwen2", **shape))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in decoder.named_parameters():
        values = parameter.detach()
        values.copy_(torch.randn(values.shape, generator=generator) * STD)
        if name.endswith("norm.weight"):
            values.fill_(1.0)
    typed = Decoder(decoder.config, dtype=getattr(torch, dtype))
    typed.flat.values_N.copy_(decoder.flat.values_N)
    save_decoder(typed, folder, tokenizer_from=folder)
    _fill_vocabulary(folder / "tokenizer.json", shape["vocab_size"])


def _fill_vocabulary(file: Path, size: int) -> None:
    """Give every id of the model a text, as others decode what they sample."""
    tokenizer = json.loads(file.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    for number in range(len(vocabulary), size):
        vocabulary[f"w{number}"] = number
    file.write_text(json.dumps(tokenizer))

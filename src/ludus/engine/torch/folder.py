"""Model folders in Hugging Face's format: read, write, and say exactly what is wrong with a bad one.

Reads `model.safetensors` or a sharded `model.safetensors.index.json`; writes one file.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ludus.engine.torch.config import DecoderConfig
from ludus.engine.torch.decoder import Decoder
from ludus.engine.torch.files import copy_tensors, read_json, read_tensors, save_tensors
from ludus.errors import ModelFolderError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
)
SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def load_decoder(folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Decoder:
    """The decoder in a model folder.

    Raises:
        ModelFolderError: the folder or a file of it is missing or damaged, the architecture or a setting is not
            supported, or a tensor is missing, unexpected or of the wrong shape.
    """
    decoder = Decoder(DecoderConfig.from_hf(read_config(folder), folder / "config.json"), device, dtype)
    load_weights(decoder, folder)
    return decoder


def save_decoder(decoder: Decoder, folder: Path, tokenizer_from: Path) -> None:
    """Write config.json and model.safetensors; copy tokenizer, chat template and generation settings.

    Args:
        decoder: what to save.
        folder: made if missing; files of the same names are replaced.
        tokenizer_from: the model folder that the decoder came from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config_file = tokenizer_from / "config.json"
    origin = read_json(config_file) if config_file.is_file() else {}
    save_config(decoder, folder, {key: origin[key] for key in SPECIAL_IDS if origin.get(key) is not None})
    save_tensors({name: parameter.detach() for name, parameter in decoder.named_parameters()}, folder / WEIGHTS)
    copy_tokenizer(tokenizer_from, folder)


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy tokenizer, chat template and generation settings, as far as they are there."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file() and source.resolve() != folder.resolve():
            shutil.copyfile(source / name, folder / name)


def save_config(decoder: Decoder, folder: Path, extra: Mapping[str, Any]) -> None:
    """Write config.json with `extra` keys, such as the ids of special tokens."""
    dtype = str(decoder.flat.values_N.dtype).removeprefix("torch.")
    values = {**decoder.config.to_hf(), **extra, "dtype": dtype, "torch_dtype": dtype}
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def load_weights(decoder: Decoder, folder: Path, targets: Mapping[str, Tensor] | None = None) -> None:
    """Copy the tensors of a model folder into the decoder, or into other tensors of its names. Raises ModelFolderError."""
    targets = targets or {name: parameter.detach() for name, parameter in decoder.named_parameters()}
    found = ((n, tensor, file) for n, tensor, file in _tensors(folder) if not _is_derived(n, decoder.config))
    copy_tensors(found, targets, f"a {decoder.config.model_type} model of this config.json")
    decoder.changed()


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model folder. Raises ModelFolderError."""
    if not folder.is_dir():
        raise ModelFolderError(f"no such model folder: {folder} (expected a folder with config.json and {WEIGHTS})")
    return read_json(folder / "config.json")


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor, Path]]:
    index = folder / INDEX
    if (folder / WEIGHTS).is_file() or not index.is_file():
        files = [folder / WEIGHTS]
    else:
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict):
            raise ModelFolderError(f"{index}: expected an object under 'weight_map', got {shards!r}")
        files = [folder / name for name in sorted(set(shards.values()))]
    for file in files:
        for name, tensor in read_tensors(file):
            yield name, tensor, file


def _is_derived(name: str, config: DecoderConfig) -> bool:
    """Tensors that some files carry though they follow from others."""
    return name.endswith("rotary_emb.inv_freq") or (name == "lm_head.weight" and config.tie_word_embeddings)

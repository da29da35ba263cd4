"""Model folders in Hugging Face's format: read, write, and say exactly what is wrong with a bad one.

Reads `model.safetensors` or a sharded `model.safetensors.index.json`; writes one file. Left out: pickled weights, which
run code when read.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ludus.engine.torch.config import DecoderConfig
from ludus.engine.torch.decoder import Decoder
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
    for name in TOKENIZER_FILES:
        if (tokenizer_from / name).is_file() and tokenizer_from.resolve() != folder.resolve():
            shutil.copyfile(tokenizer_from / name, folder / name)


def save_config(decoder: Decoder, folder: Path, extra: Mapping[str, Any]) -> None:
    """Write config.json with `extra` keys, such as the ids of special tokens."""
    dtype = str(decoder.flat.values_N.dtype).removeprefix("torch.")
    values = {**decoder.config.to_hf(), **extra, "dtype": dtype, "torch_dtype": dtype}
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def load_weights(decoder: Decoder, folder: Path) -> None:
    """Copy the tensors of a model folder into the decoder, in place. Raises ModelFolderError."""
    parameters = {name: parameter.detach() for name, parameter in decoder.named_parameters()}
    missing = set(parameters)
    for name, tensor, file in _tensors(folder):
        if _is_derived(name, decoder.config):
            continue
        target = parameters.get(name)
        if target is None:
            raise ModelFolderError(
                f"{file}: unexpected tensor {name!r}; a {decoder.config.model_type} model of this config.json has no "
                "such parameter: config.json and weights do not belong together"
            )
        if tensor.shape != target.shape:
            raise ModelFolderError(
                f"{file}: tensor {name!r}: expected shape {list(target.shape)}, got {list(tensor.shape)}"
            )
        target.copy_(tensor)
        missing.discard(name)
    if missing:
        first = min(missing)
        raise ModelFolderError(
            f"{folder}: tensor {first!r} of shape {list(parameters[first].shape)} is missing from the weights "
            f"({len(missing)} missing in all)"
        )


def weights_hash(decoder: Decoder) -> str:
    """32 hex digits (blake2b) over the bytes of all parameters, in order of their names."""
    digest = hashlib.blake2b(digest_size=16)
    for name, parameter in sorted(decoder.named_parameters()):
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model folder. Raises ModelFolderError."""
    if not folder.is_dir():
        raise ModelFolderError(f"no such model folder: {folder} (expected a folder with config.json and {WEIGHTS})")
    return read_json(folder / "config.json")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object in a file. Raises ModelFolderError."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelFolderError(f"{path} is missing; a model folder needs it") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelFolderError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise ModelFolderError(f"{path}: expected a JSON object, got {type(values).__name__}")
    return values


def read_tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a safetensors file, one at a time. Raises ModelFolderError."""
    if not path.is_file():
        raise ModelFolderError(f"{path} is missing; expected a safetensors file")
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a dict: it has no iterator)
                yield name, file.get_tensor(name)
    except SafetensorError as error:
        raise ModelFolderError(
            f"{path} ({path.stat().st_size} bytes) is not a whole safetensors file: {error}; was the copy cut short?"
        ) from None


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file; tensors may be views of one buffer. Raises OSError."""
    try:
        save_file({name: tensor.cpu().clone() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})
    except SafetensorError as error:  # how safetensors reports a full disk
        raise OSError(str(error)) from error


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

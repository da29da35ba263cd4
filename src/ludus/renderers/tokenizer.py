"""Tokenizers: Hugging Face's `tokenizer.json`, and bytes with special tokens for tests and the fake engine.

Both encode exactly the text they are given: special tokens written in it become their single ids, and nothing is added
(chat templates write the beginning-of-text token themselves).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from ludus import protocols
from ludus.errors import MissingExtra, ModelFolderError

NUM_BYTES = 256


class ChatTokenizer(protocols.Tokenizer, Protocol):
    """A tokenizer that knows its special tokens."""

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Ids that end a text."""
        ...

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids that stand for a piece of text which is never split."""
        ...


class HFTokenizer:
    """The tokenizer of a Hugging Face model folder.

    Args:
        folder: holds tokenizer.json, and the end-of-text token in tokenizer_config.json or generation_config.json.

    Raises:
        ModelFolderError: a file is missing or damaged, or names an end-of-text token that the vocabulary lacks.
        MissingExtra: the library `tokenizers` is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            import tokenizers
        except ImportError:
            raise MissingExtra("reading a model folder's tokenizer", "train") from None
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ModelFolderError(
                f"{path}: no such file; expected a tokenizer saved by Hugging Face's save_pretrained"
            )
        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # noqa: BLE001 - the Rust library raises plain Exception
            raise ModelFolderError(f"{path}: not a tokenizer that `tokenizers` can read: {error}") from None
        # Some folders save the padding and truncation of their last training batch.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.vocab_size: int = self._tokenizer.get_vocab_size(with_added_tokens=True)
        self.special_ids: frozenset[int] = frozenset(self._tokenizer.get_added_tokens_decoder())
        self.eos_token_ids: tuple[int, ...] = self._read_eos(folder)

    def encode(self, text: str) -> list[int]:
        """Ids of the text; nothing is added. Lone surrogates, which UTF-8 can't hold, become "?"."""
        if not text.isascii():
            text = text.encode(errors="replace").decode()
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids, special tokens included."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        return text

    def _read_eos(self, folder: Path) -> tuple[int, ...]:
        """The generation config's ids first, as they are what generation stops at; then the tokenizer's own."""
        path = folder / "generation_config.json"
        listed = read_json(path).get("eos_token_id")
        ids = [] if listed is None else listed if isinstance(listed, list) else [listed]
        if not all(isinstance(i, int) and i >= 0 for i in ids):
            raise ModelFolderError(f"{path}: expected eos_token_id to be an id or a list of ids, got {listed!r}")
        path = folder / "tokenizer_config.json"
        token = token_text(read_json(path).get("eos_token"))
        if token is not None:
            token_id = self._tokenizer.token_to_id(token)
            if token_id is None:
                raise ModelFolderError(f"{path}: eos_token is {token!r}, which tokenizer.json does not have")
            ids = [*ids, token_id]
        return tuple(dict.fromkeys(ids))


class ByteTokenizer:
    """UTF-8 bytes as ids 0-255, then one id per special token; the longest special token wins.

    >>> ByteTokenizer(["<|end|>"]).encode("hi<|end|>")
    [104, 105, 256]

    Args:
        special_tokens: never split; the first gets id 256.
        eos_token: the one of them that ends a text.
    """

    def __init__(self, special_tokens: Sequence[str] = (), eos_token: str | None = None) -> None:
        if eos_token is not None and eos_token not in special_tokens:
            raise ValueError(f"eos_token {eos_token!r} is not one of the special tokens {list(special_tokens)}")
        self._ids = {token: NUM_BYTES + i for i, token in enumerate(special_tokens)}
        self._pieces = [bytes([i]) for i in range(NUM_BYTES)] + [token.encode() for token in special_tokens]
        longest_first = sorted(special_tokens, key=len, reverse=True)
        self._split = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if special_tokens else None
        self.vocab_size = len(self._pieces)
        self.special_ids = frozenset(self._ids.values())
        self.eos_token_ids = () if eos_token is None else (self._ids[eos_token],)

    def encode(self, text: str) -> list[int]:
        """Ids of the text; nothing is added. Lone surrogates, which UTF-8 can't hold, become "?"."""
        if self._split is None:
            return list(text.encode(errors="replace"))
        ids: list[int] = []
        for index, piece in enumerate(self._split.split(text)):
            if index % 2:
                ids.append(self._ids[piece])
            else:
                ids += piece.encode(errors="replace")
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids; bytes that are not UTF-8 become U+FFFD, and ids outside the vocabulary nothing."""
        pieces = self._pieces
        return b"".join([pieces[i] for i in ids if i < len(pieces)]).decode(errors="replace")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a model folder; {} if there is no such file. Raises ModelFolderError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelFolderError(f"{path}: expected a JSON object, but it can't be read: {error}") from None
    if not isinstance(value, dict):
        raise ModelFolderError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def token_text(value: Any) -> str | None:
    """The text of a special token, which configs write as a string or as {"content": ...}."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None

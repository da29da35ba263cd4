"""What a judge is shown of others' words, so that they can't pass for anybody else's.

Every piece of a conversation begins with a mark that no text in it contains: the mark is a hash of all the texts, which
none of them can be written to hold. What chat templates would take for special tokens is broken up, and long texts lose
their middle, so that nobody can push a judge's task out of its context.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ludus.types import MAIN_ROLE, Message, Rollout

MOST_CHARACTERS = 40_000
"""Of one conversation or text; about ten thousand tokens."""
LEAST_PIECE = 400
"""Characters that every message of a conversation may keep, however many there are."""
BREAK = "\N{ZERO WIDTH SPACE}"

_SPECIAL = re.compile(
    r"<[|｜]|[|｜]>|<</?SYS>>|\[/?[A-Za-z]*[A-Z][A-Z_]+\]|"
    r"</?(?:s|sop|eop|bos|eos|pad|unk|mask|think|thinking|tools|tool_calls?|tool_response|start_of_turn|end_of_turn|"
    r"start_of_image|unused\d*|reserved_\w+)>"
)
"""How special tokens of chat templates are written."""


@dataclass(frozen=True)
class Piece:
    """One thing that was said: who, and what."""

    who: str
    text: str


def pieces_of(messages: Sequence[Message]) -> list[Piece]:
    """A conversation as pieces: texts, calls of tools, results of tools. Reasoning is nobody's to judge and left out."""
    return [Piece(_valid(piece.who), _valid(piece.text)) for message in messages for piece in _pieces(message)]


def histories(rollout: Rollout) -> dict[str, list[Message]]:
    """Every conversation of the main role: its own as "", and the last of each sub-agent by name."""
    last: dict[str, int] = {}
    for index, call in enumerate(rollout.calls):
        if call.role == MAIN_ROLE and call.agent:
            last[call.agent] = index
    return {"": rollout.messages or rollout.task.messages()} | {
        agent: rollout.history(index) for agent, index in last.items()
    }


def mark_for(texts: Sequence[str]) -> str:
    """16 hex digits that none of the texts contains; the same for the same texts, so that verdicts can be cached."""
    digest = hashlib.blake2b(digest_size=8)
    for text in texts:
        digest.update(text.encode(errors="replace") + b"\0")
    while any(digest.hexdigest() in text for text in texts):
        digest.update(b"once more")
    return digest.hexdigest()


def legible(text: str, most: int = MOST_CHARACTERS) -> str:
    """A text as a judge may read it: valid Unicode, no special tokens, its middle left out where it is too long.

    >>> legible("a" * 20, most=10)
    'aaaaa\\n[... 10 characters left out ...]\\naaaaa'
    """
    text = _valid(text)
    if len(text) > most:
        half = most // 2
        text = f"{text[:half]}\n[... {len(text) - 2 * half:,} characters left out ...]\n{text[-half:]}"
    return _SPECIAL.sub(lambda found: found[0][0] + BREAK + found[0][1:], text)


def shortened(pieces: Sequence[Piece], most: int = MOST_CHARACTERS) -> list[Piece]:
    """Legible pieces of a conversation; where they are too long together the longest are cut first, then the middle."""
    if sum(len(piece.text) for piece in pieces) > most and len(pieces) > most // LEAST_PIECE:
        ends = max(1, most // LEAST_PIECE // 2)
        left_out = Piece("(left out)", f"[... {len(pieces) - 2 * ends:,} messages left out ...]")
        pieces = [*pieces[:ends], left_out, *pieces[-ends:]]
    limit = _fair_limit([len(piece.text) for piece in pieces], most)
    return [Piece(" ".join(legible(piece.who, LEAST_PIECE).split()), legible(piece.text, limit)) for piece in pieces]


def quoted(pieces: Sequence[Piece]) -> tuple[str, str]:
    """Pieces, each under a line of its own that begins with a mark; and the mark."""
    mark = mark_for([f"{piece.who}\n{piece.text}" for piece in pieces])
    return "\n".join(f"{mark} {piece.who}:\n{piece.text}" for piece in pieces), mark


def _valid(text: str) -> str:
    """Without halves of surrogate pairs, which no API takes."""
    return text.encode(errors="replace").decode()


def _pieces(message: Message) -> Iterator[Piece]:
    role, name = str(message.get("role", "?")), str(message.get("name") or "")
    text = _text(message.get("content"))
    calls = message.get("tool_calls") or ()
    if text or not calls:
        yield Piece(f"{role} {name}".strip() if role == "tool" else role, text)
    for call in calls:
        function = call.get("function") or {}
        yield Piece(f"{role} calls {function.get('name')}", _text(function.get("arguments")))


def _text(content: Any) -> str:
    """Content is text or a list of parts; a part without text is named by its type."""
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, list):
        return "\n".join(
            str(part.get("text", f"[{part.get('type')}]")) if isinstance(part, dict) else str(part) for part in content
        )
    return json.dumps(content, ensure_ascii=False, default=str)


def _fair_limit(lengths: Sequence[int], most: int) -> int:
    """The largest limit on each length under which their sum stays within `most`, or LEAST_PIECE."""
    left, limit = most, most
    for place, length in enumerate(sorted(lengths)):
        limit = max(left, 0) // (len(lengths) - place)
        if length > limit:
            break
        left -= length
        limit = most
    return max(limit, LEAST_PIECE)

"""Messages over a stream socket: a JSON object and bytes beside it, each with its length in front."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

HEAD = struct.Struct("<II")
MOST_WORDS = 1 << 20
MOST_BYTES = 64 << 20
"""A peer may be hostile: longer frames than these are refused before memory is set aside for them."""


class BadFrame(Exception):
    """The peer sent something that is no frame."""


def pack(words: dict[str, Any], data: bytes = b"") -> bytes:
    """A message as it goes over the wire. Raises BadFrame."""
    text = json.dumps(words).encode()
    lengths(HEAD.pack(len(text), len(data)))
    return HEAD.pack(len(text), len(data)) + text + data


def lengths(head: bytes) -> tuple[int, int]:
    """Bytes of the JSON object and bytes beside it. Raises BadFrame."""
    words, data = HEAD.unpack(head)
    if words > MOST_WORDS or data > MOST_BYTES:
        raise BadFrame(f"a frame of {words} + {data} bytes; at most {MOST_WORDS} + {MOST_BYTES} are allowed")
    return words, data


def parse(text: bytes) -> dict[str, Any]:
    """The JSON object. Raises BadFrame."""
    try:
        words = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadFrame(f"no JSON: {error}") from None
    if not isinstance(words, dict):
        raise BadFrame(f"expected a JSON object, got {type(words).__name__}")
    return words


def receive(channel: socket.socket) -> tuple[dict[str, Any], bytes] | None:
    """The next message of a blocking socket, or None where it ends. Raises BadFrame."""
    head = _exactly(channel, HEAD.size)
    if head is None:
        return None
    size, more = lengths(head)
    text, data = _exactly(channel, size), _exactly(channel, more)
    return None if text is None or data is None else (parse(text), data)


def _exactly(channel: socket.socket, count: int) -> bytes | None:
    parts, left = [], count
    while left:
        part = channel.recv(min(left, 1 << 20))
        if not part:
            return None
        parts.append(part)
        left -= len(part)
    return b"".join(parts)

"""What goes over the line to another process, both ways: four bytes of length, then JSON."""

from __future__ import annotations

import json
from typing import Any

import msgspec

HEADER_BYTES = 4


def pack(value: Any) -> bytes:
    """A frame."""
    try:
        body = msgspec.json.encode(value)
    except (UnicodeEncodeError, msgspec.MsgspecError):  # lone surrogates, which UTF-8 can't hold
        body = json.dumps(value).encode()
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def unpack(body: bytes) -> Any:
    """What a frame says; also what JSON has no words for, such as NaN and lone surrogates."""
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return json.loads(body)

"""One rollout <-> one line of a segment: `{"hash": ..., ` followed by the canonical JSON of the record (sorted keys).

The hash is the blake2b-128 of that canonical JSON, so a line can be checked without decoding it, and two equal records
have equal hashes whatever order their dicts were filled in. The arrays of a sequence are base64 of little-endian int32
(tokens, versions), uint8 (mask) and float32 (log-probabilities; float64 where float32 would lose a bit).
"""

from __future__ import annotations

import hashlib
import logging
import sys
from array import array
from typing import Any, TypeVar

import msgspec

from ludus.errors import RunFolderError
from ludus.types import RECORD_VERSION, Rollout, Sequence

logger = logging.getLogger(__name__)

StructT = TypeVar("StructT", bound=msgspec.Struct)


class DamagedRecord(ValueError):
    """A line that is not a whole record: torn, altered, or not JSON."""


class _StoredSequence(Sequence, kw_only=True):
    """A sequence whose arrays are bytes; msgspec writes those as base64."""

    tokens: bytes = b""  # type: ignore[assignment]
    sampled_mask: bytes = b""  # type: ignore[assignment]
    logprobs: bytes = b""  # type: ignore[assignment]
    versions: bytes = b""  # type: ignore[assignment]
    logprobs_float64: bool = False


class _StoredRollout(Rollout, kw_only=True):
    """The record as written. `schema` has no default here, so that it is always written and always required."""

    sequences: list[_StoredSequence] = msgspec.field(default_factory=list)  # type: ignore[assignment]
    schema: int


class _Schema(msgspec.Struct):
    schema: int = RECORD_VERSION


_PREFIX = b'{"hash":"'
_HASH_CHARS = 32
_BODY = len(_PREFIX) + _HASH_CHARS + len(b'",')
_ROLLOUT_FIELDS = tuple(name for name in Rollout.__struct_fields__ if name != "sequences")
_SEQUENCE_FIELDS = tuple(
    name for name in Sequence.__struct_fields__ if name not in ("tokens", "sampled_mask", "logprobs", "versions")
)
_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder(_StoredRollout)


def encode(rollout: Rollout) -> bytes:
    """The line of a rollout, newline included.

    Raises:
        TypeError, OverflowError: the record holds what JSON or the arrays can't (an author's object in a message, a
            token id over 32 bits).
    """
    stored = _copy(rollout, _StoredRollout, _ROLLOUT_FIELDS, sequences=[_pack(s) for s in rollout.sequences])
    try:
        body = _encoder.encode(stored)
    except UnicodeEncodeError:  # half of a surrogate pair, from a tool's output or a model's "\ud800"
        logger.warning("rollout %s holds text that is not valid Unicode; stored with backslash escapes", rollout.id)
        body = _encoder.encode(_escape_surrogates(msgspec.to_builtins(stored)))
    return b'%b%b",%b\n' % (_PREFIX, _hash(body), body[1:])


def decode(line: bytes, *, verify: bool = False) -> Rollout:
    """The rollout of a line.

    Args:
        line: with its newline.
        verify: also recompute the hash.

    Raises:
        DamagedRecord: torn, not JSON, or (verify) altered.
        RunFolderError: written under another version of the record.
    """
    if not line.endswith(b"\n"):
        raise DamagedRecord("the line is torn: it has no newline")
    if verify and not is_intact(line):
        raise DamagedRecord("the hash does not match the record")
    try:
        stored = _decoder.decode(line)
        if stored.schema == RECORD_VERSION:
            return _copy(stored, Rollout, _ROLLOUT_FIELDS, sequences=[_unpack(s) for s in stored.sequences])
        found = stored.schema
    except (msgspec.DecodeError, ValueError) as error:
        found = _schema(line)
        if found == RECORD_VERSION:
            raise DamagedRecord(f"not a rollout record: {error}") from None
    raise RunFolderError(
        f"a rollout record has schema {found}, this version of Ludus reads schema {RECORD_VERSION}; "
        f"read it with the version that wrote it"
    )


def is_intact(line: bytes) -> bool:
    """Whether a line (newline included) is whole and its hash matches."""
    if not (line.startswith(_PREFIX) and line.endswith(b"}\n")):
        return False
    return line[len(_PREFIX) : _BODY - 2] == _hash(b"{" + line[_BODY:-1])


def _hash(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_HASH_CHARS // 2).hexdigest().encode()


def _schema(line: bytes) -> int:
    try:
        return msgspec.json.decode(line, type=_Schema).schema
    except (msgspec.DecodeError, ValueError):
        return RECORD_VERSION


def _pack(sequence: Sequence) -> _StoredSequence:
    logprobs, float64 = array("f", sequence.logprobs), False
    if logprobs.tolist() != sequence.logprobs:
        logprobs, float64 = array("d", sequence.logprobs), True
    return _copy(
        sequence,
        _StoredSequence,
        _SEQUENCE_FIELDS,
        tokens=_to_bytes(array("i", sequence.tokens)),
        sampled_mask=bytes(sequence.sampled_mask),
        logprobs=_to_bytes(logprobs),
        versions=_to_bytes(array("i", sequence.versions)),
        logprobs_float64=float64,
    )


def _unpack(stored: _StoredSequence) -> Sequence:
    return _copy(
        stored,
        Sequence,
        _SEQUENCE_FIELDS,
        tokens=_from_bytes("i", stored.tokens),
        sampled_mask=list(stored.sampled_mask),
        logprobs=_from_bytes("d" if stored.logprobs_float64 else "f", stored.logprobs),
        versions=_from_bytes("i", stored.versions),
    )


def _copy(source: msgspec.Struct, kind: type[StructT], fields: tuple[str, ...], **replaced: Any) -> StructT:
    return kind(**{name: getattr(source, name) for name in fields}, **replaced)


def _to_bytes(values: array[Any]) -> bytes:
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()


def _from_bytes(typecode: str, data: bytes) -> list[Any]:
    values: array[Any] = array(typecode)
    values.frombytes(data)
    if sys.byteorder == "big":
        values.byteswap()
    return values.tolist()


def _escape_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_escape_surrogates(key): _escape_surrogates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escape_surrogates(item) for item in value]
    return value

"""A rollout that a record can hold: what an author's code left in it is checked once, before anyone writes or sends it."""

from __future__ import annotations

from typing import Any

import msgspec

from ludus.authoring.environment import Environment
from ludus.redaction import SECRETS
from ludus.rollouts.failure import mark_failed
from ludus.types import Failure, Rollout

DEEPEST = 20
"""Levels of lists and dicts that are kept of a value that JSON can't hold."""

_AUTHORS = (
    "environment", "task", "tools", "calls", "group_calls", "epilogue", "rewards", "stop", "failure", "sandboxes",
)  # fmt: skip
"""Fields that may hold an author's values."""
_FIELDS = {
    field.name: (msgspec.json.Decoder(field.type), field.type)
    for field in msgspec.structs.fields(Rollout)
    if field.name in _AUTHORS
}


def make_recordable(rollout: Rollout, env: Environment) -> None:
    """Values that JSON can't hold, or that are of another type than the record's, become text, and the rollout fails.

    One object in one message would otherwise end the run that writes it, or the one that reads it. A failure that is
    there already keeps its boundary and blame. No fault: an object that is an option of the environment, and half of a
    surrogate pair, which the log escapes.
    """
    wrong = {}
    for name, (decoder, kind) in _FIELDS.items():
        value = getattr(rollout, name)
        try:
            encoded = msgspec.json.encode(value, order="sorted")
            decoder.decode(encoded)
            if SECRETS.found_in(encoded):
                setattr(rollout, name, msgspec.convert(SECRETS.hide(msgspec.to_builtins(value)), kind))
        except UnicodeEncodeError:
            pass
        except (TypeError, ValueError, RecursionError) as error:
            setattr(rollout, name, _mended(value, kind))
            if name != "environment":
                wrong[name] = f"{name} must be JSON of the right types: {error}"
    if wrong:
        text = "; ".join(wrong.values())
        failure = Failure("environment", "environment", f"TypeError: {text}")
        if rollout.failure is not None and "rewards" not in wrong:
            failure = msgspec.structs.replace(rollout.failure, error=f"{rollout.failure.error}; {text}")
        mark_failed(rollout, env, failure)


def _mended(value: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(_as_json(value), kind, strict=False)
    except msgspec.ValidationError:  # a message that is no dict, a blame that does not exist
        return [] if isinstance(value, list) else None


def _as_json(value: Any, depth: int = 0) -> Any:
    if isinstance(value, msgspec.Struct):
        value = msgspec.structs.asdict(value)
    if isinstance(value, dict) and depth < DEEPEST:
        return {str(key): _as_json(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple) and depth < DEEPEST:
        return [_as_json(item, depth + 1) for item in value]
    return value if value is None or type(value) in (str, int, float, bool) else str(value)

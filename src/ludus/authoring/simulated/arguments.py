"""Do a call's arguments fit a tool's JSON schema? As much of JSON Schema as tools use; what else there is lets pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "array": (list,),
    "object": (dict,), "null": (type(None),),
}  # fmt: skip


def argument_problems(parameters: Mapping[str, Any], arguments: Mapping[str, Any]) -> list[str]:
    """What is wrong, in words.

    >>> schema = {"properties": {"id": {"type": "integer"}}, "required": ["id"], "additionalProperties": False}
    >>> argument_problems(schema, {"id": "7"}), argument_problems(schema, {"x": 1})
    (['id: expected integer, got "7"'], ['id: missing', 'x: no such argument'])
    """
    properties = _table(parameters.get("properties"))
    required = parameters.get("required")
    problems = [
        f"{name}: missing" for name in (required if isinstance(required, list) else ()) if name not in arguments
    ]
    if parameters.get("additionalProperties") is False:
        problems += [f"{name}: no such argument" for name in arguments if name not in properties]
    for name, value in arguments.items():
        problems += _value_problems(name, _table(properties.get(name)), value)
    return problems


def _value_problems(name: str, schema: Mapping[str, Any], value: Any) -> list[str]:
    options = schema.get("enum")
    if isinstance(options, list) and value not in options:
        return [f"{name}: expected one of {', '.join(map(str, options))}, got {_shown(value)}"]
    kinds = schema.get("type")
    names = [kinds] if isinstance(kinds, str) else kinds if isinstance(kinds, list) else []
    known = [kind for kind in names if isinstance(kind, str) and kind in _TYPES]
    if known and not any(_is(value, kind) for kind in known):
        return [f"{name}: expected {' or '.join(known)}, got {_shown(value)}"]
    return []


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[kind])


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _shown(value: Any) -> str:
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."

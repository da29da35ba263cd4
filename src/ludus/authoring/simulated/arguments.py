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
    try:
        return _table_problems("", parameters, arguments, _table(parameters.get("$defs")))
    except RecursionError:  # a definition that is nothing but itself
        return []


def _table_problems(at: str, schema: Mapping[str, Any], value: Mapping[str, Any], defs: Mapping[str, Any]) -> list[str]:
    """`at` is where the table stands, such as "filter."."""
    properties, required = _table(schema.get("properties")), schema.get("required")
    problems = [
        f"{at}{name}: missing" for name in (required if isinstance(required, list) else ()) if name not in value
    ]
    if schema.get("additionalProperties") is False:
        problems += [f"{at}{name}: no such argument" for name in value if name not in properties]
    for name, inner in value.items():
        problems += _value_problems(f"{at}{name}", _table(properties.get(name)), inner, defs)
    return problems


def _value_problems(at: str, schema: Mapping[str, Any], value: Any, defs: Mapping[str, Any]) -> list[str]:
    if isinstance(schema.get("$ref"), str):
        schema = _table(defs.get(schema["$ref"].removeprefix("#/$defs/")))
    either = schema.get("anyOf") or schema.get("oneOf")
    if isinstance(either, list) and either:
        found = [_value_problems(at, _table(option), value, defs) for option in either]
        return [] if [] in found else found[0]
    options = schema.get("enum")
    if isinstance(options, list) and value not in options:
        return [f"{at}: expected one of {', '.join(map(str, options))}, got {_shown(value)}"]
    kinds = schema.get("type")
    names = [kinds] if isinstance(kinds, str) else kinds if isinstance(kinds, list) else []
    known = [kind for kind in names if isinstance(kind, str) and kind in _TYPES]
    if known and not any(_is(value, kind) for kind in known):
        return [f"{at}: expected {' or '.join(known)}, got {_shown(value)}"]
    if isinstance(value, dict):
        return _table_problems(f"{at}.", schema, value, defs)
    items = enumerate(value) if isinstance(value, list) else ()
    each = _table(schema.get("items"))
    return [problem for i, item in items for problem in _value_problems(f"{at}[{i}]", each, item, defs)]


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

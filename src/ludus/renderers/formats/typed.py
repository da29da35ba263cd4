"""Arguments that are written as bare text, in formats where `75001` may be a number or a string.

The tool's JSON schema decides. Where it says nothing, text that is JSON (but no string) or Python's `True`, `False` or
`None` is that value, and all other text is itself.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ludus.renderers.formats.base import Tools
from ludus.renderers.parsing import JSON_ERRORS

_PYTHON = {"True": True, "False": False, "None": None}  # what Jinja's `string` filter writes
_JSON_TYPES = {bool: "boolean", int: "integer", float: "number", list: "array", dict: "object", type(None): "null"}


def typed(text: str, tools: Tools, tool: str, parameter: str) -> Any:
    """The value that stands as bare text for a parameter of a tool."""
    types = _types(_schema(tools, tool, parameter))
    if types == {"string"}:
        return text
    value = literal(text)
    if isinstance(value, str):
        return text
    found = _JSON_TYPES[type(value)]
    fits = not types or found in types or (found == "integer" and "number" in types)
    return value if fits else text


def literal(text: str) -> Any:
    """The JSON or Python constant in a text; the text itself if it is neither, or a JSON string."""
    if text in _PYTHON:
        return _PYTHON[text]
    try:
        value = msgspec.json.decode(text)
    except JSON_ERRORS:
        return text
    return text if isinstance(value, str) else value


def _schema(tools: Tools, tool: str, parameter: str) -> Any:
    """Of one parameter; {} if it is not known."""
    for candidate in tools:
        function = candidate.get("function", candidate)
        if isinstance(function, dict) and function.get("name") == tool:
            parameters = function.get("parameters")
            properties = parameters.get("properties") if isinstance(parameters, dict) else None
            return properties.get(parameter, {}) if isinstance(properties, dict) else {}
    return {}


def _types(schema: Any) -> set[str]:
    """The JSON types that a schema allows; empty where it does not say."""
    if not isinstance(schema, dict):
        return set()
    if isinstance(named := schema.get("type"), str):
        return {named}
    if isinstance(named, list):
        return {name for name in named if isinstance(name, str)}
    if isinstance(values := schema.get("enum"), list):
        return {_JSON_TYPES.get(type(value), "string") for value in values}
    options = schema.get("anyOf") or schema.get("oneOf")
    if isinstance(options, list):
        each = [_types(option) for option in options]
        return set().union(*each) if all(each) else set()
    return set()

"""What verifiers works out anew at every call, worked out once: half of the time that it takes."""

# mypy: disable-error-code="import-not-found"
# verifiers is installed where this runs, not where it is checked.

from __future__ import annotations

import functools
import importlib
import inspect
from types import SimpleNamespace
from typing import Any

ASKING = ("verifiers.utils.async_utils", "verifiers.rubrics.rubric")
"""Modules that look at the parameters of hooks and reward functions whenever they call them."""

_signature = functools.lru_cache(maxsize=4096)(inspect.signature)


def signature(function: Any) -> inspect.Signature:
    """As `inspect.signature`."""
    try:
        return _signature(function)
    except TypeError:  # it can't be hashed
        return inspect.signature(function)


def work_out_once() -> None:
    """From now on, in this process."""
    known = SimpleNamespace(**{**vars(inspect), "signature": signature})
    for name in ASKING:
        module = importlib.import_module(name)
        if getattr(module, "inspect", None) is inspect:
            module.inspect = known  # type: ignore[attr-defined]
    multi_turn = importlib.import_module("verifiers.envs.multiturn_env")
    if (parse := getattr(multi_turn, "parse_response_tokens", None)) is not None:

        async def parse_response_tokens(response: Any, *given: Any) -> Any:
            """Without a thread where there is nothing to parse."""
            return None if response.message.tokens is None else await parse(response, *given)

        multi_turn.parse_response_tokens = parse_response_tokens  # type: ignore[attr-defined]


def fields_once() -> None:
    """Of pydantic, which looks at a field's default whenever an object is made."""
    fields = importlib.import_module("pydantic._internal._fields")
    name = "takes_validated_data_argument"
    if hasattr(fields, name):
        setattr(fields, name, functools.lru_cache(maxsize=4096)(getattr(fields, name)))

"""The decorators `@tool`, `@reward`, `@metric` and `@stop`: they only mark; `Environment` collects what they mark."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

import msgspec

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


class ToolMark(msgspec.Struct, frozen=True):
    """A function the model may call."""

    name: str
    timeout_s: float | None = None
    in_order: bool = False


class ScorerMark(msgspec.Struct, frozen=True):
    """A function that judges a finished rollout (or, taking `group`, all rollouts of one task)."""

    name: str
    weight: float
    independent: bool = False
    """Whether it measures what the reward is meant to, in another way, for training to be compared with."""


class StopMark(msgspec.Struct, frozen=True):
    """A condition that ends the default loop after a reply."""

    name: str


def _mark(fn: FunctionT, mark: Any) -> FunctionT:
    fn.__ludus__ = mark  # type: ignore[attr-defined]
    return fn


def mark_of(fn: Any) -> ToolMark | ScorerMark | StopMark | None:
    """What a function was marked as, if at all."""
    mark = getattr(fn, "__ludus__", None)
    return mark if isinstance(mark, ToolMark | ScorerMark | StopMark) else None


@overload
def tool(fn: FunctionT, /) -> FunctionT: ...
@overload
def tool(
    *, name: str = "", timeout_s: float | None = None, in_order: bool = False
) -> Callable[[FunctionT], FunctionT]: ...
def tool(fn: Any = None, /, *, name: str = "", timeout_s: float | None = None, in_order: bool = False) -> Any:
    """Mark a method (or function) as a tool: its schema comes from its signature and docstring.

    Parameters called `ctx`, `task`, `models`, `state`, `sandbox` or `random` are filled in and never shown to the model.
    Raise `ludus.ToolError` to tell the model that something is wrong.

    Args:
        name: what the model calls it; the function's name by default.
        timeout_s: seconds one call may take; the rollout then fails with boundary "tool".
        in_order: whether calls of one reply run one after another though they are coroutines.
    """
    if fn is None:
        return lambda function: tool_mark(function, name, timeout_s, in_order)
    return tool_mark(fn, name, timeout_s, in_order)


def tool_mark(fn: FunctionT, name: str, timeout_s: float | None, in_order: bool) -> FunctionT:
    return _mark(fn, ToolMark(name or fn.__name__, timeout_s, in_order))


@overload
def reward(fn: FunctionT, /) -> FunctionT: ...
@overload
def reward(*, weight: float = 1.0, name: str = "") -> Callable[[FunctionT], FunctionT]: ...
def reward(fn: Any = None, /, *, weight: float = 1.0, name: str = "") -> Any:
    """Mark a method as a scorer: it returns a number (or bool), or a list of `Reward` for roles and turns.

    Taking `group` (a list of finished rollouts of one task), it returns a number per rollout, in order. Taking `models`,
    it may ask the model of each role; what it asks is recorded with the rollout, or the first one of the group. Scorers
    are asked in the order of their definition: `rollout.rewards` has what those before it said.

    Args:
        weight: its factor in the rollout's reward; 0 makes it a metric.
        name: how results call it; the function's name by default.
    """
    if fn is None:
        return lambda function: _mark(function, ScorerMark(name or function.__name__, weight))
    return _mark(fn, ScorerMark(name or fn.__name__, weight))


@overload
def metric(fn: FunctionT, /) -> FunctionT: ...
@overload
def metric(*, name: str = "", independent: bool = False) -> Callable[[FunctionT], FunctionT]: ...
def metric(fn: Any = None, /, *, name: str = "", independent: bool = False) -> Any:
    """Mark a method as a metric: a scorer of weight 0, shown but not trained on.

    Args:
        name: how results call it; the function's name by default.
        independent: whether it measures what the reward is meant to, in another way: training that raises the reward and
            not this one is warned of.
    """
    if fn is None:
        return lambda function: _mark(function, ScorerMark(name or function.__name__, 0.0, independent))
    return _mark(fn, ScorerMark(name or fn.__name__, 0.0, independent))


def stop(fn: FunctionT) -> FunctionT:
    """Mark a method as a stop condition of the default loop: asked after each reply, true ends the rollout."""
    return _mark(fn, StopMark(fn.__name__))

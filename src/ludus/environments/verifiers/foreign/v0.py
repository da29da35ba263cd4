"""Environments of verifiers before 0.4: `load_environment(**options)` gives a `vf.Environment`.

Its own loop plays, its own rubric scores: between the two, the state stays here. verifiers makes 0 of a reward function
that raises; here the rollout fails, unless `strict` is off.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import json
from collections.abc import Sequence
from importlib.metadata import version
from types import ModuleType
from typing import Any

from . import finding
from .once import signature, work_out_once
from .reach import Reach, client_class
from .speaking import Speaker
from .trouble import Trouble

SAMPLING = ("temperature", "top_p", "top_k", "max_tokens", "stop")
CLOSE = 1e-6
"""Relative difference up to which the weighted sum of scores is the reward."""

Scores = Sequence[tuple[str, float, float] | tuple[str, float, float, str]]
"""Names, values, weights, and roles where they are not the main one's."""


class Side:
    """One environment.

    Args:
        module: has a function `load_environment`.
        options: its arguments.
        strict: a reward function that raises fails the rollout.
    """

    def __init__(self, module: ModuleType, options: dict[str, Any], strict: bool) -> None:
        self._module = module
        self.kept: dict[str, tuple[Any, Any]] = {}
        """Environment and state of rollouts that have not been scored."""
        _check_options(module, options)
        try:
            self._env = module.load_environment(**options)
        except (Exception, SystemExit) as error:
            text = f"load_environment of {module.__name__} raised {type(error).__name__}: {error}"
            raise Trouble(text, "config" if isinstance(error, TypeError | ValueError) else "usage") from error
        if not hasattr(self._env, "rollout") or not hasattr(self._env, "rubric"):
            raise Trouble(f"load_environment returned a {type(self._env).__name__}, expected a vf.Environment", "usage")
        try:
            self._errors = importlib.import_module("verifiers.errors")
            self._client = client_class()
            work_out_once()
        except ImportError as error:
            raise Trouble(
                f"verifiers {version('verifiers')} is too old: 0.3.1 runs packages from before 0.4", "usage"
            ) from error
        if strict:
            _be_strict(importlib.import_module("verifiers.rubrics.rubric").Rubric)

    def about(self) -> dict[str, Any]:
        """What the other side has to know."""
        asked = {**(self._env.sampling_args or {}), **(self._env.sampling_args or {}).get("extra_body", {})}
        return {
            "kind": "v0",
            "versions": finding.describe(self._module),
            "together": any(env.requires_group_rollouts for env in _nested(self._env)),
            "sampling": {name: asked[name] for name in SAMPLING if asked.get(name) is not None},
            "held_out": self._rows("test") is not None,
            "others": [],
        }

    async def open(self) -> None:
        """Nothing is shared."""

    async def close(self) -> None:
        """What the environments share is torn down, each for itself."""
        await asyncio.gather(*(env._teardown() for env in _nested(self._env)), return_exceptions=True)

    def tasks(self, split: str, start: int, count: int) -> list[dict[str, Any]]:
        """Rows of the training or evaluation data: prompt, answer, and the row itself."""
        rows = self._rows(split)
        if rows is None:
            return []
        return [_as_task(rows[i]) for i in range(start, min(start + count, len(rows)))]

    def _rows(self, split: str) -> Any:
        """The data set of a split; None without."""
        if split == "test":
            self._env.build_eval_dataset()
            return self._env.eval_dataset
        self._env.build_dataset()
        return self._env.dataset

    async def play(self, state: str, row: dict[str, Any], speakers: dict[str, Speaker]) -> dict[str, Any]:
        """One rollout by the environment's own loop, and what its rubric says, if it does not compare a group."""
        env, row = self._routed(self._untyped(row))
        ((name, speaker),) = speakers.items()
        reach = Reach(speaker)
        try:
            played = await env.rollout(row, self._client(reach), name, {})
        finally:
            await reach.close()
        self._check(played)
        together = bool(env.requires_group_rollouts)
        if together:
            self.kept[state] = env, played
        final = played.get("final_env_response")
        return {
            "stop": played.get("stop_condition") or "done",
            "scores": None if together else (await self._judged(env, [played]))[0],
            "messages": _plain([*played["prompt"], *played["completion"]]) if final else [],
        }

    async def score(self, states: list[str]) -> list[Scores]:
        """Compare the rollouts of a group."""
        lost = [state for state in states if state not in self.kept]
        if lost:
            raise Trouble(f"{len(lost)} of {len(states)} rollouts are not here any more", blame="infrastructure")
        kept = [self.kept.pop(state) for state in states]
        return await self._judged(kept[0][0], [state for _, state in kept])

    async def _judged(self, env: Any, played: list[Any]) -> list[Scores]:
        rubric, together = env.rubric, env.requires_group_rollouts
        try:
            if not getattr(env, "score_rollouts", True):
                await rubric.dummy_score_group(played)
            elif together:
                await rubric.score_group(played)
            else:
                await rubric.score_rollout(played[0])
            for state in played:
                await rubric.cleanup(state)
            return [_scores(rubric, state) for state in played]
        except Trouble:
            raise
        except Exception as error:
            text = f"scoring raised {type(error).__name__}: {error}"
            raise Trouble(text, boundary="scorer") from error

    def _routed(self, row: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The environment that plays a row, within groups of environments."""
        env = self._env
        while hasattr(env, "_route_child_input"):
            name, row, _ = env._route_child_input(row)
            env = env.get_env_for_name(name)
        return env, row

    def _untyped(self, row: dict[str, Any]) -> dict[str, Any]:
        """Without the column `task` of packages from before 0.1.14: then a name, where verifiers now wants JSON."""
        typed = hasattr(importlib.import_module("verifiers.types"), "flatten_task_input")
        named = isinstance(row.get("task"), str) and not row["task"].lstrip().startswith("{")
        return {name: value for name, value in row.items() if name != "task"} if typed and named else row

    def _check(self, state: Any) -> None:
        """Raises Trouble for the error that a rollout ended with."""
        error = state.get("error")
        if error is None:
            return
        kinds = self._errors
        boundary, blame = (
            ("model", "policy") if isinstance(error, kinds.InvalidModelResponseError) else
            ("environment", "infrastructure") if isinstance(error, kinds.ModelError) else
            ("tool", "policy") if isinstance(error, kinds.ToolParseError) else
            ("tool", "environment") if isinstance(error, kinds.ToolError) else
            ("sandbox", "infrastructure") if isinstance(error, kinds.InfraError) else
            ("environment", "environment")
        )  # fmt: skip
        because = f" from {type(error.__cause__).__name__}: {error.__cause__}" if error.__cause__ is not None else ""
        raise Trouble(f"{type(error).__name__}: {error}{because}", boundary=boundary, blame=blame) from error


def _check_options(module: ModuleType, options: dict[str, Any]) -> None:
    parameters = inspect.signature(module.load_environment).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for name in options:
        if name not in parameters:
            text = f"argument of load_environment in {module.__name__}"
            raise Trouble(text, "unknown", name=name, valid=parameters)


def _be_strict(rubric: Any) -> None:
    """Reward functions that raise, or return no number, raise Trouble."""
    for name, check in (("_call_individual_reward_func", _number), ("_call_group_reward_func", _numbers)):
        setattr(rubric, name, _strict(getattr(rubric, name), check))


def _strict(ask: Any, check: Any) -> Any:
    @functools.wraps(ask)
    async def strict(rubric: Any, func: Any, *args: Any, **kwargs: Any) -> Any:
        raised: list[BaseException] = []

        @functools.wraps(func)
        async def watched(*given: Any, **named: Any) -> Any:
            try:
                value = func(*given, **named)
                return check(await value if inspect.isawaitable(value) else value)
            except (Exception, SystemExit) as error:
                raised.append(error)
                raise RuntimeError(f"{type(error).__name__}: {error}") from error

        watched.__signature__ = signature(func)  # type: ignore[attr-defined]
        value = await ask(rubric, watched, *args, **kwargs)
        if raised:
            name = getattr(func, "__name__", repr(func))
            text = f"the reward function {name} raised {type(raised[0]).__name__}: {raised[0]}"
            raise Trouble(text, boundary="scorer") from raised[0]
        return value

    return strict


def _number(value: Any) -> float:
    return float(value)


def _numbers(values: Any) -> list[float]:
    return [float(value) for value in values]


def _nested(env: Any) -> list[Any]:
    """Itself, and the environments of its group."""
    inner = getattr(env, "envs", None)
    return [env, *(deep for one in inner for deep in _nested(one))] if isinstance(inner, list) else [env]


def _scores(rubric: Any, state: Any) -> Scores:
    """Every function's value with its weight if that adds up to the reward; else the reward, and those as metrics."""
    metrics = {name: float(value) for name, value in (state.get("metrics") or {}).items()}
    total = float(state.get("reward") or 0.0)
    weights = dict(zip(rubric._get_reward_func_names(), rubric._get_reward_weights(), strict=False))
    scores = [(name, value, float(weights.get(name, 0.0))) for name, value in metrics.items()]
    if scores and abs(sum(value * weight for _, value, weight in scores) - total) <= CLOSE * max(1.0, abs(total)):
        return scores
    own = "reward" if "reward" not in metrics else "total reward"
    return [(own, total, 1.0), *((name, value, 0.0) for name, value in metrics.items())]


def _as_task(row: dict[str, Any]) -> dict[str, Any]:
    """A row as JSON. Raises Trouble for what can't be, such as images."""
    try:
        json.dumps(row, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise Trouble(f"a row of its data can't be JSON: {error}", "usage") from error
    return {"prompt": _plain(row["prompt"]), "answer": row.get("answer"), "row": row}


def _plain(messages: Any) -> Any:
    """Messages as dicts without empty fields, which tables of data add to every row."""
    if isinstance(messages, str):
        return messages
    dicts = [m if isinstance(m, dict) else m.model_dump() for m in messages]
    return [{name: value for name, value in m.items() if value is not None} for m in dicts]

"""One rollout as a sample of Inspect: messages, scores, what it took, its failure, and an event for each model call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from ludus.programs.export.inspect_messages import chat_messages, output_of, text_of
from ludus.types import MAIN_ROLE, Call, Failure, Rollout, Sampling

if TYPE_CHECKING:
    from inspect_ai.event import ModelEvent
    from inspect_ai.log import EvalRetryError, EvalSample
    from inspect_ai.model import ChatMessage, GenerateConfig, ModelUsage
    from inspect_ai.scorer import Score
    from inspect_ai.tool import ToolInfo

NAMELESS = "model"
"""Where the record names no model."""


def sample_of(rollout: Rollout, epoch: int, retried: Sequence[Rollout] = ()) -> EvalSample:
    """A rollout as Inspect has it.

    Args:
        epoch: which of its task's rollouts it is, from 1 on.
        retried: its earlier attempts, which failed through no fault of the policy.
    """
    from inspect_ai.log import EvalSample

    task, prompt = rollout.task, rollout.task.prompt
    last = next((call for call in reversed(rollout.calls) if call.role == MAIN_ROLE), None)
    failure = rollout.failure
    ended = time_of(rollout.started + rollout.seconds)
    return EvalSample(
        id=task.id, epoch=epoch, uuid=rollout.id, target=text_of(task.answer),
        input=prompt if isinstance(prompt, str) else chat_messages(prompt, f"{rollout.id}-input"),
        messages=chat_messages(rollout.messages, rollout.id),
        output=output_of(last, rollout.model or NAMELESS, rollout.id),
        scores=None if rollout.excluded else _scores(rollout),
        metadata=_metadata(rollout), events=_events(rollout),
        model_usage={rollout.model or NAMELESS: usage_of(rollout.calls)}, role_usage=_role_usage(rollout),
        started_at=time_of(rollout.started), completed_at=ended, total_time=rollout.seconds,
        working_time=rollout.seconds,
        error=_error(failure) if failure is not None and rollout.excluded else None,
        error_retries=[_retry(other.failure) for other in retried if other.failure is not None] or None,
    )  # fmt: skip


def time_of(seconds: float) -> str:
    """Wall-clock time as text, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def config_of(sampling: Sampling | None) -> GenerateConfig:
    """How replies were drawn."""
    from inspect_ai.model import GenerateConfig

    if sampling is None:
        return GenerateConfig()
    return GenerateConfig(
        temperature=sampling.temperature, top_p=sampling.top_p, top_k=sampling.top_k or None,
        max_tokens=sampling.max_tokens, stop_seqs=list(sampling.stop) or None, seed=sampling.seed,
    )  # fmt: skip


def usage_of(calls: Sequence[Call]) -> ModelUsage:
    """Tokens of model calls, and their cost where it is known."""
    from inspect_ai.model import ModelUsage

    prompt, completion = (
        sum(getattr(call.usage, name) for call in calls) for name in ("prompt_tokens", "completion_tokens")
    )
    cost = sum(call.usage.cost for call in calls)
    return ModelUsage(
        input_tokens=prompt, output_tokens=completion, total_tokens=prompt + completion, total_cost=cost or None
    )


def _role_usage(rollout: Rollout) -> dict[str, ModelUsage]:
    roles = dict.fromkeys(call.role for call in rollout.calls)
    return {role: usage_of([call for call in rollout.calls if call.role == role]) for role in roles}


def _scores(rollout: Rollout) -> dict[str, Score]:
    """The reward, and each scorer's value summed over turns and roles, with every single one beside it."""
    from inspect_ai.scorer import Score

    explanation = rollout.failure.error if rollout.failure else None
    scores = {"reward": Score(value=rollout.reward, answer=rollout.reply, explanation=explanation)}
    for name, value in rollout.metrics.items():
        single = [msgspec.to_builtins(reward) for reward in rollout.rewards if reward.scorer == name]
        scores.setdefault(name, Score(value=value, metadata={"rewards": single}))
    return scores


def _metadata(rollout: Rollout) -> dict[str, Any]:
    """What a task and a rollout have that a sample has no place for."""
    about = {
        "info": rollout.task.info, "split": rollout.split, "purpose": rollout.purpose, "stop": rollout.stop,
        "seeds": msgspec.to_builtins(rollout.seeds), "num_sequences": len(rollout.sequences),
        "failure": msgspec.to_builtins(rollout.failure) if rollout.failure else None,
    }  # fmt: skip
    return {key: value for key, value in about.items() if value not in (None, {}, "")}


def _events(rollout: Rollout) -> list[Any]:
    """One for each model call of every role, with the whole conversation that it was asked with."""
    events: list[Any] = []
    conversations: list[list[ChatMessage]] = []
    tools = [_tool(schema) for schema in rollout.tools]
    clock = rollout.started
    for number, call in enumerate(rollout.calls):
        before = [] if call.parent is None else conversations[call.parent]
        asked = [*before, *chat_messages(call.messages, rollout.id, len(before))]
        conversations.append([*asked, *chat_messages([call.reply], rollout.id, len(asked))])
        events.append(_event(rollout, call, number, asked, tools, clock))
        clock += call.seconds
    return events


def _event(
    rollout: Rollout, call: Call, number: int, asked: list[ChatMessage], tools: list[ToolInfo], clock: float
) -> ModelEvent:
    from inspect_ai.event import ModelEvent

    model = rollout.model or NAMELESS
    return ModelEvent(
        uuid=f"{rollout.id}-{number}", timestamp=datetime.fromtimestamp(clock, UTC),
        completed=datetime.fromtimestamp(clock + call.seconds, UTC), working_start=clock - rollout.started,
        working_time=call.seconds, model=model, role=call.role, input=asked, tools=tools,
        tool_choice="auto" if tools else "none", config=config_of(call.sampling),
        output=output_of(call, model, f"{rollout.id}-{number}"), error=call.malformed or None,
    )  # fmt: skip


def _tool(schema: Mapping[str, Any]) -> ToolInfo:
    from inspect_ai.tool import ToolInfo, ToolParams

    function = schema.get("function", {})
    parameters = function.get("parameters") or {}
    try:
        params = ToolParams.model_validate(parameters)
    except ValueError:  # a schema that Inspect has no word for; the record has it
        params = ToolParams()
    return ToolInfo(
        name=str(function.get("name", "")), description=str(function.get("description", "")), parameters=params
    )


def _error(failure: Failure) -> Any:
    from inspect_ai.log import EvalError

    trace = failure.trace or failure.error
    return EvalError(message=_named(failure), traceback=trace, traceback_ansi=trace)


def _retry(failure: Failure) -> EvalRetryError:
    from inspect_ai.log import EvalRetryError

    trace = failure.trace or failure.error
    return EvalRetryError(message=_named(failure), traceback=trace, traceback_ansi=trace)


def _named(failure: Failure) -> str:
    return f"{failure.error} (in {failure.boundary}, blame {failure.blame})"

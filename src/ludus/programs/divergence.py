"""How far a simulated API is from the real one: rollouts with simulated tools, beside the traffic that their tasks record.

    ludus eval ENV --model demonstrator --arg tools=simulated --role-model api=openai:NAME --out runs/simulated
    ludus env divergence runs/simulated

The demonstrator makes the recorded calls again, so each of them is answered twice. Calls that were not recorded, as another
agent makes them, can't be compared and are counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from ludus.authoring.simulated.divergence import Comparison, ToolRow, by_tool, compare
from ludus.environments.traces import call_key, results_of
from ludus.errors import UsageError
from ludus.store import RolloutIndex, RunFolder
from ludus.types import Message, Rollout

WORST = 5
"""Calls that are shown."""


class Divergence(msgspec.Struct, frozen=True):
    """A simulated API beside the real one."""

    run: str
    num_rollouts: int
    num_unrecorded: int
    """Calls that the record does not have."""
    tools: list[ToolRow]
    worst: list[Comparison]
    """Calls answered most differently, of different tools where there are several."""


def divergence(run: str | Path) -> Divergence:
    """Compare the tool results of a run's rollouts with those that their tasks record.

    Raises:
        RunFolderError: no run folder.
        UsageError: nothing in it can be compared.
    """
    path, found, rollouts, unrecorded = Path(run), list[Comparison](), 0, 0
    with RunFolder.open(path), RolloutIndex(path) as index:
        for row in index.query(last_attempts=True):
            rollout = index.get(row.id)
            pairs = list(_answers(rollout)) if rollout.task.info.get("rest") else []
            rollouts += bool(pairs)
            unrecorded += sum(pair is None for pair in pairs)
            found += [pair for pair in pairs if pair is not None]
    if not found:
        raise UsageError(
            f"{run} has no tool calls that were recorded too: evaluate the demonstrator in an environment from traces, "
            f"with --arg tools=simulated"
        )
    return Divergence(str(run), rollouts, unrecorded, by_tool(found), _worst(found))


def _answers(rollout: Rollout) -> Iterator[Comparison | None]:
    """Each call of a rollout with both answers; None for one that was not recorded."""
    real = results_of(rollout.task.info["rest"])
    messages = rollout.messages
    for at, message in enumerate(messages):
        for call in message.get("tool_calls") or ():
            answer = _result(messages[at + 1 :], call["id"])
            key = call_key(call)
            if answer is None:
                continue
            if not real[key]:
                yield None
                continue
            recorded = real[key].popleft() if len(real[key]) > 1 else real[key][0]
            function = call["function"]
            yield compare(function["name"], f"{function['name']} {function['arguments']}", recorded, answer)


def _result(after: list[Message], call_id: str) -> str | None:
    for message in after:
        if message["role"] == "assistant":
            return None
        if message["role"] == "tool" and message.get("tool_call_id") == call_id:
            return str(message["content"])
    return None


def _worst(found: list[Comparison]) -> list[Comparison]:
    worst: dict[str, list[Comparison]] = {}
    for one in sorted((one for one in found if not one.exact), key=lambda one: (one.same_outcome, one.fields)):
        worst.setdefault(one.tool, []).append(one)
    first = [ones[0] for ones in worst.values()]
    rest = [one for ones in worst.values() for one in ones[1:]]
    return [*first, *rest][:WORST]

"""A rollout as text for a terminal. Whatever a model, tool or task wrote loses its control characters first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from ludus.cli.output import align, faint, heading
from ludus.display.sandboxes import tiers_text
from ludus.programs.report.words import clean
from ludus.types import MAIN_ROLE, Call, Failure, Message, Reward, Rollout

if TYPE_CHECKING:
    from ludus.store import IndexRow

MOST_NOTED = 200
"""Characters of a judge's reason."""
COLOURS = {"system": "magenta", "user": "blue", "assistant": "green", "tool": "yellow"}


def rollout_lines(rollout: Rollout, *, success_reward: float | None = None) -> Iterator[str]:
    """The whole rollout, turn by turn, then its rewards and its failure."""
    env = rollout.environment
    yield f"{heading(clean(rollout.id))}  {clean(env.id)}{_options(env.options)}  " + faint(
        f"{rollout.purpose}, {rollout.split}, {clean(rollout.model)}"
    )
    seeds = rollout.seeds
    yield faint(
        f"task {clean(rollout.task.id)}, visit {seeds.visit}, sample {seeds.sample}, attempt {seeds.attempt}, "
        f"seed {seeds.run}" + (f", sandboxes: {clean(tiers_text(rollout.sandboxes))}" if rollout.sandboxes else "")
    )
    turns: dict[str, int] = {}
    for call in rollout.calls:
        for message in call.messages:
            yield from message_lines(message)
        turns[call.role] = turn = turns.get(call.role, -1) + 1
        yield from message_lines(call.reply, _about(call, rollout, turn))
        if call.malformed:
            yield click.style(f"  malformed tool call: {clean(call.malformed)}", fg="red")
    for message in rollout.epilogue:
        yield from message_lines(message)
    yield from _comparison(rollout)
    yield ""
    yield from score_lines(rollout)


def message_lines(message: Message, about: str = "") -> Iterator[str]:
    """One message: who, then its thinking, text and tool calls, indented."""
    role = str(message.get("role", "?"))
    name = f" {clean(str(message['name']))}" if message.get("name") else ""
    yield ""
    yield click.style(clean(role) + name, fg=COLOURS.get(role, "white"), bold=True) + (
        f"  {faint(about)}" if about else ""
    )
    if message.get("reasoning_content"):
        yield from (faint(line) for line in _indented(str(message["reasoning_content"])))
    if message.get("content"):
        yield from _indented(_text(message["content"]))
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        arguments = clean(str(function.get("arguments", "")))
        yield click.style(f"  → {clean(str(function.get('name')))} {arguments}", fg="yellow")


def score_lines(rollout: Rollout) -> Iterator[str]:
    """The rewards, and why it failed if it did."""
    usage = rollout.usage
    yield (
        f"{heading('reward')} {rollout.reward:.3f}  "
        + faint(
            f"{rollout.num_turns} turns, {usage.prompt_tokens} + {usage.completion_tokens} tokens, "
            f"{rollout.seconds:.2f} s, ended: {clean(rollout.stop)}"
        )
    )  # fmt: skip
    rows = [_reward(reward) for reward in rollout.rewards]
    if rows:
        yield from ("  " + line for line in align(rows, right=[1]))
    if rollout.failure is not None:
        yield from _failure(rollout.failure)


def _reward(reward: Reward) -> list[str]:
    weight = "metric" if reward.weight == 0 else f"weight {reward.weight:g}"
    where = "" if reward.turn is None else f"turn {reward.turn}"
    role = "" if reward.role == MAIN_ROLE else reward.role
    note = _cut(" ".join(clean(reward.note).split()), MOST_NOTED)
    about = ", ".join(filter(None, (weight, role, where)))
    return [clean(reward.scorer), f"{reward.value:g}", faint(": ".join(filter(None, (about, note))))]


def _comparison(rollout: Rollout) -> Iterator[str]:
    """What a judge was asked in order to compare the group."""
    for call in rollout.group_calls:
        for message in call.messages:
            yield from message_lines(message, "comparing the group")
        yield from message_lines(call.reply, f"{clean(call.role)}, comparing the group")


def _failure(failure: Failure) -> Iterator[str]:
    fate = "counts as a failure of the policy" if failure.blame == "policy" else "excluded, never scored"
    yield click.style(f"failed in {failure.boundary}, blame {failure.blame} ({fate})", fg="red", bold=True)
    yield from _indented(failure.error)
    if failure.trace:
        yield from (faint(line) for line in _indented(failure.trace))


def _about(call: Call, rollout: Rollout, turn: int) -> str:
    rewards = [
        f"{clean(r.scorer)} {r.value:g}" for r in rollout.rewards if r.turn == turn and r.role == call.role
    ]  # fmt: skip
    parts = [f"turn {turn + 1}"] + ([call.role] if call.role != MAIN_ROLE else [])
    parts += [f"{call.usage.prompt_tokens} + {call.usage.completion_tokens} tokens", f"{call.seconds:.2f} s"]
    parts += [call.finish_reason] if call.finish_reason != "stop" else []
    return ", ".join(parts + rewards)


def listing(rows: Sequence[IndexRow]) -> list[str]:
    """A table with a row a rollout."""
    header = [heading(name) for name in ("rollout", "purpose", "task", "sample", "reward", "turns", "tokens", "ended")]
    table = [header]
    for row in rows:
        sample = str(row.sample) + (f" (attempt {row.attempt})" if row.attempt else "")
        ended = f"failed: {row.boundary}, {row.blame}" if row.boundary else clean(row.stop)
        colour = "red" if row.boundary else None
        reward = "–" if row.excluded else f"{row.reward:.3f}"
        table.append(
            [row.id, row.purpose, _cut(clean(row.task), 36), sample, reward, str(row.num_turns), str(row.tokens),
             click.style(ended, fg=colour)]
        )  # fmt: skip
    return align(table, right=[4, 5, 6])


def _options(options: dict[str, Any]) -> str:
    return f"({clean(', '.join(f'{key}={value!r}' for key, value in options.items()))})" if options else ""


def _text(content: Any) -> str:
    """Content is text or a list of parts; a part without text is named by its type."""
    if isinstance(content, list):
        return "\n".join(str(part.get("text", f"[{part.get('type')}]")) for part in content)
    return str(content)


def _indented(text: str) -> Iterator[str]:
    return (f"  {line}" for line in clean(text).splitlines())


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"

"""A rubric for a traced environment, suggested from what its conversations have in common: a beginning, to be edited."""

from __future__ import annotations

from collections import Counter

from ludus.judging import Criterion
from ludus.programs.traces.tools import Tools

COMMON = 0.1
"""Share of conversations in which a tool is called that the rubric names."""
MOST_TOOLS = 5
MOST_REASONS = 5


def suggest(tools: Tools, num_tasks: int, num_with_system: int, reasons: Counter[tuple[str, str]]) -> list[Criterion]:
    """The criteria of a rubric.

    Args:
        tools: what was called, how often.
        num_tasks: conversations.
        num_with_system: those with instructions to the assistant.
        reasons: why people found conversations good or bad, by verdict and reason.
    """
    found = [Criterion("answers", "The assistant does what the user asks for, or says clearly why it can't.", 3.0)]
    if tools.calls:
        text = "Every fact in the reply stands in the conversation or in a tool's result; nothing is made up."
        found.append(Criterion("grounded", text, 2.0))
    if num_with_system > num_tasks / 2:
        found.append(
            Criterion("instructions", "The assistant keeps to the instructions it was given at the beginning.", 1.0)
        )
    for name, count in tools.calls.most_common(MOST_TOOLS):
        if count >= COMMON * num_tasks:
            text = (
                f"Where it needs what the tool {name} does or knows, the assistant calls it, with the right arguments."
            )
            found.append(Criterion(f"uses_{name}", text, 0.5))
    for number, ((verdict, why), _) in enumerate(reasons.most_common(MOST_REASONS), 1):
        text = f"Has what users found good: {why}" if verdict == "good" else f"Avoids what users found bad: {why}"
        found.append(Criterion(f"{verdict}_{number}", text, 0.5))
    return found

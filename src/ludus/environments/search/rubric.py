"""The reward of ART-E, term by term: what an agent that answers from a mailbox is paid for, and what it pays for.

    0.1 each  p: the right mail was found, was read, no mail was read that does not exist, its sources name the mail
    -2 + p    a reply that is no tool call, or is cut off; -1.9 + p a tool that does not exist; -1.8 + p bad arguments
    -1 + p    a wrong answer
     0 + p    "I don't know", or no answer within the turns
     1        the right answer, + 0.3 for its sources, + 0.1 / number of sources, + 0.1 * share of turns that are left

After OpenPipe's ART, whose questions all have an answer in one mail. Where several are needed, found and read count by
their share, and sources have to name all; who names none has nothing for their number. Where nobody stated it, "I don't
know" is the right answer, without sources, and those earn their 0.1.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ludus.environments.search.commands import Commands, read_ids, steps_of
from ludus.environments.search.grading import is_unknown, same_answer
from ludus.types import Rollout, Task

SEARCH, READ, ANSWER = "search_emails", "read_email", "return_final_answer"
UNPARSEABLE, BAD_TOOL, BAD_ARGUMENTS, ANSWERED = "unparseable", "bad_tool", "bad_arguments", "answered"
PENALTIES = {UNPARSEABLE: -2.0, "length": -2.0, BAD_TOOL: -1.9, BAD_ARGUMENTS: -1.8}
"""By how a rollout ended."""
NOT_THERE = "there is no such mail"
NOT_RUN = "Error: one call a turn"
"""Begins what is answered to a call that was not carried out."""


@dataclass(frozen=True)
class Rubric:
    """What is to be known of a rollout to reward it."""

    ending: str
    found: float
    """Share of the mails that are needed which a search showed."""
    read: float
    invalid_reads: int
    """Reads of mails that do not exist."""
    sources_right: bool
    num_sources: int
    gave_up: bool
    """Whether it answered that it doesn't know."""
    right: bool
    turns: int
    searches: int

    def reward(self, max_turns: int) -> float:
        """See the formula above."""
        partial = 0.1 * (self.found + self.read + (self.invalid_reads == 0) + self.sources_right)
        if self.ending in PENALTIES:
            return PENALTIES[self.ending] + partial
        if self.right:
            speed = 1 - self.turns / max_turns
            brief = 1 / self.num_sources if self.num_sources else float(self.sources_right)
            return 1 + 0.3 * self.sources_right + 0.1 * brief + 0.1 * speed
        return partial - (self.ending == ANSWERED and not self.gave_up)


def rubric_of(task: Task, rollout: Rollout, commands: Commands | None) -> Rubric:
    """Read off the record, so that recorded rollouts can be scored again.

    Args:
        task: with kind and gold (ids of the mails that are needed) in its info.
        commands: of a terse agent; None for one that calls tools.
    """
    gold, terse = set(task.info["gold"]), commands is not None
    found: set[str] = set()
    read: set[str] = set()
    invalid = searches = 0
    said, sources = "", set[str]()
    for step in steps_of(rollout.messages, commands):
        if step.result.startswith(NOT_RUN):
            continue
        if step.tool == SEARCH:
            searches += 1
            found |= set(shown_ids(step.result, terse))
        elif step.tool == READ and NOT_THERE in step.result:
            invalid += 1
        elif step.tool == READ and step.result and not step.result.startswith("Error"):
            read.add(str(step.arguments.get("message_id")))
        elif step.tool == ANSWER and rollout.stop == ANSWERED:
            said, sources = str(step.arguments.get("answer")), set(map(str, step.arguments.get("sources") or ()))
    gave_up = rollout.stop == ANSWERED and is_unknown(said)
    right = same_answer(task.info["kind"], said, task.answer) if gold else gave_up
    return Rubric(
        ending=rollout.stop,
        found=_share(found, gold),
        read=_share(read, gold),
        invalid_reads=invalid,
        sources_right=rollout.stop == ANSWERED and (gold <= sources if gold else gave_up and not sources),
        num_sources=len(sources),
        gave_up=gave_up,
        right=rollout.stop == ANSWERED and right,
        turns=rollout.num_turns,
        searches=searches,
    )


def shown_ids(result: str, terse: bool) -> list[str]:
    """The ids of mails in what a search answered, in its order."""
    if terse:
        return read_ids(result)
    try:
        found: Any = json.loads(result)
    except ValueError:
        return []
    hits: Sequence[Any] = found if isinstance(found, list) else ()
    return [hit["message_id"] for hit in hits if isinstance(hit, dict) and "message_id" in hit]


def _share(had: set[str], needed: set[str]) -> float:
    return len(had & needed) / len(needed) if needed else 0.0

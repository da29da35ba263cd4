"""Whose fault was it? A judge reads the persona and the conversation, and says user, agent or nobody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from ludus.authoring.users.persona import Persona
from ludus.judging.judge import DEFAULT_JUDGE, Judge, judging
from ludus.judging.quoting import Piece, legible, pieces_of, quoted, shortened
from ludus.protocols import Model
from ludus.types import Message

Who = Literal["user", "agent", "nobody"]
QUESTION = """{quoted}
{mark} end of what is quoted.

A person, played by a model, talked to an assistant. Above are what the person was told to be, as JSON, and what was said. \
Decide whether something went wrong and whose fault it was.

It is the user's fault if they said what contradicts what they were told, made something up, did not tell what they know \
when they were asked, fell out of their role, or left though they had not got what they want. It is the agent's fault if \
it did not do what it could have done with what it was told. \
Answer: {{"fault": "user", "agent" or "nobody", "why": "one sentence"}}"""
NOBODY = '{"fault": "nobody"}'


class Fault(msgspec.Struct, frozen=True):
    """A judge's verdict."""

    fault: Who
    why: str = ""


async def fault_of(model: Model, persona: Persona, messages: Sequence[Message], judge: Judge = DEFAULT_JUDGE) -> Fault:
    """Ask a judge. Raises ScorerFailed where it gives no verdict that can be read, however often it is asked."""
    told = msgspec.json.encode(persona, order="sorted").decode()
    text, mark = quoted([Piece("what the person was told", legible(told)), *shortened(pieces_of(messages))])
    return await judge.ask(model, judging(mark, QUESTION.format(quoted=text, mark=mark)), Fault)

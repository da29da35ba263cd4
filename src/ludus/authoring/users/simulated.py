"""A user whom a model plays, in a conversation of its own: what the agent says comes to it as the other side's words.

Patience and changes of mind are kept by code, not left to the model. Only the user's own words can end the talk.
"""

from __future__ import annotations

import re

from ludus.asking import Unusable, said, until_read
from ludus.authoring.users.persona import Persona
from ludus.authoring.users.user import Ending, Utterance
from ludus.errors import RolloutError
from ludus.protocols import Model
from ludus.types import Message, user

SYSTEM = """You play a person who talks to an assistant. Stay in character and write only what that person says next.
{about}
What you want: {goal}
What you know, and tell only when you are asked for it:
{knows}
- Say one thing at a time, in a sentence or two. Never write the assistant's part, and never mention these instructions.
- Never make up what stands nowhere above: say that you don't know it.
- When you have what you want, end your message with [SATISFIED].
- When you see that you will not get it, end your message with [GAVE UP]."""
BEGIN = "(The assistant waits for you to begin.)"
SILENT = "(The assistant says nothing.)"
CHANGED = "(You have changed your mind, and now want: {goal} Tell the assistant so.)"
NOTHING_SAID = "(You said nothing. Write what the person says next.)"
ENOUGH = "This takes too long. Goodbye."
ATTEMPTS = 2
"""To get a word out of a model."""

GAVE_UP = "[GAVE UP]"
MARKS: dict[Ending, str] = {"satisfied": "[SATISFIED]", "gave_up": GAVE_UP}
_END = re.compile(r"\[\s*(SATISFIED|GAVE[ _]UP)\s*\]", re.IGNORECASE)
_SPEAKER = re.compile(r"\A\s*(?:user|customer|person|me)\s*:\s*", re.IGNORECASE)


class SimulatedUser:
    """Plays a persona with a model.

    Args:
        persona: who they are.
        model: the model of the user's role.
    """

    def __init__(self, persona: Persona, model: Model) -> None:
        self._persona, self._model = persona, model
        self._num_heard = 0
        self._talk: list[Message] = [{"role": "system", "content": instructions(persona)}, user(BEGIN)]

    async def speak(self, heard: str | None) -> Utterance:
        """See `User.speak`. Raises RolloutError where the model does not answer, or says nothing at all."""
        if heard is None:
            return self._begin() if self._persona.opening else await self._say()
        if len(self._talk) == 2:
            self._begin()  # somebody has said it in their place: the task's prompt
        self._num_heard += 1
        changed = self._persona.change_after(self._num_heard)
        if self._num_heard >= self._persona.patience:
            return Utterance(ENOUGH, "lost_patience")
        note = f"\n\n{CHANGED.format(goal=changed.say)}" if changed else ""
        self._talk.append(user((heard.strip() or SILENT) + note))
        return await self._say()

    def _begin(self) -> Utterance:
        opening = self._persona.begins_with
        self._talk.append({"role": "assistant", "content": opening})
        return Utterance(opening)

    async def _say(self) -> Utterance:
        return await until_read(
            self._model, self._talk, _something, "the simulated user", _fails, what="words", again=NOTHING_SAID,
            tries=ATTEMPTS,
        )  # fmt: skip


def _something(text: str) -> Utterance:
    utterance = read(text)
    if not (utterance.text or utterance.leaves):
        raise Unusable("it said nothing")
    return utterance


def _fails(text: str) -> RolloutError:
    return RolloutError(text, "model", "infrastructure")


def instructions(persona: Persona) -> str:
    """The system prompt of a model that plays a persona."""
    knows = (
        "\n".join(f"- {name}: {value}" for name, value in sorted(persona.knows.items())) or "- nothing in particular"
    )
    about = f"\nWho you are: {persona.about}" if persona.about else ""
    return SYSTEM.format(about=about, goal=persona.goal, knows=knows)


def read(text: str) -> Utterance:
    """What a model's reply says, and whether it ends the talk.

    >>> read("<think>Done.</think>User: Great, thanks! [SATISFIED]")
    Utterance(text='Great, thanks!', ending='satisfied')
    """
    text = said(text)
    found = _END.search(text)
    ending: Ending = "" if not found else "satisfied" if found[1].upper() == "SATISFIED" else "gave_up"
    return Utterance(_SPEAKER.sub("", _END.sub("", text)).strip(), ending)

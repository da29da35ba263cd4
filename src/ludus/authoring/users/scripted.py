"""A user without a model: tells what they are asked for, changes their mind on time, and leaves when it is enough."""

from __future__ import annotations

import re

from ludus.authoring.users.persona import Persona
from ludus.authoring.users.user import Utterance

WORD = re.compile(r"\w+")
THANKS = "Thank you, that is all."
ENOUGH = "This takes too long. Goodbye."
UNKNOWN = "I don't know."
GO_ON = "Please go on."


class ScriptedUser:
    """Plays a persona by rules, the same way each time.

    Asked for something that they know (all words of its name stand in what the agent says) they tell it; to any other
    question they say that they don't know. A change of mind comes before anything else.
    """

    def __init__(self, persona: Persona) -> None:
        self._persona = persona
        self._num_heard = 0

    async def speak(self, heard: str | None) -> Utterance:
        """See `User.speak`."""
        persona = self._persona
        if heard is None:
            return Utterance(persona.begins_with)
        self._num_heard += 1
        if changed := persona.change_after(self._num_heard):
            return Utterance(changed.say)
        if not persona.will_change(self._num_heard) and self._is_satisfied(heard):
            return Utterance(THANKS, "satisfied")
        if self._num_heard >= persona.patience:
            return Utterance(ENOUGH, "lost_patience")
        told = [f"The {name} is {value}." for name, value in sorted(persona.knows.items()) if asks_for(heard, name)]
        return Utterance(" ".join(told) or (UNKNOWN if "?" in heard else GO_ON))

    def _is_satisfied(self, heard: str) -> bool:
        return any(says(heard, words) for words in self._persona.satisfied_by)


def says(heard: str, words: str) -> bool:
    """Whether a text has these words, whatever their case: whole ones, as "abandoned" is not "done".

    >>> says("It is done.", "done"), says("I have abandoned it.", "done")
    (True, False)
    """
    return re.search(rf"(?<!\w){re.escape(words.strip().casefold())}(?!\w)", heard.casefold()) is not None


def asks_for(heard: str, name: str) -> bool:
    """Whether all words of a name stand in a text.

    >>> asks_for("What is your order's number?", "order number"), asks_for("Which order?", "order number")
    (True, False)
    """
    wanted = set(WORD.findall(name.casefold().replace("_", " ")))
    return bool(wanted) and wanted <= set(WORD.findall(heard.casefold()))

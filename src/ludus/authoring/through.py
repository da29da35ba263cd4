"""`Through`: a model around another one, whose replies it passes on; what wrappers of environments put in its place.

What it asks on its own account becomes part of the conversation that the model underneath sees, though its caller's has
nothing of it: so a rollout stays one sequence. Programs that call the rollout's address come through it as well; only
from worker processes they can't.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ludus.authoring.conversations import opening, same_message, with_text
from ludus.errors import UsageError
from ludus.protocols import Model
from ludus.types import Call, Message, Reply


class Through:
    """Implements `ludus.protocols.Model` around another one. Callers have to carry on one conversation."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.begin()

    def begin(self) -> None:
        """Make the state of a rollout, also where it begins anew; what subclasses keep of one they make here, too."""
        self._asides: list[tuple[int, Message, list[Message]]] = []
        """Place and content of a reply in the caller's conversation, and what was said before it that is not there."""
        self._start: list[Message] = []
        """Of the caller's conversation: what it was asked first."""

    async def ask(
        self, agent: str, messages: Sequence[Message], *, tools: Sequence[Any] = (), **sampling: Any
    ) -> Reply:
        """What subclasses override: the reply to the caller's conversation, recorded under a sub-agent's name or ""."""
        return await self.below(agent, messages, tools=tools, **sampling)

    # --- for subclasses -------------------------------------------------------------------------------------------

    async def below(
        self, agent: str, messages: Sequence[Message], *, tools: Sequence[Any] = (), **sampling: Any
    ) -> Reply:
        """The reply of the model underneath to a conversation."""
        if isinstance(self._model, Through):  # whose additions are part of it, whoever it is recorded under
            return await self._model.ask(agent, messages, tools=tools, **sampling)
        model = self._model.subagent(agent) if agent else self._model
        return await model.chat(messages, tools=tools, **sampling)

    def whole(self, messages: Sequence[Message]) -> list[Message]:
        """The caller's conversation with everything that was said beside it."""
        shown: list[Message] = []
        asides = {place: (reply, said) for place, reply, said in self._asides}
        for place, message in enumerate(messages):
            reply, said = asides.get(place, (None, []))
            shown += [*said, message] if reply is not None and same_message(message, reply) else [message]
        return shown

    def goes_on(self, messages: Sequence[Message]) -> bool:
        """Whether this is the conversation that its first caller began, and not another one."""
        self._start = self._start or list(messages)
        return len(messages) >= len(self._start) and all(map(same_message, messages, self._start))

    def noted(self, messages: Sequence[Message], note: str) -> list[Message]:
        """A conversation, whole, with a note of the user's where it began; so one with examples has it after those."""
        start = len(self._start if self.goes_on(messages) else opening(messages))
        shown = self.whole(messages)
        return [*with_text(shown[:start], note), *shown[start:]]

    def remember(self, messages: Sequence[Message], said: list[Message], reply: Reply) -> None:
        """The reply to `messages` came after `said`."""
        if said:
            self._asides.append((len(messages), dict(reply.message), said))

    # --- a model --------------------------------------------------------------------------------------------------

    async def chat(self, messages: Sequence[Message], *, tools: Sequence[Any] = (), **sampling: Any) -> Reply:
        """See `ludus.protocols.Model.chat`."""
        return await self.ask("", messages, tools=tools, **sampling)

    @property
    def base_url(self) -> str:
        """The address of the model underneath, which leads through here."""
        return self._reached().base_url

    @property
    def api_key(self) -> str:
        """Of that address."""
        return self._reached().api_key

    @property
    def openai(self) -> Any:
        """A client of that address."""
        return self._reached().openai

    async def answer(self, request: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """See `ludus.recording.model.RecordedModel.answer`."""
        found: tuple[int, dict[str, Any]] = await self._reached().answer(request)  # type: ignore[attr-defined] # recorded here
        return found

    def forget(self) -> None:
        """Begin the rollout's record again."""
        self.begin()
        self._model.forget()  # type: ignore[attr-defined] # asked for where `answer` is

    def subagent(self, name: str) -> Model:
        """The model underneath: a sub-agent has a conversation of its own."""
        return self._model.subagent(name)

    async def adopt(self, name: str) -> None:
        """See `ludus.protocols.Model.adopt`."""
        await self._model.adopt(name)

    async def calls(self) -> Sequence[Call]:
        """See `ludus.protocols.Model.calls`."""
        return await self._model.calls()

    def _reached(self) -> Model:
        """The model at the bottom, at whose address this one answers from now on. Raises UsageError in a worker."""
        bottom = self._model
        while isinstance(bottom, Through):
            bottom = bottom._model
        if not hasattr(bottom, "front"):
            raise UsageError(
                "the agent calls its model's address, where nothing can be added to what it says from a worker process: "
                "run it with workers = 0"
            )
        bottom.front(self.chat)
        return bottom


def beneath(model: Model, make: Callable[[Model], Through]) -> Model:
    """A model with a `Through` under all that stand around it already, so that what they ask comes through it, too."""
    if not isinstance(model, Through):
        return make(model)
    model._model = beneath(model._model, make)
    return model

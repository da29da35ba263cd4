"""The model that a rollout is handed: `chat` in process, an `openai` client without a socket, an address for programs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ludus.authoring.subagents import check_name
from ludus.authoring.tools import schema_of
from ludus.recording.apis.api import Caller
from ludus.recording.apis.chat import Chat
from ludus.recording.endpoint import whole_answer
from ludus.recording.recorder import Recorder
from ludus.types import Call, Message, Reply, Sampling

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from ludus.recording.gateway import Gateway

SAMPLING_FIELDS = frozenset(Sampling.__struct_fields__)


@dataclass
class RecordedModel:
    """Implements `ludus.protocols.Model` for one rollout and role."""

    recorder: Recorder
    role: str
    gateway: Gateway
    agent: str = ""
    _key: str = ""
    _client: AsyncOpenAI | None = None

    async def chat(self, messages: Sequence[Message], *, tools: Sequence[Any] = (), **sampling: Any) -> Reply:
        """See `ludus.protocols.Model.chat`."""
        unknown = sampling.keys() - SAMPLING_FIELDS
        if unknown:
            raise TypeError(
                f"chat() got {', '.join(sorted(unknown))}; sampling takes {', '.join(sorted(SAMPLING_FIELDS))}"
            )
        schemas = [schema_of(tool) for tool in tools]
        return await self.recorder.call(self.role, messages, schemas, sampling, agent=self.agent)

    @property
    def api_key(self) -> str:
        """Opens `base_url`, for this rollout and role alone."""
        if not self._key:
            self._key = self.gateway.admit(self.recorder, self.role)
        return self._key

    @property
    def base_url(self) -> str:
        """An address on the loopback interface; the server behind it starts at the first use."""
        return self.gateway.address(self.api_key, self.agent)

    @property
    def openai(self) -> AsyncOpenAI:
        """An `openai.AsyncOpenAI` that reaches this rollout without a socket."""
        if self._client is None:
            self._client = self.gateway.client(self.api_key, self.agent)
        return self._client

    def subagent(self, name: str) -> RecordedModel:
        """See `ludus.protocols.Model.subagent`."""
        return replace(self, agent=check_name(name), _key=self.api_key, _client=None)

    async def adopt(self, name: str) -> None:
        """See `ludus.protocols.Model.adopt`."""
        self.recorder.adopt(name)

    async def calls(self) -> Sequence[Call]:
        """See `ludus.protocols.Model.calls`."""
        return self.recorder.calls

    def front(self, chat: Callable[..., Awaitable[Reply]]) -> None:
        """Let requests at `base_url` be answered by what stands around this model: called as `chat` is."""
        self.recorder.fronts[self.role, self.agent] = chat

    async def answer(self, request: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """What a POST of the request to `base_url`/chat/completions is answered with, without a socket: status and body."""
        return await whole_answer(Chat(), Caller(self.recorder, self.role, self.agent), request)

    def forget(self) -> None:
        """Begin the rollout's record again: whoever called has died, and is started anew."""
        if self._key:
            self.gateway.interrupt(self._key)
        self.recorder.forget()

    def close(self) -> None:
        """The address and key are good no longer."""
        if self._key:
            self.gateway.dismiss(self._key)

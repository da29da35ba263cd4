"""`Recorder`: every model call of one rollout, as messages and as the exact tokens behind them.

A call whose messages extend an earlier call of its role (compared canonically: clients reorder JSON keys and drop
reasoning) reuses that call's recorded tokens, and only the new messages are rendered: N linear turns give one sequence.
What does not provably extend forks a new sequence and is never spliced.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ludus.authoring.context import Context
from ludus.authoring.environment import Environment
from ludus.errors import ModelCallFailed
from ludus.protocols import SampleChunk, SampleRequest
from ludus.recording.backend import Backend, Bindable, OnText, TokenBackend
from ludus.recording.telling import Telling
from ludus.recording.wire import canonical, cut_at
from ludus.redaction import SECRETS
from ludus.renderers.parsing import tool_calls_of
from ludus.seeds import derive
from ludus.types import MAIN_ROLE, Call, FinishReason, Message, Reply, Sampling, Usage
from ludus.types import Sequence as TokenSequence


@dataclass
class _Recorded:
    """What later calls need of a finished one."""

    history: list[Message]
    """The whole conversation, the recorded reply (with its reasoning) included."""
    given: Reply
    """What the caller got, and may have changed since."""
    end: int = 0
    """Length of its sequence after the reply."""
    ended_by: int | None = None
    """The stop token that ended the reply; None if it was cut."""


@dataclass
class Recorder:
    """All model calls of one rollout.

    Args:
        backends: what stands behind each role.
        sampling: of calls that don't say otherwise.
        seed: from which each call's seed is derived.
        session: names the rollout to the engine, which keeps its key-value caches by it.
        order: the rollout's place where batches are composed deterministically.
        pinned: fields of `Sampling` that are the rollout's to say: what a call says of them is left aside.
    """

    backends: dict[str, Backend]
    sampling: Sampling = Sampling()
    seed: int = 0
    session: str = ""
    order: tuple[int | str, ...] = ()
    pinned: frozenset[str] = frozenset()
    fronts: dict[tuple[str, str], Callable[..., Awaitable[Reply]]] = field(default_factory=dict)
    """What stands in front of a model, by its role and sub-agent: requests at its address are answered there."""
    calls: list[Call] = field(default_factory=list)
    sequences: list[TokenSequence] = field(default_factory=list)
    _recorded: list[_Recorded] = field(default_factory=list)
    _by_history: dict[tuple[str | None, int], int] = field(default_factory=dict)
    """Calls by who made them (None: anybody) and the hash of their whole conversation."""
    _claimed: set[tuple[int, int]] = field(default_factory=set)
    failed: ModelCallFailed | None = None
    """Why the last call that ended gave no answer; None if it gave one."""
    _started: int = 0
    _in_flight: int = 0
    _closed: bool = False
    _life: int = 0
    """How often it has begun again."""
    _began: float = field(default_factory=time.perf_counter)

    async def call(
        self,
        role: str,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]] = (),
        overrides: Mapping[str, Any] | None = None,
        on_text: OnText | None = None,
        on_thought: OnText | None = None,
        agent: str = "",
    ) -> Reply:
        """Answer a conversation and record it.

        Args:
            role: whose model answers.
            messages: the whole conversation.
            tools: JSON schemas in OpenAI's format.
            overrides: fields of `Sampling` that differ from the rollout's.
            on_text: told the visible text as it is sampled.
            on_thought: told the reasoning before it.
            agent: the sub-agent that calls; "" is the rollout's own agent.

        Raises:
            ModelCallFailed: no answer, or the rollout is over.
        """
        life = self._life
        self._check_open(life)
        turn, self._started = self._started, self._started + 1
        sampling = self._sampling(overrides or {})
        if sampling.seed is None:
            sampling = msgspec.structs.replace(sampling, seed=derive(self.seed, role, turn))
        parent, keys = self._find_parent(role, agent, messages, tools)
        known = self._recorded[parent].history if parent is not None else []
        # Copies: agents may edit their conversations, not the record.
        new = [SECRETS.hide(_copy(message)) for message in messages[len(known) :]]
        call = Call(role=role, agent=agent, parent=parent, messages=new, reply={}, sampling=sampling)
        began = time.perf_counter()
        backend, tell = self.backends[role], Telling(on_text, on_thought)
        self._in_flight += 1
        try:
            if isinstance(backend, TokenBackend):
                reply, end, ended_by = await self._sample(backend, call, known, tools, tell)
            else:
                shown = [SECRETS.hide(message) for message in messages]
                reply, end, ended_by = await backend.complete(shown, tools, sampling), 0, None
                tell(reply.message, "", reply.finish_reason)
            self._check_open(life)
        except ModelCallFailed as error:
            if life == self._life:
                self.failed = error
            raise
        finally:
            self._in_flight -= 1
        self.failed = None
        call.reply, call.finish_reason, call.usage = _copy(reply.message), reply.finish_reason, reply.usage
        call.malformed, call.waited_s, call.cached = reply.malformed, reply.waited_s, reply.cached
        call.began_s, call.seconds = began - self._began, time.perf_counter() - began
        self.calls.append(call)
        self._recorded.append(_Recorded([*known, *new, call.reply], reply, end, ended_by))
        for whose in (agent, None):
            self._by_history[whose, hash((keys, canonical(call.reply)))] = len(self.calls) - 1
        return reply

    def adopt(self, agent: str) -> None:
        """Take a sub-agent's calls for the rollout's own."""
        for call in self.calls:
            if call.agent == agent:
                call.agent = ""

    def refuse(self, why: str) -> None:
        """A program asked its address for what can't be done: if its rollout fails, that is why."""
        self.failed = ModelCallFailed(f"the agent's request was refused: {why}", "environment")

    def _sampling(self, overrides: Mapping[str, Any]) -> Sampling:
        """The rollout's, with what a call may say of it."""
        said = {name: value for name, value in overrides.items() if name not in self.pinned}
        if not said:
            return self.sampling
        stop = said.get("stop", self.sampling.stop)
        said["stop"] = (stop,) if isinstance(stop, str) else stop
        return msgspec.convert({**msgspec.structs.asdict(self.sampling), **said}, Sampling)

    @property
    def waiting(self) -> bool:
        """Whether a call is under way."""
        return self._in_flight > 0

    def sampled(self, reply: Reply) -> list[tuple[str, float]]:
        """Text and log-probability of each token of a reply; [] where tokens are not known."""
        index = next(i for i, recorded in enumerate(self._recorded) if recorded.given is reply)
        call, recorded = self.calls[index], self._recorded[index]
        backend = self.backends[call.role]
        if call.sequence is None or not isinstance(backend, TokenBackend):
            return []
        sequence = self.sequences[call.sequence]
        span = range(recorded.end - call.usage.completion_tokens, recorded.end)
        return [(backend.renderer.tokenizer.decode([sequence.tokens[t]]), sequence.logprobs[t]) for t in span]

    @property
    def model_name(self) -> str:
        """Of the main role."""
        return self.backends[MAIN_ROLE].name

    def bind(self, env: Environment, ctx: Context) -> None:
        """Let backends that speak from inside the rollout know where they are."""
        for role, backend in self.backends.items():
            if isinstance(backend, Bindable):
                self.backends[role] = backend.bind(env, ctx, role)

    async def settle(self) -> None:
        """Everything that was called is in `calls`; nothing to do where the calls are made here."""

    def forget(self) -> None:
        """Begin again, as if nothing had been called: the process that called has died."""
        self.release()
        self.calls.clear()
        self.sequences.clear()
        self._recorded.clear()
        self._by_history.clear()
        self._claimed.clear()
        self._started, self.failed = 0, None
        self._life += 1

    def close(self) -> None:
        """The rollout is over: its record changes no more, whatever its agent has left running."""
        self._closed = True
        self.release()

    def _check_open(self, life: int) -> None:
        if self._closed or life != self._life:  # what is still under way belongs to no record any more
            raise ModelCallFailed("the rollout that this model belongs to is over")

    def release(self) -> None:
        """Tell the engines that this rollout's caches may go."""
        for sequence in self.sequences:
            backend = self.backends[sequence.role]
            if isinstance(backend, TokenBackend):
                backend.sampler.release(self._session_of(sequence.id))

    def _session_of(self, sequence: int) -> str:
        again = f".{self._life}" if self._life else ""  # calls of the life before may still be in the old caches
        return f"{self.session}/{sequence}{again}"

    @property
    def num_forks(self) -> int:
        """Sequences beyond the first of each role."""
        return len(self.sequences) - len({sequence.role for sequence in self.sequences})

    def _find_parent(
        self, role: str, agent: str, messages: Sequence[Message], tools: Sequence[dict[str, Any]]
    ) -> tuple[int | None, int]:
        """The earlier call whose whole history is the longest proper prefix of `messages`, and the hash of them all.

        One's own before another's: sub-agents that are asked the same side by side do not take each other's place.
        """
        chain = hash((role, msgspec.json.encode(tools) if tools else b""))
        parent = None
        for message in messages:
            chain = hash((chain, canonical(message)))
            known = self._by_history.get((agent, chain), self._by_history.get((None, chain)))
            parent = parent if known is None else known
        if parent is not None and len(self._recorded[parent].history) == len(messages):
            parent = None  # the reply itself is asked to go on: nothing new to render, so nothing is spliced
        return parent, chain

    async def _sample(
        self,
        backend: TokenBackend,
        call: Call,
        known: Sequence[Message],
        tools: Sequence[dict[str, Any]],
        tell: Telling,
    ) -> tuple[Reply, int, int | None]:
        life = self._life
        sequence, prompt = self._place(backend, call, known, tools)
        claim = (sequence.id, len(sequence.tokens))
        self._claimed.add(claim)
        try:
            before = [*sequence.tokens, *prompt]
            chunk = await self._draw(backend, before, sequence.id, call.sampling, tools, tell)
        finally:
            if life == self._life:
                self._claimed.discard(claim)
        self._check_open(life)
        _append(sequence, prompt, chunk, call.sampling)
        call.sequence = sequence.id
        finish: FinishReason = chunk.finish_reason or "cancelled"
        message, malformed = backend.renderer.parse(chunk.tokens, finish, tools, prompt=before)
        message, stopped_by = cut_at(message, call.sampling.stop) if finish == "stop" else (message, "")
        called = tool_calls_of(message)
        if called and finish == "stop":
            finish = "tool_calls"
        usage = Usage(len(sequence.tokens) - len(chunk.tokens), len(chunk.tokens))
        ended_by = chunk.tokens[-1] if chunk.tokens[-1] in backend.renderer.stop_token_ids else None
        reply = Reply(message, called, finish, usage, malformed, stopped_by)
        return reply, len(sequence.tokens), ended_by

    def _place(
        self, backend: TokenBackend, call: Call, known: Sequence[Message], tools: Sequence[dict[str, Any]]
    ) -> tuple[TokenSequence, list[int]]:
        """The sequence that this call continues (or a new one that forks off), and the ids to insert before the reply."""
        if call.parent is not None:
            before = self._recorded[call.parent]
            ids = backend.renderer.extend(known, call.messages, tools, ended_by=before.ended_by)
            number = self.calls[call.parent].sequence
            if ids is not None and number is not None:
                sequence = self.sequences[number]
                taken = len(sequence.tokens) != before.end or (number, before.end) in self._claimed
                if not taken and sequence.temperature == call.sampling.temperature:
                    return sequence, ids
                return self._fork(call.role, sequence, before.end, sequence.tokens[: before.end]), ids
        ids = backend.renderer.render([*known, *call.messages], tools)
        siblings = [s for s in self.sequences if s.role == call.role and s.num_sampled]
        if not siblings:
            return self._open(TokenSequence(id=len(self.sequences), role=call.role)), ids
        shared = _common_prefix(siblings[-1].tokens, ids)
        return self._fork(call.role, siblings[-1], shared, ids[:shared]), ids[shared:]

    def _fork(self, role: str, parent: TokenSequence, at: int, tokens: list[int]) -> TokenSequence:
        fork = self._open(TokenSequence(id=len(self.sequences), role=role, parent=parent.id, fork_at=at))
        _extend(fork, tokens)
        return fork

    def _open(self, sequence: TokenSequence) -> TokenSequence:
        self.sequences.append(sequence)  # at once: calls may run side by side, and ids are positions
        return sequence

    async def _draw(
        self,
        backend: TokenBackend,
        tokens: list[int],
        sequence: int,
        sampling: Sampling,
        tools: Sequence[dict[str, Any]],
        tell: Telling,
    ) -> SampleChunk:
        """Sample to the end; the chunks are joined."""
        sampling = msgspec.structs.replace(
            sampling, stop_token_ids=tuple({*sampling.stop_token_ids, *backend.renderer.stop_token_ids})
        )
        request = SampleRequest(
            tokens=tokens,
            sampling=sampling,
            weights=backend.weights,
            session=self._session_of(sequence),
            stream=tell.listening,
            order=(*self.order, sequence),
        )
        ids: list[int] = []
        logprobs: list[float] = []
        versions: list[int] = []
        finish: FinishReason | None = None
        routing = b""
        async for chunk in backend.sampler.sample(request):
            ids += chunk.tokens
            logprobs += chunk.logprobs
            versions += chunk.versions
            finish, routing = chunk.finish_reason, chunk.routing
            if tell.due(len(ids), finish):
                tell(*backend.renderer.parse(ids, finish or "length", tools, prompt=tokens), finish)
        if not ids or finish is None:
            raise ModelCallFailed(f"{backend.name} ended a reply without a token or a finish reason")
        return SampleChunk(ids, logprobs, versions, finish, routing)


def _copy(message: Message) -> Message:
    """A copy that shares nothing that can change; plain text messages, which most are, need no deep one."""
    return deepcopy(message) if any(isinstance(v, list | dict) for v in message.values()) else dict(message)


def _append(sequence: TokenSequence, prompt: list[int], chunk: SampleChunk, sampling: Sampling) -> None:
    _extend(sequence, prompt)
    sequence.tokens += chunk.tokens
    sequence.sampled_mask += [1] * len(chunk.tokens)
    sequence.logprobs += chunk.logprobs
    sequence.versions += chunk.versions
    sequence.routing = chunk.routing  # of all its tokens so far
    sequence.truncated_sampling |= sampling.truncated
    sequence.temperature = sampling.temperature


def _extend(sequence: TokenSequence, tokens: list[int]) -> None:
    """Append tokens that nobody sampled."""
    sequence.tokens += tokens
    sequence.sampled_mask += [0] * len(tokens)
    sequence.logprobs += [0.0] * len(tokens)
    sequence.versions += [-1] * len(tokens)


def _common_prefix(a: list[int], b: list[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))

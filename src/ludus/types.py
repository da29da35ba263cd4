"""The words of the house: Message, Task, Reply, Call, Sequence, Reward, Failure, Rollout.

All are frozen or append-only msgspec structs that serialise to JSON without help. A `Rollout` is the canonical record
of one attempt at one task; everything else the stack shows or trains on is computed from it.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

import msgspec

from ludus.errors import Blame, Boundary

Message = dict[str, Any]
"""One chat message in OpenAI's format: {"role": ..., "content": ..., "tool_calls": ..., "reasoning_content": ...}."""

FinishReason = Literal["stop", "length", "tool_calls", "cancelled"]

RECORD_VERSION = 1
MAIN_ROLE = "policy"


def user(content: str) -> Message:
    """A user message.

    >>> user("hi")
    {'role': 'user', 'content': 'hi'}
    """
    return {"role": "user", "content": content}


def calls_tool(name: str, /, **arguments: Any) -> Message:
    """An assistant message that calls a tool, as an expert's play may have it.

    >>> calls_tool("add", a=1)["tool_calls"][0]["function"]
    {'name': 'add', 'arguments': '{"a": 1}'}
    """
    function = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
    return {"role": "assistant", "content": "", "tool_calls": [{"id": name, "type": "function", "function": function}]}


def content_hash(value: Any) -> str:
    """16 hex digits that depend on the content alone (keys sorted). Raises TypeError for what JSON can't hold."""
    return hashlib.blake2b(msgspec.json.encode(value, order="sorted"), digest_size=8).hexdigest()


class Task(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One problem: a prompt and what the scorers need to know. Frozen and serialisable: what JSON can't hold is refused
    with a TypeError that names the field.

    >>> Task(prompt="2 + 2?", answer="4").messages()
    [{'role': 'user', 'content': '2 + 2?'}]
    """

    prompt: str | list[Message]
    """The user's text, or a whole conversation in OpenAI's format."""
    answer: Any = None
    """The known answer, if there is one; never shown to the model."""
    info: dict[str, Any] = msgspec.field(default_factory=dict)
    """Anything else that tools and scorers need; JSON values only."""
    id: str = ""
    """Names the task in results; by default the hash of its content."""

    def __post_init__(self) -> None:
        for name, decoder in _TASK_FIELDS.items():
            try:
                decoder.decode(msgspec.json.encode(getattr(self, name), order="sorted"))
            except (TypeError, ValueError, RecursionError) as error:
                raise TypeError(
                    f"a task holds JSON values only (str, numbers, lists, dicts), but its {name} does not: {error}"
                ) from None
        if not self.id:
            msgspec.structs.force_setattr(self, "id", self.content_key())

    def content_key(self) -> str:
        """Hash of prompt, answer and info: two tasks with the same key are the same problem, whatever their ids."""
        return content_hash([self.prompt, self.answer, self.info])

    def messages(self) -> list[Message]:
        """The prompt as a fresh list of messages."""
        if isinstance(self.prompt, str):
            return [user(self.prompt)]
        return [dict(message) for message in self.prompt]


_TASK_FIELDS = {field.name: msgspec.json.Decoder(field.type) for field in msgspec.structs.fields(Task)}


class Sampling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a reply is drawn. Log-probabilities are those of the distribution these settings define."""

    temperature: float = 1.0
    """0 is greedy decoding."""
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps the whole vocabulary."""
    max_tokens: int | None = None
    """Per reply; None is what the engine's context leaves."""
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        problem = (
            f"temperature must be >= 0, got {self.temperature}" if not self.temperature >= 0 else
            f"top_p must be in (0, 1], got {self.top_p}" if not 0 < self.top_p <= 1 else
            f"top_k must be >= 0, got {self.top_k}" if self.top_k < 0 else
            f"max_tokens must be >= 1, got {self.max_tokens}" if self.max_tokens is not None and self.max_tokens < 1
            else ""
        )  # fmt: skip
        if problem:
            raise ValueError(problem)

    @property
    def truncated(self) -> bool:
        """Whether tokens were excluded from the distribution (refused in training)."""
        return self.top_p < 1 or self.top_k > 0


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one model call, or a sum over calls; cost in US dollars where a price is known."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cost + other.cost,
        )


class ToolCall(msgspec.Struct, frozen=True):
    """A tool call that the model made. `arguments` is None where they were not a JSON object; `error` says why."""

    id: str
    name: str
    arguments: dict[str, Any] | None
    error: str = ""


class Reply(msgspec.Struct, frozen=True):
    """What `ctx.model.chat` returns."""

    message: Message
    """Append this to the conversation."""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason = "stop"
    usage: Usage = Usage()
    malformed: str = ""
    """Why a tool call in the text could not be read; tell it to the model."""
    stopped_by: str = ""
    """The stop string that ended it; the text goes up to there."""
    waited_s: float = 0.0
    """Seconds that went, before the answer was begun, into attempts that failed and into waiting, as for a rate limit."""
    cached: bool = False
    """Whether it was known already, so that nobody had to answer."""

    @property
    def text(self) -> str:
        """The visible text, without reasoning and tool calls."""
        return self.message.get("content") or ""

    @property
    def reasoning(self) -> str:
        """The thinking before the text, if the model showed any."""
        return self.message.get("reasoning_content") or ""

    @property
    def truncated(self) -> bool:
        """Whether the reply hit its token limit."""
        return self.finish_reason == "length"


class Call(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One model call. Only what was new is kept: the whole conversation is the parent's, its reply, then `messages`."""

    role: str = MAIN_ROLE
    agent: str = ""
    """The sub-agent that called; "" is the rollout's own agent."""
    parent: int | None = None
    """Index of the earlier call of this rollout that this one extends."""
    messages: list[Message]
    reply: Message
    finish_reason: FinishReason = "stop"
    malformed: str = ""
    usage: Usage = Usage()
    sampling: Sampling = Sampling()
    sequence: int | None = None
    """Id of the token sequence that recorded it; None where the model gives no tokens."""
    began_s: float = 0.0
    """Seconds after the rollout's record began."""
    seconds: float = 0.0
    waited_s: float = 0.0
    """Of these, the first so many: attempts that failed, and waiting, as for a rate limit."""
    cached: bool = False
    """Whether the reply was known already, so that it says nothing of a model's speed or price."""


class Sequence(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Token ids and, per token, who produced it. Arrays have the length of `tokens`, shape [T].

    A sequence that forked repeats its parent's first `fork_at` tokens with `sampled_mask` 0, so that no sampled token
    is trained on twice.
    """

    id: int
    role: str = MAIN_ROLE
    parent: int | None = None
    fork_at: int = 0
    tokens: list[int] = msgspec.field(default_factory=list)
    sampled_mask: list[int] = msgspec.field(default_factory=list)
    """1 where the model sampled the token."""
    logprobs: list[float] = msgspec.field(default_factory=list)
    """Of sampled tokens, under the distribution really sampled from; 0.0 elsewhere."""
    versions: list[int] = msgspec.field(default_factory=list)
    """Weights version that sampled the token; -1 elsewhere."""
    routing: bytes = b""
    """Which experts the tokens went to, in a mixture of experts; see `protocols.SampleChunk`."""
    truncated_sampling: bool = False
    """Whether top-p or top-k was in force for a token of it."""
    temperature: float = 1.0

    @property
    def num_sampled(self) -> int:
        return sum(self.sampled_mask)


class Reward(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one scorer said. Weight 0 is a metric: shown, not trained on. `turn` None is the whole rollout.

    The weight of one that a scorer returns multiplies the scorer's own; "" for its name is the scorer's, and a name that
    begins with "/" goes behind that.
    """

    scorer: str
    value: float
    weight: float = 1.0
    role: str = MAIN_ROLE
    turn: int | None = None
    note: str = ""
    """Why, in the words of a judge; for people."""


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a rollout failed: recorded once, with where and whose fault."""

    boundary: Boundary
    blame: Blame
    error: str
    """Type and message of the exception."""
    trace: str = ""
    """The last frames of the traceback, for the author."""


class EnvironmentRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """Names an environment so that it can be rebuilt: the id is what `ludus eval ENV` takes."""

    id: str
    options: dict[str, Any] = {}
    version: str = ""
    hash: str = ""


class Seeds(msgspec.Struct, frozen=True):
    """What a rollout's randomness is derived from."""

    run: int
    visit: int
    sample: int
    attempt: int


class Rollout(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One attempt at one task: the canonical record.

    `reply`, `messages`, `reward` and `metrics` are what scorers and reports read; `calls` and `sequences` hold the
    truth they come from.
    """

    id: str
    group: str
    """The rollouts of one visit to one task share it."""
    environment: EnvironmentRef
    task: Task
    split: str = "train"
    seeds: Seeds
    purpose: str = ""
    """What it was made for: "train", or the name of an evaluation."""
    model: str = ""
    tools: list[dict[str, Any]] = msgspec.field(default_factory=list)
    """JSON schemas of the tools that the default loop offered."""
    calls: list[Call] = msgspec.field(default_factory=list)
    group_calls: list[Call] = msgspec.field(default_factory=list)
    """What scorers asked models in order to compare its group; kept with the first of the rollouts that were compared."""
    sequences: list[Sequence] = msgspec.field(default_factory=list)
    epilogue: list[Message] = msgspec.field(default_factory=list)
    """Messages after the last reply: the environment's last word."""
    rewards: list[Reward] = msgspec.field(default_factory=list)
    stop: str = ""
    """Why it ended: "done", "max_turns", "length", a stop condition's name, or "failed"."""
    failure: Failure | None = None
    seconds: float = 0.0
    started: float = 0.0
    """Wall-clock time, seconds since the epoch."""
    versions: dict[str, str] = msgspec.field(default_factory=dict)
    """Versions of the libraries that made it."""
    sandboxes: list[str] = msgspec.field(default_factory=list)
    """How what ran in its sandboxes was contained: their tiers, such as ["namespaces"]; [] where it had none."""
    schema: int = RECORD_VERSION

    @property
    def messages(self) -> list[Message]:
        """The main role's conversation as its last call saw it, that call's reply, and the environment's last word."""
        return self.conversation(MAIN_ROLE) + self.epilogue

    def conversation(self, role: str) -> list[Message]:
        """The conversation of the role's last call, and its reply; sub-agents have conversations of their own."""
        return self.history(self._last(role))

    def history(self, index: int | None) -> list[Message]:
        """The whole conversation of a call, by its index, and its reply; [] for none."""
        parts: list[list[Message]] = []
        while index is not None:
            call = self.calls[index]
            parts.append([*call.messages, call.reply])
            index = call.parent
        return [message for part in reversed(parts) for message in part]

    def _last(self, role: str) -> int | None:
        own = (i for i in reversed(range(len(self.calls))) if self.calls[i].role == role and not self.calls[i].agent)
        return next(own, None)

    @property
    def reply(self) -> str:
        """The main role's last visible text; "" if it never spoke."""
        index = self._last(MAIN_ROLE)
        return "" if index is None else self.calls[index].reply.get("content") or ""

    @property
    def num_turns(self) -> int:
        """Model calls of the main role, without its sub-agents'."""
        return sum(call.role == MAIN_ROLE and not call.agent for call in self.calls)

    @property
    def reward(self) -> float:
        """The main role's weighted sum of rewards."""
        return self.role_reward(MAIN_ROLE)

    def role_reward(self, role: str) -> float:
        """A role's weighted sum of rewards, turn rewards included."""
        return sum(r.weight * r.value for r in self.rewards if r.role == role)

    @property
    def metrics(self) -> dict[str, float]:
        """Every scorer's value of the main role summed over turns, by name; those of other roles as ROLE/NAME."""
        values: dict[str, float] = {}
        for r in self.rewards:
            name = r.scorer if r.role == MAIN_ROLE else f"{r.role}/{r.scorer}"
            values[name] = values.get(name, 0.0) + r.value
        return values

    @property
    def usage(self) -> Usage:
        """Of all model calls, those of judges included."""
        total = Usage()
        for call in (*self.calls, *self.group_calls):
            total = total + call.usage
        return total

    @property
    def truncated(self) -> bool:
        """Whether a reply of the main role hit its token limit."""
        return any(call.finish_reason == "length" and call.role == MAIN_ROLE for call in self.calls)

    @property
    def excluded(self) -> bool:
        """Failed through no fault of the policy: counted, bounded, never scored."""
        return self.failure is not None and self.failure.blame != "policy"

"""Recorded conversations as an environment: what `ludus env from-traces` makes packages of.

A task is the beginning of a conversation; its `info` holds the rest. What the agent says is its own; the user and the tools
are those of the record, or played by models. The reward is how much of the record a rollout gives again: the calls, and the
words of the last answer.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict, deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import msgspec

from ludus.authoring.context import Context
from ludus.authoring.declare import metric, reward, stop
from ludus.authoring.simulated.api import Example, SimulatedApi, real_answers
from ludus.authoring.simulated.environment import API
from ludus.authoring.tasks import from_jsonl
from ludus.authoring.tools import SchemaTool, Tool
from ludus.authoring.users.environment import USER, UserEnvironment
from ludus.authoring.users.errors import UserError, find_errors
from ludus.authoring.users.persona import Persona
from ludus.authoring.users.recorded import RecordedUser
from ludus.authoring.users.scripted import WORD
from ludus.authoring.users.simulated import SimulatedUser
from ludus.authoring.users.user import User
from ludus.errors import ConfigError, ToolError
from ludus.renderers.parsing import arguments_of
from ludus.types import Message, Rollout, Task, content_hash

Users = Literal["recorded", "simulated"]
Tools = Literal["recorded", "simulated", "real"]
PATIENCE = 8
"""Replies that a simulated user waits for at least."""
RECORD = "rest"
"""Under which a task's info has how its conversation went on."""
ABOUT = (
    "You are the person who said, in this order: {lines}. Want the same things, in your own words, one after another."
)


class _ToolsFile(msgspec.Struct):
    tools: list[dict[str, Any]] = []
    examples: list[Example] = []
    offered: bool = True
    """Whether the traces say what tools an agent had."""


class TraceEnvironment(UserEnvironment):
    """Base of environments from recorded conversations.

    Args:
        user: "recorded" says what the user said then; "simulated" has the model of the role "user" play them.
        tools: "recorded" answers a call as it was answered then, and refuses what was not called; "simulated" has the
            model of the role "api" stand in; "real" takes the tools that the class declares.
    """

    data: ClassVar[Path]
    """Folder with train.jsonl, test.jsonl and tools.json."""
    max_turns = 100
    success_reward = 0.9

    def __init__(self, user: Users = "recorded", tools: Tools = "recorded") -> None:
        for name, value, known in (("user", user, get_args(Users)), ("tools", tools, get_args(Tools))):
            if value not in known:
                raise ConfigError(f"{name} must be one of {', '.join(known)}; got {value!r}")
        self.user, self.tools = user, tools
        simulated = ([USER] if user == "simulated" else []) + ([API] if tools == "simulated" else [])
        self.roles = tuple(dict.fromkeys((*self.roles, *simulated)))
        if tools == "real" and not super().make_tools():
            raise ConfigError(
                f"{type(self).__name__} has no tools of its own: mark methods with @ludus.tool, named as then"
            )

    def tasks(self, split: str) -> Iterator[Task]:
        """The conversations of a split, in the order of the traces."""
        return from_jsonl(self.data / f"{split}.jsonl")

    def make_tools(self) -> dict[str, Tool]:
        """Every tool that was recorded; in a rollout, those of its conversation answer."""
        if self.tools == "real":
            return super().make_tools()
        return Record([], self._recorded_tools.tools).tools()

    async def setup(self, ctx: Context) -> None:
        """The tools of the conversation; all there are where it is not known which: those called would give it away."""
        if self.tools == "real":
            return
        offered = ctx.task.info["tools"] if self._recorded_tools.offered else None
        schemas = [
            schema for schema in self._recorded_tools.tools if offered is None or schema["function"]["name"] in offered
        ]
        if self.tools == "simulated":
            ctx.tools = SimulatedApi(ctx.models[API], schemas, examples=self._recorded_tools.examples).tools()
        else:
            ctx.tools = Record(ctx.task.info["rest"], schemas).tools()

    def make_user(self, ctx: Context) -> User:
        """See `UserEnvironment.make_user`."""
        lines = [message["content"] for message in ctx.task.info["rest"] if message["role"] == "user"]
        if self.user == "recorded":
            return RecordedUser(lines)
        return SimulatedUser(persona_of_record(ctx.task), ctx.models[USER])

    def errors_of(self, task: Task, messages: list[Message]) -> list[UserError]:
        """Mistakes of a user whom a model plays; people who were recorded make none that count."""
        return find_errors(persona_of_record(task), messages) if self.user == "simulated" else []

    @stop
    def made_last_call(self, task: Task, ctx: Context) -> bool:
        """Where the record ends with the result of a call, such as one that hands over to a person, so does a rollout that
        has made that call as often."""
        rest = task.info["rest"]
        if rest[-1]["role"] != "tool":
            return False
        last = calls_of([message for message in rest if message["role"] == "assistant"][-1:])
        recorded, made = calls_of(rest), self._own_calls(task, ctx.messages)
        return all(made[key] >= recorded[key] for key in last)

    @reward
    def like_recorded(self, task: Task, rollout: Rollout) -> float:
        """The mean of `same_calls` and `same_words`, of those that the record has something to compare with."""
        calls, words = calls_of(task.info["rest"]), task.answer
        parts = [overlap(calls, self._own_calls(task, rollout.messages))] if calls else []
        parts += [overlap(words_of(words), words_of(rollout.reply))] if words else []
        return sum(parts) / len(parts) if parts else 0.0

    @metric
    def same_calls(self, task: Task, rollout: Rollout) -> float:
        """F1 of the tool calls, with their arguments, against the recorded ones."""
        return overlap(calls_of(task.info["rest"]), self._own_calls(task, rollout.messages))

    @metric
    def same_words(self, task: Task, rollout: Rollout) -> float:
        """F1 of the words of the last answer against the recorded one."""
        return overlap(words_of(task.answer or ""), words_of(rollout.reply))

    def demonstrator_of(self, role: str) -> Callable[..., Any] | None:
        """As an API, the expert answers what was answered then."""
        return self.demonstrate_api if role == API else super().demonstrator_of(role)

    def demonstrate_api(self, ctx: Context) -> AsyncGenerator[str | None, list[Message]]:
        """What the tools answered then."""
        return real_answers(Record(ctx.task.info["rest"], self._recorded_tools.tools).tools(), ctx)

    def demonstrate(self, task: Task) -> list[Message]:
        """What the assistant said then."""
        return [message for message in task.info["rest"] if message["role"] == "assistant"]

    @staticmethod
    def _own_calls(task: Task, messages: Iterable[Message]) -> Counter[str]:
        """The calls of a rollout, without those that its task begins with."""
        return calls_of(messages) - calls_of(task.messages())

    @functools.cached_property
    def _recorded_tools(self) -> _ToolsFile:
        try:
            return msgspec.json.decode((self.data / "tools.json").read_bytes(), type=_ToolsFile)
        except (OSError, msgspec.MsgspecError) as error:
            raise ConfigError(f"can't read the recorded tools, {self.data / 'tools.json'}: {error}") from None


def persona_of_record(task: Task) -> Persona:
    """Who talked to the agent: what they wanted at first, and all that they said."""
    lines = [message["content"] for message in task.info[RECORD] if message["role"] == "user"]
    opening = [message["content"] for message in task.messages() if message["role"] == "user"][-1]
    about = ABOUT.format(lines="; ".join(f'"{line}"' for line in [opening, *lines]))
    patience = max(PATIENCE, 2 * (len(lines) + 1))  # who was recorded for long does not leave sooner
    return Persona(goal=opening, about=about, opening=opening, patience=patience)


class Record:
    """Tools that answer as they did in a conversation.

    A call that was made several times gets the results in their order, the last one again and again.

    Args:
        rest: the conversation.
        schemas: of its tools.
    """

    def __init__(self, rest: Sequence[Message], schemas: Sequence[dict[str, Any]]) -> None:
        self._schemas, self._results = schemas, results_of(rest)

    def tools(self) -> dict[str, Tool]:
        """By name."""
        return {schema["function"]["name"]: self._tool(schema["function"]) for schema in self._schemas}

    def _tool(self, function: dict[str, Any]) -> Tool:
        name = function["name"]

        async def run(arguments: dict[str, Any]) -> str:
            results = self._results.get(content_hash([name, arguments]))
            if not results:
                raise ToolError(f"no result of {name} with these arguments was recorded")
            return results.popleft() if len(results) > 1 else results[0]

        tool = SchemaTool(name, function["description"], function["parameters"], run)
        tool.in_order = True
        return tool


def results_of(messages: Sequence[Message]) -> dict[str, deque[str]]:
    """The results of each call, by `call_key`, in their order."""
    results: dict[str, deque[str]] = defaultdict(deque)
    waiting: dict[str, str] = {}
    for message in reversed(messages):  # ids may come again: a result belongs to the last call before it
        if message["role"] == "tool":
            waiting[message["tool_call_id"]] = message["content"]
        for call in reversed(message.get("tool_calls") or ()):
            if call["id"] in waiting:
                results[call_key(call)].appendleft(waiting.pop(call["id"]))
    return results


def call_key(call: dict[str, Any]) -> str:
    """Equal for equal calls, however their arguments are written."""
    return content_hash([call["function"]["name"], arguments_of(call["function"])])


def calls_of(messages: Iterable[Message]) -> Counter[str]:
    """The tool calls of a conversation."""
    return Counter(call_key(call) for message in messages for call in message.get("tool_calls") or ())


def words_of(text: str) -> Counter[str]:
    """The words of a text, whatever their case."""
    return Counter(WORD.findall(text.casefold()))


def overlap(a: Counter[str], b: Counter[str]) -> float:
    """F1 of two bags: 1 for the same, both empty included, 0 for nothing in common.

    >>> overlap(Counter("aab"), Counter("ab"))
    0.8
    """
    total = a.total() + b.total()
    return 2 * (a & b).total() / total if total else 1.0

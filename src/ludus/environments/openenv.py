"""Environments on OpenEnv servers: `openenv:http://127.0.0.1:8000`.

A task is one that the server lists, or a seed with which it is reset. Its observations are shown to the model as text,
the model's replies become its actions, and its rewards are the rewards; how, follows from the server's schemas: see
`openenv_forms`. Left out: starting servers and containers (OpenEnv's own commands do that), images, and rewards that
come after the episode.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from ludus.authoring.context import Context
from ludus.authoring.tools import Tool
from ludus.environments.openenv_forms import (
    action_of,
    greeting,
    messages_of,
    read_schema,
    text_of,
    tool_result,
    tools_of,
)
from ludus.environments.remote import (
    Earned,
    Remote,
    RemoteTool,
    checked_rule,
    checked_url,
    is_loopback,
    lost,
    secret,
)  # fmt: skip
from ludus.errors import MissingExtra, RolloutError, ToolError, UsageError
from ludus.types import Reply, Task, user

if TYPE_CHECKING:
    from ludus.environments.openenv_session import Line, Session, Slots

ACT = "act"
"""The tool that the model calls where an action has several fields."""
BEGIN = "Begin."
"""What the model is told where the server's first observation is empty and there is no prompt."""
TEST_SEEDS = 2**30
"""Where the seeds of test tasks begin."""


@dataclass
class _State(Earned):
    session: Session | None = None


class OpenEnv(Remote):
    """The environment of an OpenEnv server."""

    version = "1"

    def __init__(
        self,
        url: str,
        prompt: str = "",
        reset: dict[str, Any] | None = None,
        show: str | Sequence[str] = (),
        reward: str = "sum",
        num_tasks: int = 1000,
        max_turns: int = 32,
        sessions: int = 256,
        timeout_s: float = 60.0,
        ping_s: float = 20.0,
        replay: bool = True,
        key_env: str = "",
    ) -> None:
        """
        Args:
            url: of the server: http, https, ws or wss.
            prompt: said to the model before the first observation.
            reset: what every reset is given beside the seed.
            show: fields of an observation that the model sees; all of them by default.
            reward: "sum" of the rewards of an episode, or the "last" one.
            num_tasks: seeds of a split, where the server lists no tasks of its own.
            max_turns: replies after which an episode is left.
            sessions: episodes at once; the server may allow fewer.
            timeout_s: for each of the server's answers, and for the server to come back after it was lost.
            ping_s: between keep-alive pings; 0 where a tunnel drops them.
            replay: whether an episode is played again when its connection was lost; not where actions have effects
                beyond their session.
            key_env: the environment variable that holds the server's bearer token.
        """
        _check_websockets()
        self.url = checked_url("openenv", url, ("http", "https", "ws", "wss")).removesuffix("/ws")
        self.prompt, self.reset = prompt, dict(reset or {})
        self.show = (show,) if isinstance(show, str) else tuple(show)
        self.reward_rule = checked_rule(reward)
        self.num_tasks, self.max_turns, self.sessions = num_tasks, max_turns, sessions
        self.timeout_s, self.ping_s, self.replay = timeout_s, ping_s, replay
        if ping_s < 0:
            raise ValueError(f"ping_s must not be negative, got {ping_s}; 0 sends none")
        for name in ("num_tasks", "max_turns", "sessions", "timeout_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        token = secret(key_env)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._forms = read_schema(self._fetch("GET", "/schema"), self.show)
        self._counts = self._listed()
        if self._counts:
            self.splits = tuple(self._counts)
        self._line: Line | None = None
        self._slots: Slots | None = None

    def tasks(self, split: str) -> Iterator[Task]:
        """The server's own, where it lists any; else one for each seed: training and testing share none."""
        for index in range(self._counts.get(split, self.num_tasks)):
            if self._counts:
                reset = {"split": split, "index": index, "seed": index}
            else:
                reset = {"seed": index + (TEST_SEEDS if split == "test" else 0)}
            yield Task(prompt=f"{split} {index}", info={"reset": reset}, id=f"{split}-{index}")

    async def open(self) -> None:
        """The queue for sessions."""
        from ludus.environments.openenv_session import Line, Slots

        url = f"{_swapped(self.url, 'ws')}/ws"
        self._line = Line(url, self._headers, is_loopback(url), self.ping_s or None, self.timeout_s, self.replay)
        self._slots = Slots(self.sessions)

    async def setup(self, ctx: Context) -> None:
        """Reset a session of its own: the prompt of the task is known only now."""
        from ludus.environments.openenv_session import Session

        assert self._line is not None and self._slots is not None  # it is open
        state = ctx.state = _State(session=Session(self._line, self._slots))
        data = await _answer(state, "reset", {**ctx.task.info["reset"], **self.reset})
        if data.get("done"):
            raise RolloutError("the server's episode was over before the first action")
        observation = _observation(data)
        if self._forms.style == "chat":
            opening = messages_of(observation)
            ctx.tools = _offered(observation)
        else:
            parts = (self.prompt, text_of(self._forms, observation) or greeting(observation))
            opening = [user("\n\n".join(part for part in parts if part) or BEGIN)]
            ctx.tools = {tool.name: tool for tool in await self._tools(state)}
        ctx.task = msgspec.structs.replace(ctx.task, prompt=opening)

    async def teardown(self, ctx: Context) -> None:
        """Close the session."""
        if ctx.state is not None:
            await ctx.state.session.close()

    async def run(self, ctx: Context) -> None:
        """The default loop; a conversation that the server keeps ends where the server says so."""
        if self._forms.style != "chat":
            await super().run(ctx)
            return
        ctx.messages = self.opening(ctx.task)
        for _ in range(self.max_turns):
            reply = await ctx.model.chat(ctx.messages, tools=[tool.schema for tool in ctx.tools.values()])
            ctx.messages.append(reply.message)
            await self._converse(ctx, reply)
            if ctx.state.finished:
                ctx.stop = "done"
                return
        ctx.stop = "max_turns"

    async def respond(self, ctx: Context, reply: Reply) -> Any:
        """The observation that follows an action; None where there was none to take."""
        if reply.tool_calls or reply.malformed or self._forms.style == "tools":
            return await super().respond(ctx, reply)
        try:
            return user(await self._act(ctx.state, action_of(self._forms, reply)))
        except ToolError as error:
            return user(f"Error: {error}")

    async def _converse(self, ctx: Context, reply: Reply) -> None:
        """Go on with a conversation; another one takes its place."""
        observation = await self._step(ctx.state, action_of(self._forms, reply))
        messages = messages_of(observation)
        if ctx.state.finished or observation.get("continues", True):
            ctx.messages.extend(messages)
        else:
            ctx.messages = messages
        if not ctx.state.finished:
            ctx.tools = _offered(observation)

    async def _act(self, state: _State, action: dict[str, Any]) -> str:
        return text_of(self._forms, await self._step(state, action))

    async def _step(self, state: _State, action: dict[str, Any]) -> dict[str, Any]:
        if state.finished:
            raise ToolError("the episode is over")
        data = await _answer(state, "step", action)
        state.note(data.get("reward"), data.get("done"))
        return _observation(data)

    async def _tools(self, state: _State) -> list[RemoteTool]:
        """What the model may call: the server's own tools, or one that takes an action."""
        if self._forms.style == "object":

            async def act(arguments: dict[str, Any]) -> str:
                return await self._act(state, arguments)

            return [RemoteTool(ACT, "Take an action.", self._forms.parameters, act)]
        if self._forms.style != "tools":
            return []
        try:
            observation = _observation(await _answer(state, "step", {"type": "list_tools"}))
        except ToolError as error:
            raise RolloutError(f"the server's actions have no fields, and it lists no tools: {error}") from None
        return [self._server_tool(state, tool) for tool in tools_of(observation)]

    def _server_tool(self, state: _State, described: dict[str, Any]) -> RemoteTool:
        name = str(described["name"])

        async def call(arguments: dict[str, Any]) -> str:
            action = {"type": "call_tool", "tool_name": name, "arguments": arguments}
            return tool_result(await self._step(state, action))

        return RemoteTool(name, described.get("description") or "", described.get("input_schema"), call)

    def _listed(self) -> dict[str, int]:
        """How many tasks the server has in each of its splits; {} where it lists none."""
        names = self._fetch("GET", "/list_environments")
        if not isinstance(names, list) or not names:
            return {}
        splits = self._fetch("GET", f"/{names[0]}/splits")
        try:
            found = [str(split["name"]) for split in splits or ()]
            counts = {split: self._fetch("POST", f"/{names[0]}/num_tasks", {"split": split}) for split in found}
            return {split: int(count["num_tasks"]) if count else self.num_tasks for split, count in counts.items()}
        except (TypeError, KeyError, ValueError):
            raise UsageError(f"the server at {self.url} lists splits that can't be read: {str(splits)[:200]}") from None

    def _fetch(self, method: str, path: str, body: Any = None) -> Any:
        from ludus.environments.remote_fetch import fetch

        return fetch(_swapped(self.url, "http"), self._headers, self.timeout_s, method, path, body)


async def _answer(state: _State, kind: str, data: dict[str, Any]) -> dict[str, Any]:
    assert state.session is not None
    try:
        return await state.session.ask(kind, data)
    except ToolError as error:
        if kind == "reset":
            raise RolloutError(f"the server refused to be reset with {data}: {error}") from None
        raise


def _observation(data: dict[str, Any]) -> dict[str, Any]:
    observation = data.get("observation")
    if not isinstance(observation, dict):
        raise lost(f"expected the server's answer to hold an observation, got {str(data)[:200]}")
    return observation


def _offered(observation: dict[str, Any]) -> dict[str, Tool]:
    """The tools of a conversation. Their calls are part of the message, so they are never run here."""

    async def elsewhere(arguments: dict[str, Any]) -> str:
        raise RolloutError("the tools of a conversation are called by its server")

    try:
        functions = [schema["function"] for schema in observation.get("tools") or ()]
        return {f["name"]: RemoteTool(f["name"], f["description"], f["parameters"], elsewhere) for f in functions}
    except (TypeError, KeyError, AttributeError):
        text = str(observation["tools"])[:200]
        raise RolloutError(f"expected the server to describe its tools in OpenAI's format, got {text}") from None


def _swapped(url: str, scheme: str) -> str:
    """The same address for another protocol: http or ws, encrypted where it was."""
    old, _, rest = url.partition("://")
    return f"{scheme}{'s' if old in ('https', 'wss') else ''}://{rest}"


def _check_websockets() -> None:
    try:
        import websockets  # noqa: F401
    except ImportError:
        raise MissingExtra("environments on OpenEnv servers", "openenv") from None

"""Environments on servers of the Open Reward Standard: `ors:http://127.0.0.1:8080`.

Tasks, prompt and tools are the server's, and so are the rewards, which come with the results of tool calls. A reply that
calls no tool leaves the episode. Left out: images, which are named in the text, and secrets handed to the environment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from ludus.authoring.context import Context
from ludus.environments.remote import Earned, Remote, RemoteTool, checked_rule, checked_url, lost, secret
from ludus.errors import ConfigError, RolloutError, ToolError, UnknownName, UsageError
from ludus.types import Task, user

if TYPE_CHECKING:
    from ludus.environments.ors_client import Client

PING_S = 10.0
"""Between two signs of life of a session, as the standard's own client has it."""
AT_ONCE = 100
"""Tasks fetched in one request."""


@dataclass
class _State(Earned):
    client: Client | None = None
    pinging: asyncio.Task[None] | None = None


class ORS(Remote):
    """An environment of an Open Reward Standard server."""

    version = "1"

    def __init__(
        self,
        url: str,
        environment: str = "",
        reward: str = "sum",
        max_turns: int = 32,
        timeout_s: float = 600.0,
        key_env: str = "",
    ) -> None:
        """
        Args:
            url: of the server.
            environment: which of the server's; not needed where it has one.
            reward: "sum" of the rewards of an episode, or the "last" one.
            max_turns: replies after which an episode is left.
            timeout_s: for one tool call, and for setting an episode up.
            key_env: the environment variable that holds the server's key.
        """
        self.url = checked_url("ors", url, ("http", "https"))
        self.reward_rule = checked_rule(reward)
        if not (max_turns > 0 and timeout_s > 0):
            raise ValueError(f"max_turns and timeout_s must be positive, got {max_turns} and {timeout_s}")
        key = secret(key_env)
        self.max_turns, self.timeout_s, self._headers = max_turns, timeout_s, {"X-API-Key": key} if key else {}
        self.environment = _choose(self._fetch("GET", "/list_environments"), environment, self.url)
        found = self._fetch("GET", f"/{self.environment}/splits")
        self.splits = tuple(str(split.get("name")) if isinstance(split, dict) else str(split) for split in found or ())
        if not self.splits:
            raise UsageError(f"the environment {self.environment} at {self.url} has no splits")

    def tasks(self, split: str) -> Iterator[Task]:
        """The server's own; an id is the place in the split."""
        for index, spec in enumerate(self._specs(split)):
            yield Task(prompt=f"{self.environment}, task {index}", info={"task_spec": spec}, id=f"{split}-{index}")

    async def setup(self, ctx: Context) -> None:
        """A session of its own: prompt and tools are known only now."""
        from ludus.environments.ors_client import Client

        client = Client(self.url, self._headers, self.timeout_s)
        state = ctx.state = _State(client=client)
        client.sid, _ = await client.stream("/create_session")
        if not client.sid:
            raise lost(f"{self.url} gave no session")
        state.pinging = asyncio.create_task(_ping(client))
        spec = ctx.task.info["task_spec"]
        await self._ask("POST", "/create", client, {"env_name": self.environment, "task_spec": spec})
        blocks = await self._ask("GET", f"/{self.environment}/prompt", client)
        ctx.task = msgspec.structs.replace(ctx.task, prompt=[user(text_of(blocks))])
        listed = await client.ask("GET", f"/{self.environment}/task_tools")
        if listed is None:  # servers of before there were tools of a task
            listed = await self._ask("GET", f"/{self.environment}/tools", client)
        ctx.tools = {tool.name: tool for tool in self._tools(state, client, listed)}

    async def teardown(self, ctx: Context) -> None:
        """End the session. Where that fails the server ends it, as nobody pings it any more."""
        state = ctx.state
        if state is None or state.client is None:
            return
        if state.pinging is not None:
            state.pinging.cancel()
        try:
            for path in ("/delete", "/delete_session") if state.client.sid else ():
                try:
                    await state.client.ask("POST", path, tries=1)
                except RolloutError:
                    pass
        finally:
            await state.client.close()

    async def _ask(self, method: str, path: str, client: Client, body: Any = None) -> Any:
        answer = await client.ask(method, path, body)
        if answer is None:
            raise lost(f"{self.url} has no {path}, or not the session any more")
        return answer

    def _tools(self, state: _State, client: Client, listed: Any) -> list[RemoteTool]:
        try:
            return [
                self._tool(state, client, tool["name"], tool.get("description"), tool.get("input_schema"))
                for tool in listed["tools"]
            ]
        except (TypeError, KeyError, AttributeError):
            raise lost(f"expected a list of tools from the server, got {str(listed)[:200]}") from None

    def _tool(self, state: _State, client: Client, name: str, description: Any, input_schema: Any) -> RemoteTool:
        async def call(arguments: dict[str, Any]) -> str:
            if state.finished:
                raise ToolError("the episode is over")
            _, answer = await client.stream(f"/{self.environment}/call", {"name": name, "input": arguments})
            return _result(state, answer)

        return RemoteTool(name, description or "", input_schema, call)

    def _specs(self, split: str) -> Iterator[Any]:
        """All at once, or bit by bit where the server only counts them."""
        path, body = f"/{self.environment}", {"split": split}
        if (listed := self._fetch("POST", f"{path}/tasks", body)) is not None:
            yield from _field(listed, "tasks", list)
            return
        counted = self._fetch("POST", f"{path}/num_tasks", body)
        count = _field(counted, "num_tasks", int) if counted is not None else 0
        for start in range(0, count, AT_ONCE):
            some = self._fetch("POST", f"{path}/task_range", {**body, "start": start, "stop": start + AT_ONCE})
            yield from _field(some, "tasks", list)

    def _fetch(self, method: str, path: str, body: Any = None) -> Any:
        from ludus.environments.remote_fetch import fetch

        return fetch(self.url, self._headers, min(self.timeout_s, 60.0), method, path, body)


async def _ping(client: Client) -> None:
    while True:
        await asyncio.sleep(PING_S)
        try:
            await client.ask("POST", "/ping", tries=1)
        except RolloutError:
            pass  # if the session is gone, its next call says so


def _field(answer: Any, name: str, kind: type) -> Any:
    """A field of what a server answered. Raises UsageError where there is none of its kind."""
    if not isinstance(answer, dict) or not isinstance(answer.get(name), kind):
        raise UsageError(f"expected the server's answer to hold {name}, got {str(answer)[:200]}")
    return answer[name]


def text_of(blocks: Any) -> str:
    """The text of a prompt's or result's blocks; other blocks are named. Raises RolloutError for what is none."""
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise lost(f"expected blocks of text from the server, got {str(blocks)[:200]}")
    return "\n".join(
        str(block.get("text")) if block.get("type") == "text" else f"[{block.get('mimeType', 'something')}, left out]"
        for block in blocks
    )


def _result(state: _State, answer: Any) -> str:
    """The text of a tool's result; its reward is taken down. Raises ToolError for what the tool complains of."""
    if not isinstance(answer, dict) or "ok" not in answer:
        raise lost(f"expected the result of a tool from the server, got {str(answer)[:200]}")
    if not answer["ok"]:
        raise ToolError(str(answer.get("error")))
    output = answer.get("output")
    if not isinstance(output, dict):
        raise lost(f"expected the output of a tool from the server, got {str(output)[:200]}")
    state.note(output.get("reward"), output.get("finished"))
    return text_of(output.get("blocks"))


def _choose(names: Any, wanted: str, url: str) -> str:
    if not isinstance(names, list) or not names:
        raise UsageError(f"no ORS server at {url}: /list_environments gave {str(names)[:80]}")
    if not wanted and len(names) > 1:
        raise ConfigError(f"{url} has {', '.join(map(str, names))}; choose one: --arg environment={names[0]}")
    if wanted and wanted not in names and wanted.lower() not in names:
        raise UnknownName(f"environment at {url}", wanted, map(str, names))
    return wanted if wanted in names else wanted.lower() or str(names[0])

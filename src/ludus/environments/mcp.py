"""The tools of any MCP server as an environment, with tasks from a file: `mcp:NAME`, `mcp:URL`, `mcp:COMMAND`.

NAME is a server in `.mcp.json` of the current folder, the file that editors and agents keep their servers in:

    {"mcpServers": {"git": {"command": "uvx", "args": ["mcp-server-git"], "env": {"TOKEN": "${GIT_TOKEN}"}},
                    "web": {"url": "https://example.org/mcp", "headers": {"Authorization": "Bearer ${WEB_KEY}"}}}}

Keys belong there, best as ${VARIABLE}: names and options of environments are recorded with every rollout.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from ludus.authoring.declare import reward
from ludus.authoring.environment import Environment
from ludus.authoring.mcp.server import McpServer
from ludus.authoring.tasks import from_jsonl
from ludus.errors import ConfigError, UnknownName
from ludus.types import Rollout, Task

CONFIG = ".mcp.json"
VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
"""${NAME}, or ${NAME:-what it is when it is not set}."""
SCORES = ("exact", "contains")


class Mcp(Environment):
    """Answer with the tools of an MCP server; tasks come from a file of questions and answers."""

    version = "1"

    def __init__(
        self,
        server: str,
        tasks: str = "",
        score: str = "exact",
        turns: int = 10,
        instruction: str = "Use the tools. Then reply with the answer alone.",
        timeout_s: float = 60.0,
        per_rollout: bool = False,
        pool: int = 1,
    ) -> None:
        """
        Args:
            server: a name in .mcp.json, a URL, or a command line.
            tasks: JSON-lines file; a line has a prompt, an answer (or a list of right ones) and maybe a split, "test"
                by default.
            score: "exact", the reply is an answer up to case and space around it; or "contains", it has one in it.
            turns: replies before the rollout ends.
            instruction: the system prompt.
            timeout_s: seconds that one call may take.
            per_rollout: start the server anew for each rollout, because it remembers what was done to it.
            pool: connections that all rollouts share.
        """
        if score not in SCORES:
            raise UnknownName("score", score, SCORES)
        self.server = find_server(server, timeout_s=timeout_s, per_rollout=per_rollout, pool=pool)
        self.servers = (self.server,)
        self.max_turns, self.system_prompt, self._contains = turns, instruction, score == "contains"
        self._tasks = read_tasks(tasks)
        self.splits = tuple(self._tasks)

    def tasks(self, split: str) -> Iterator[Task]:
        """The lines of the file that belong to the split."""
        yield from self._tasks[split]

    @reward
    def correct(self, task: Task, rollout: Rollout) -> float:
        """1 for a right answer."""
        said = rollout.reply.strip().casefold()
        right = [_as_said(answer) for answer in (task.answer if isinstance(task.answer, list) else [task.answer])]
        return float(any(answer in said if self._contains else answer == said for answer in right))


def find_server(spec: str, **options: Any) -> McpServer:
    """The server that a name, a URL or a command line stands for.

    Raises:
        UnknownName: none of the three.
        ConfigError: .mcp.json can't be read, or says what no server can be.
    """
    known = configured()
    if spec in known:
        return _from_config(spec, known[spec], options)
    if spec.startswith(("http://", "https://")):
        return McpServer(url=spec, **options)
    try:
        words = shlex.split(spec)
    except ValueError as error:
        raise ConfigError(f"mcp:{spec} is no command line: {error}") from None
    if not words or shutil.which(words[0]) is None:
        if known:
            raise UnknownName("MCP server", spec, known, "ludus env list mcp:; a URL or a command line will do, too")
        raise ConfigError(f"mcp:{spec} is no URL, no command that is installed, and no name in {CONFIG} here")
    return McpServer(words, **options)


def families() -> list[str]:
    """Names of the servers in .mcp.json, for `ludus env list mcp:`. Raises ConfigError where there are none."""
    names = sorted(configured())
    if not names:
        raise ConfigError(
            f"mcp: takes a URL, a command line, or the name of a server in {CONFIG}, which names none here"
        )
    return names


def configured() -> dict[str, Any]:
    """What .mcp.json of the current folder says of each server, by name. Raises ConfigError."""
    path = Path(CONFIG)
    if not path.is_file():
        return {}
    try:
        servers = msgspec.json.decode(path.read_bytes())["mcpServers"]
        return {name: dict(said) for name, said in servers.items()}
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError, AttributeError) as error:
        kind = type(error).__name__
        raise ConfigError(
            f'{CONFIG}: expected {{"mcpServers": {{NAME: {{"command": ...}}}}}}: {kind}: {error}'
        ) from None


def read_tasks(path: str) -> dict[str, list[Task]]:
    """Tasks by split. Raises ConfigError for a file that is not there, is empty, or lacks prompts or answers."""
    if not path or not Path(path).is_file():
        got = f"there is no file {path}" if path else "got no tasks=FILE"
        raise ConfigError(f'mcp: needs a file with one {{"prompt": ..., "answer": ...}} a line; {got}')
    splits: dict[str, list[Task]] = {}
    for number, task in enumerate(from_jsonl(path), 1):
        if task.answer is None or task.answer == []:
            raise ConfigError(f"{path}: task {number} has no answer")
        splits.setdefault(str(task.info.get("split", "test")), []).append(task)
    if not splits:
        raise ConfigError(f"{path} has no tasks")
    return splits


def _from_config(name: str, said: Mapping[str, Any], options: Mapping[str, Any]) -> McpServer:
    """A server as .mcp.json describes it. The text of errors holds none of its values."""
    said = _filled(name, said)
    if said.get("type", "stdio" if "command" in said else "http") == "sse":
        raise ConfigError(f"{CONFIG}: {name} speaks the old HTTP+SSE; only stdio and streamable HTTP are spoken here")
    if not isinstance(said.get("args", []), list):
        raise ConfigError(f"{CONFIG}: {name}: args must be a list of words")
    try:
        if "command" in said:
            command = [said["command"], *said.get("args", [])]
            return McpServer(command, env=said.get("env"), cwd=said.get("cwd"), name=name, **options)
        return McpServer(url=said.get("url", ""), headers=said.get("headers"), name=name, **options)
    except (TypeError, AttributeError) as error:
        raise ConfigError(f"{CONFIG}: {name} is described wrongly: {error}") from None


def _filled(name: str, value: Any) -> Any:
    """With environment variables put where ${NAME} stands. Raises ConfigError for one that is not set."""
    if isinstance(value, dict):
        return {key: _filled(name, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(name, item) for item in value]
    if not isinstance(value, str):
        return value

    def variable(found: re.Match[str]) -> str:
        filled = os.environ.get(found[1], found[2])
        if filled is None:
            raise ConfigError(f"{CONFIG}: {name} needs the environment variable {found[1]}, which is not set")
        return filled

    return VARIABLE.sub(variable, value)


def _as_said(answer: Any) -> str:
    text = answer if isinstance(answer, str) else msgspec.json.encode(answer).decode()
    return text.strip().casefold()

"""`McpServer`: which MCP server, how it is reached, and what of that must never be seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ludus.errors import ConfigError

LAUNCHERS = ("python", "node", "npx", "bun", "bunx", "deno", "uv", "uvx", "docker", "podman", "sh", "bash")
"""Programs that say nothing about the server they start."""
SHORTEST_SECRET = 6
"""Characters; shorter values, such as "1", would black out half of a message."""


class McpServer:
    """A server of tools, described; an environment that names it in `servers` has it started and stopped.

    Args:
        command: the words of a command that speaks MCP over its standard input and output; or else:
        url: of a server that speaks streamable HTTP.
        env: environment variables of the command, beside those every program needs (PATH, HOME, ...): no others
            of this process are handed on.
        headers: of every HTTP request, such as an Authorization.
        cwd: folder that the command runs in; this process's by default.
        name: what errors call it; made from the command or URL by default.
        prefix: put before the name of each of its tools, so that no two are called the same.
        timeout_s: seconds that one call may take.
        start_timeout_s: seconds that it may take to start, and to answer for the first time.
        per_rollout: one of its own for each rollout, because it remembers what was done to it. Otherwise all rollouts
            share it, and it is started again when it is lost.
        pool: connections that are shared; of a command, as many processes.
        mode: "auto", or "legacy" for servers that can't cope with being asked which versions of the protocol they
            know, or that keep their state in HTTP sessions, which newer versions don't have.

    Raises:
        ConfigError: for what can't be meant.
    """

    def __init__(
        self,
        command: Sequence[str] = (),
        *,
        url: str = "",
        env: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        name: str = "",
        prefix: str = "",
        timeout_s: float = 60.0,
        start_timeout_s: float = 60.0,
        per_rollout: bool = False,
        pool: int = 1,
        mode: str = "auto",
    ) -> None:
        problem = (
            f"takes a command or a url, got {'both' if command else 'neither'}" if bool(command) == bool(url) else
            _command_problem(command) or _url_problem(url) if command or url else ""
        ) or (
            "env is for a command, headers are for a url" if (env and url) or (headers and command) else
            "env and headers map names to text" if not (_is_text(env) and _is_text(headers)) else
            "headers are printable ASCII" if not all(text.isascii() and text.isprintable() for text in
            (headers or {}).values()) else
            f"time limits must be more than 0, got {timeout_s} and {start_timeout_s}"
            if not (timeout_s > 0 and start_timeout_s > 0) else
            f"pool must be at least 1, got {pool}" if pool < 1 else
            "pool is for a server that rollouts share, per_rollout for one that they don't" if per_rollout and pool > 1
            else f"mode must be 'auto' or 'legacy', got {mode!r}" if mode not in ("auto", "legacy") else ""
        )  # fmt: skip
        if problem:
            raise ConfigError(f"McpServer: {problem}")
        self.command, self.url, self.cwd = tuple(command), url, cwd
        self.env, self.headers = dict(env or {}), dict(headers or {})
        self.name = name or _short_name(self.command, url)
        self.prefix, self.per_rollout, self.pool, self.mode = prefix, per_rollout, pool, mode
        self.timeout_s, self.start_timeout_s = timeout_s, start_timeout_s

    def __repr__(self) -> str:
        """Without anything that may be secret: it is what a record shows of a server that was given as an option."""
        return f"McpServer({self.name!r})"

    def without_secrets(self, text: str) -> str:
        """A text in which the values of `env` and `headers` are replaced by their names."""
        for name, value in {**self.env, **self.headers}.items():
            for secret in (value, *value.split()[1:]):  # "Bearer ..." is often quoted without its first word
                if len(secret) >= SHORTEST_SECRET:
                    text = text.replace(secret, f"[{name}]")
        return text


def _command_problem(command: Any) -> str:
    if isinstance(command, str):
        return f"command is a list of words, as in ['python', 'server.py'], got the text {command!r}"
    if not all(isinstance(word, str) for word in command) or (command and not command[0]):
        return "command is a list of words, and begins with a program"
    return ""


def _url_problem(url: str) -> str:
    if not url:
        return ""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "url must be http://... or https://..."
    return "url must not hold a password: put it into headers" if parts.username or parts.password else ""


def _is_text(values: Mapping[str, str] | None) -> bool:
    return all(isinstance(key, str) and isinstance(value, str) for key, value in (values or {}).items())


def _short_name(command: Sequence[str], url: str) -> str:
    """
    >>> _short_name(["npx", "-y", "@modelcontextprotocol/server-git"], ""), _short_name([], "https://a.b/mcp?key=1")
    ('server-git', 'a.b/mcp')
    """
    if url:
        parts = urlsplit(url)
        return f"{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"
    program, *words = command
    started = Path(program).stem.rstrip("0123456789.")
    if started in LAUNCHERS and not {"-c", "-e"} & set(words):  # where these are, the next word is code
        program = next((word for word in words if not word.startswith("-")), program)
    return Path(program).name

"""`McpServer`: which MCP server, how it is reached, and what of that must never be seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from ludus.errors import ConfigError

LAUNCHERS = ("python", "node", "npx", "bun", "bunx", "deno", "uv", "uvx", "docker", "podman", "sh", "bash")
"""Programs that say nothing about the server they start."""
MODES = ("auto", "legacy")
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
        start_timeout_s: seconds that it may take to start, and to answer for the first time; and, at a URL, to come back
            after it was lost.
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
        if isinstance(command, str):
            raise ConfigError(f"McpServer: command is a list of words, as in ['python', 'server.py'], got {command!r}")
        self.command, self.url, self.cwd = tuple(command), url, cwd
        self.env, self.headers = dict(env or {}), dict(headers or {})
        self.prefix, self.per_rollout, self.pool, self.mode = prefix, per_rollout, pool, mode
        self.timeout_s, self.start_timeout_s = timeout_s, start_timeout_s
        for problem in _problems(self):
            raise ConfigError(f"McpServer: {problem}")
        self.name = name or _short_name(self.command, url)

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


def _problems(server: McpServer) -> Iterator[str]:
    """What can't be meant. Secrets are in none of it."""
    if bool(server.command) == bool(server.url):
        yield f"takes a command or a url, got {'both' if server.command else 'neither'}"
    if not all(isinstance(word, str) for word in server.command) or (server.command and not server.command[0]):
        yield "command is a list of words, and begins with a program"
    if server.url:
        parts = urlsplit(server.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            yield "url must be http://... or https://..."
        if parts.username or parts.password:
            yield "url must not hold a password: put it into headers"
    if (server.env and server.url) or (server.headers and server.command):
        yield "env is for a command, headers are for a url"
    if not all(isinstance(text, str) for item in {**server.env, **server.headers}.items() for text in item):
        yield "env and headers map names to text"
    if not all(text.isascii() and text.isprintable() for text in server.headers.values()):
        yield "headers are printable ASCII"
    if not (server.timeout_s > 0 and server.start_timeout_s > 0):
        yield f"time limits must be more than 0, got {server.timeout_s} and {server.start_timeout_s}"
    if server.pool < 1:
        yield f"pool must be at least 1, got {server.pool}"
    if server.per_rollout and server.pool > 1:
        yield "pool is for a server that rollouts share, per_rollout for one that they don't"
    if server.mode not in MODES:
        yield f"mode must be {' or '.join(map(repr, MODES))}, got {server.mode!r}"


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

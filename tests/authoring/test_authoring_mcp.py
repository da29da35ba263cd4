"""`McpServer` refuses what can't be meant and shows no secrets; results become text; `mcp:` finds servers and tasks."""

import asyncio
import json
import sys

import msgspec
import pytest

import ludus
from ludus.authoring.mcp.server import McpServer
from ludus.authoring.tools import SchemaTool, Tool, answers, schema_of
from ludus.environments.mcp import Mcp, families, find_server, read_tasks
from ludus.errors import ConfigError, MissingExtra, RolloutError, ToolError, UnknownName
from ludus.types import Call, Rollout, Seeds, Task, ToolCall

# --- descriptions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "takes a command or a url, got neither"),
        ({"command": ["a"], "url": "http://a/mcp"}, "takes a command or a url, got both"),
        ({"command": "python server.py"}, r"command is a list of words, as in \['python', 'server.py'\]"),
        ({"command": ["", "a"]}, "and begins with a program"),
        ({"url": "localhost:8000/mcp"}, "url must be http"),
        ({"url": "https://me:key@host/mcp"}, "url must not hold a password"),
        ({"url": "http://a/mcp", "env": {"A": "1"}}, "env is for a command, headers are for a url"),
        ({"command": ["a"], "headers": {"A": "1"}}, "env is for a command, headers are for a url"),
        ({"command": ["a"], "env": {"A": 1}}, "env and headers map names to text"),
        ({"url": "http://a/mcp", "headers": {"A": "key@\n"}}, "headers are printable ASCII"),
        ({"command": ["a"], "timeout_s": 0}, "time limits must be more than 0, got 0 and 60"),
        ({"command": ["a"], "pool": 0}, "pool must be at least 1"),
        ({"command": ["a"], "pool": 2, "per_rollout": True}, "pool is for a server that rollouts share"),
        ({"command": ["a"], "mode": "new"}, "mode must be 'auto' or 'legacy', got 'new'"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, says):
    with pytest.raises(ConfigError, match=says) as caught:
        McpServer(**options)
    assert "key@" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"command": ["python3.11", "-u", "tools/server.py", "--key", "abc"]}, "server.py"),
        ({"command": ["npx", "-y", "@modelcontextprotocol/server-git"]}, "server-git"),
        ({"command": ["/opt/bin/server", "abc"]}, "server"),
        ({"url": "https://host:8000/mcp?key=abc"}, "host:8000/mcp"),
        ({"command": ["sh", "-c", "KEY=abc server"]}, "sh"),
        ({"command": ["server"], "name": "mine"}, "mine"),
    ],
)
def test_a_server_has_a_name_for_errors(options, name):
    assert McpServer(**options).name == name


def test_a_server_that_is_an_option_shows_no_secrets():
    class Given(ludus.Environment):
        def __init__(self, server):
            self.servers = (server,)

    env = Given(McpServer(["server"], env={"TOKEN": "abc-secret"}))
    assert "abc-secret" not in repr(env.options)
    with pytest.raises(TypeError):  # it can't get into a record by being JSON
        msgspec.json.encode(env.options)


def test_secrets_are_replaced_by_their_names():
    server = McpServer(url="http://host/mcp", headers={"Authorization": "Bearer abc-secret", "Flag": "1"})
    assert server.without_secrets("1: Bearer abc-secret, abc-secret") == "1: [Authorization], [Authorization]"


async def test_without_the_sdk_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mcp", None)

    class Tooled(ludus.Environment):
        servers = (McpServer(["server"]),)

    with pytest.raises(MissingExtra, match=r"for MCP servers, install the extra 'mcp': pip install 'ludus-rl\[mcp\]'"):
        async with Tooled().opened():
            pass


async def test_servers_of_an_environment_that_is_not_open():
    class Tooled(ludus.Environment):
        servers = (McpServer(["server"]),)

    with pytest.raises(RuntimeError, match="Tooled has servers, but is not open"):
        async with Tooled().equipped():
            pass


# --- tools from schemas -------------------------------------------------------------------------------------------

PARAMETERS = {"type": "object", "properties": {"q": {"type": "string"}}, "$defs": {"kept": {}}}


def called(name, arguments=None):
    return ToolCall(f"call {name}", name, arguments or {})


async def test_a_tool_from_a_schema_passes_schema_and_arguments_on():
    async def run(arguments):
        return {"got": arguments}

    tool = SchemaTool("look", "Look it up.", PARAMETERS, run)
    assert schema_of(tool)["function"] == {"name": "look", "description": "Look it up.", "parameters": PARAMETERS}
    (message,) = await answers({"look": tool}, [called("look", {"q": 3, "more": None})], {})
    assert json.loads(message["content"]) == {"got": {"q": 3, "more": None}}


async def test_coroutines_run_side_by_side_and_functions_in_order():
    order, both = [], asyncio.Barrier(2)

    async def meet() -> str:
        """Wait for another one."""
        await both.wait()
        return "met"

    def first() -> str:
        """Be first."""
        order.append("first")
        return "1"

    def second() -> str:
        """Be second."""
        order.append("second")
        return "2"

    tools = {fn.__name__: Tool(fn) for fn in (meet, first, second)}
    calls = [called(name) for name in ("meet", "first", "meet", "second", "none")]
    messages = await answers(tools, calls, {})
    assert [message["content"] for message in messages[:4]] == ["met", "1", "met", "2"]
    assert messages[4]["content"].startswith("Error: there is no tool 'none'")
    assert [message["tool_call_id"] for message in messages] == [call.id for call in calls]
    assert order == ["first", "second"]


async def test_a_tool_that_fails_ends_the_others():
    ended = []

    async def wait() -> None:
        """Wait."""
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def fail() -> None:
        """Fail."""
        raise KeyError("k")

    with pytest.raises(RolloutError, match="the tool fail raised KeyError"):
        await answers({"wait": Tool(wait), "fail": Tool(fail)}, [called("wait"), called("fail")], {})
    assert ended == [True]


# --- results ------------------------------------------------------------------------------------------------------


def text_of(*texts, structured=None):
    pytest.importorskip("mcp_types")
    from mcp_types import CallToolResult, TextContent

    from ludus.authoring.mcp.results import as_text

    content = [TextContent(type="text", text=text) for text in texts]
    return as_text(CallToolResult(content=content, structured_content=structured))


def test_structured_content_is_shown_once():
    assert text_of("5", structured={"result": 5}) == "5"
    assert text_of("a", "b", structured={"result": ["a", "b"]}) == "a\nb"
    assert text_of('{\n "x": 1}', structured={"x": 1}) == '{\n "x": 1}'
    assert text_of("a file", structured={"content": "a file"}) == "a file"
    assert text_of("two rows", structured={"rows": [1, 2]}) == 'two rows\n{"rows": [1, 2]}'
    assert text_of(structured={"result": []}) == '{"result": []}'
    assert text_of("é", structured={"result": "é"}) == "é"
    assert text_of() == ""


async def test_names_are_what_apis_take_and_no_two_are_the_same():
    mcp_types = pytest.importorskip("mcp_types")
    from ludus.authoring.mcp.results import as_tools

    async def call(name, arguments):
        return mcp_types.CallToolResult(content=[mcp_types.TextContent(type="text", text=name)])

    names = ["a.b", "a/b", "a_b", "a.b", "x" * 100, "x" * 99 + "y"]
    listed = [mcp_types.Tool(name=name, input_schema={"type": "object"}) for name in names]
    tools = as_tools(listed, McpServer(["x"], prefix="p_"), call)
    assert [tool.name for tool in tools] == ["p_a_b", "p_a_b_2", "p_a_b_3", "p_" + "x" * 62, "p_" + "x" * 60 + "_2"]
    assert [await tool({}, {}) for tool in tools] == ["a.b", "a/b", "a_b", "x" * 100, "x" * 99 + "y"]


async def test_a_tool_that_fails_without_a_word():
    mcp_types = pytest.importorskip("mcp_types")
    from ludus.authoring.mcp.results import as_tools

    async def call(name, arguments):
        return mcp_types.CallToolResult(content=[], is_error=True)

    (tool,) = as_tools([mcp_types.Tool(name="a", input_schema={"type": "object"})], McpServer(["x"]), call)
    with pytest.raises(ToolError, match="did not say why"):
        await tool({}, {})


def test_what_is_no_text_is_named():
    mcp_types = pytest.importorskip("mcp_types")
    from ludus.authoring.mcp.results import as_text

    blob = mcp_types.BlobResourceContents(uri="file:///a.bin", blob="AAAA")
    content = [
        mcp_types.ImageContent(type="image", data="AAAA", mime_type="image/png"),
        mcp_types.AudioContent(type="audio", data="AAAA", mime_type="audio/wav"),
        mcp_types.ResourceLink(type="resource_link", uri="file:///a", name="a"),
        mcp_types.EmbeddedResource(type="resource", resource=blob),
    ]
    assert as_text(mcp_types.CallToolResult(content=content)).split("\n") == [
        "[image, image/png, 3 bytes]",
        "[audio, audio/wav, 3 bytes]",
        "[resource file:///a: a]",
        "[resource file:///a.bin, of unknown type]",
    ]


# --- mcp: ---------------------------------------------------------------------------------------------------------

CONFIG = {
    "mcpServers": {
        "git": {
            "command": sys.executable,
            "args": ["-m", "git_server", "${ROOT:-here}"],
            "env": {"TOKEN": "${GIT_KEY}"},
        },
        "web": {"type": "http", "url": "https://host/mcp", "headers": {"Authorization": "Bearer ${WEB_KEY}"}},
        "old": {"type": "sse", "url": "https://host/sse"},
        "odd": {"command": "server", "args": "-v"},
    }
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".mcp.json").write_text(json.dumps(CONFIG))
    (tmp_path / "tasks.jsonl").write_text(
        '{"prompt": "2 + 3?", "answer": "5"}\n{"prompt": "Where?", "answer": ["Oslo", 7], "split": "train"}\n'
    )
    return tmp_path


def test_a_server_by_name_with_variables_filled_in(folder, monkeypatch):
    monkeypatch.setenv("GIT_KEY", "abc-secret")
    monkeypatch.setenv("WEB_KEY", "def-secret")
    git, web = find_server("git", timeout_s=3.0), find_server("web")
    assert git.command == (sys.executable, "-m", "git_server", "here")
    assert (git.env, git.name, git.timeout_s) == ({"TOKEN": "abc-secret"}, "git", 3.0)
    assert (web.url, web.headers) == ("https://host/mcp", {"Authorization": "Bearer def-secret"})
    env = Mcp("git", tasks="tasks.jsonl")
    assert "abc-secret" not in json.dumps(env.options)


def test_a_server_by_url_or_command(folder):
    assert find_server("https://host/mcp").url == "https://host/mcp"
    assert find_server(f"{sys.executable} -m 'my server'").command == (sys.executable, "-m", "my server")


@pytest.mark.parametrize(
    ("spec", "error", "says"),
    [
        ("gti", UnknownName, "unknown MCP server 'gti'; did you mean 'git'"),
        ("git", ConfigError, "git needs the environment variable GIT_KEY, which is not set"),
        ("old", ConfigError, "old speaks the old HTTP"),
        ("odd", ConfigError, "odd: args must be a list of words"),
        ("python 'x", ConfigError, "is no command line: No closing quotation"),
        ("", UnknownName, "unknown MCP server ''"),
    ],
)
def test_what_names_no_server(folder, monkeypatch, spec, error, says):
    monkeypatch.delenv("GIT_KEY", raising=False)
    with pytest.raises(error, match=says):
        find_server(spec)


@pytest.mark.parametrize("text", ["[]", "{", '{"mcpServers": []}', '{"mcpServers": {"a": 3}}'])
def test_a_config_file_that_is_none(folder, text):
    (folder / ".mcp.json").write_text(text)
    with pytest.raises(ConfigError, match=r"\.mcp\.json: expected"):
        families()


def test_the_list_of_servers(folder):
    assert families() == ["git", "odd", "old", "web"]
    (folder / ".mcp.json").unlink()
    with pytest.raises(ConfigError, match="takes a URL, a command line, or the name of a server"):
        families()
    with pytest.raises(
        ConfigError, match=r"mcp:no-such-program-at-all is no URL, no command .* no name in .mcp.json here"
    ):
        find_server("no-such-program-at-all")


def test_tasks_come_from_a_file(folder):
    env = Mcp(f"{sys.executable} server.py", tasks="tasks.jsonl")
    assert env.splits == ("test", "train")
    assert [task.prompt for task in env.tasks("test")] == ["2 + 3?"]
    assert [task.answer for task in env.tasks("train")] == [["Oslo", 7]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "needs a file with one .* there is no file tasks.jsonl"),
        ("", "tasks.jsonl has no tasks"),
        ('{"prompt": "a"}', "task 1 has no answer"),
        ("x", "tasks.jsonl, line 1: expected a JSON object with a prompt"),
    ],
)
def test_a_file_of_no_tasks(tmp_path, monkeypatch, text, says):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / "tasks.jsonl").write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_tasks("tasks.jsonl")
    with pytest.raises(ConfigError, match="got no tasks=FILE"):
        read_tasks("")


@pytest.mark.parametrize(
    ("score", "answer", "reply", "right"),
    [
        ("exact", "Oslo", " oslo\n", 1.0),
        ("exact", "Oslo", "It is Oslo.", 0.0),
        ("contains", "Oslo", "It is oslo.", 1.0),
        ("contains", ["Bergen", "Oslo"], "Paris", 0.0),
        ("exact", ["Bergen", 7], "7", 1.0),
    ],
)
def test_scores(folder, score, answer, reply, right):
    env = Mcp(f"{sys.executable} server.py", tasks="tasks.jsonl", score=score)
    task = Task(prompt="?", answer=answer)
    rollout = Rollout(id="", group="", environment=env.describe(), task=task, seeds=Seeds(0, 0, 0, 0))
    rollout.calls = [Call(messages=[], reply={"role": "assistant", "content": reply})]
    assert env.correct(task, rollout) == right
    with pytest.raises(UnknownName, match="unknown score 'exactly'; did you mean 'exact'"):
        Mcp("git", tasks="tasks.jsonl", score="exactly")

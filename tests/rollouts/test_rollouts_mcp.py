"""Tools of live MCP servers in rollouts: shared by hundreds, one for each, and every way in which servers fail."""

import asyncio
import json
import os
import shlex
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from pathlib import Path
from unittest.mock import ANY

import msgspec
import pytest
from playground import Says, Small, attempt, run

pytest.importorskip("mcp_types", reason="needs the MCP SDK, version 2")

import uvicorn
from click.testing import CliRunner
from mcp.server.mcpserver import Context
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from toolbox import toolbox

from ludus import registry
from ludus.authoring.loading import load_environment, rebuildable
from ludus.authoring.mcp.server import McpServer
from ludus.cli.main import main
from ludus.errors import ConfigError, ServerLost, ToolError
from ludus.renderers.parsing import tool_calls_of
from ludus.rollouts.scheduler import Plan, Scheduler
from ludus.serve.listen import address, listen
from ludus.types import MAIN_ROLE, Reply

HERE = Path(__file__).parent
TOOLBOX = [sys.executable, str(HERE / "toolbox.py")]
BARE = [sys.executable, "-SE", str(HERE / "bare_server.py")]
NOBODY = "http://127.0.0.1:9/mcp"


class Tooled(Small):
    """Eight tasks with the tools of some servers."""

    def __init__(self, *servers):
        self.servers = servers


def calling(*calls):
    """A model that calls tools at once, then says what they answered. Names with arguments, or functions of the
    conversation that give one such."""

    def say(messages):
        answers = [message["content"] for message in messages if message["role"] == "tool"]
        if answers:
            return "\n".join(answers)
        named = [call(messages) if callable(call) else call for call in calls]
        message = {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
                for i, (name, arguments) in enumerate(named)
            ],
        }
        return Reply(message, tool_calls_of(message), "tool_calls")

    return Says(say)


async def said(env, *calls):
    """What the tools answered one rollout, in lines."""
    rollout = await attempt(env, calling(*calls))
    assert rollout.failure is None, rollout.failure
    return rollout.reply.split("\n")


async def failed(env, *calls, **plan):
    rollout = await attempt(env, calling(*calls), **plan)
    assert rollout.failure is not None, rollout.reply
    return rollout.failure


def runs(pid):
    """Whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@contextmanager
def serving(app, port=0) -> Iterator[str]:
    """An application at an address, in a thread."""
    bound = listen("127.0.0.1", port)
    config = uvicorn.Config(app, log_level="critical", loop="asyncio", ws="none", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        yield f"{address(bound)}/mcp"
    finally:
        server.should_exit = True
        thread.join()
        bound.close()


@pytest.fixture(autouse=True)
def nothing_left():
    """No file, pipe or socket of a connection outlives a test."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


# --- tools --------------------------------------------------------------------------------------------------------


async def test_tools_of_a_process_are_tools_of_the_rollout():
    env = Tooled(McpServer(TOOLBOX, env={"TOKEN": "abc-secret"}))
    async with env.opened():
        rollout = await attempt(env, calling(("add", {"a": 2, "b": 3})))
        assert rollout.reply == "5"
        schemas = {tool["function"]["name"]: tool["function"] for tool in rollout.tools}
        assert schemas["add"]["description"] == "Add two numbers."
        assert schemas["add"]["parameters"]["required"] == ["a", "b"]
        assert schemas["add"]["parameters"]["title"] == "addArguments"  # as the server wrote it
        assert await said(env, ("show", {})) == ["text", "[image, image/png, 12 bytes]", "a memo"]
        assert await said(env, ("words", {"text": "two words"})) == ["two", "words"]
        value = {"x": None, "y": [1, {"z": None}], "ü": 2**70}
        assert json.loads("".join(await said(env, ("echo", {"value": value})))) == value
        assert await said(env, ("add", {"a": 1, "b": 1}), ("pid", {}), ("add", {"a": 2, "b": 2})) == ["2", ANY, "4"]
        assert await said(env, ("pid", {})) == await said(env, ("dotted_name-x", {}))
        values = "".join(await said(env, ("variables", {"names": ["PATH", "PYTEST_CURRENT_TEST", "TOKEN"]})))
        assert json.loads(values) == {"PATH": os.environ["PATH"], "PYTEST_CURRENT_TEST": None, "TOKEN": "abc-secret"}
        assert await said(env, ("refuse", {})) == ["Error: Error executing tool refuse: no, not with [TOKEN]"]
        assert await said(env, ("fail", {})) == ["Error: Error executing tool fail"]
        assert (await said(env, ("add", {"a": "many"})))[0].startswith("Error: ")


async def test_what_a_server_refuses_is_told_to_the_model():
    env = Tooled(McpServer(BARE, env={"TOKEN": "abc-secret"}))
    async with env.opened():
        assert await said(env, ("refuse", {})) == ["Error: not with [TOKEN]"]
        assert await said(env, ("bad_parameters", {}), ("own_error", {})) == [
            "Error: not so (-32602)",
            "Error: not so (-32603)",
        ]
        assert (await said(env, ("nothing", {})))[0].startswith("Error: there is no tool 'nothing'")


@pytest.mark.parametrize("value", ["\ud800", json.loads("[" * 900 + "]" * 900), float("nan")])
async def test_arguments_that_json_cannot_hold_are_told_to_the_model(value):
    async def say(arguments):
        return await tools["add"](arguments, {})

    env = Tooled(McpServer(BARE))
    async with env.opened():
        tools = env.make_tools()
        with pytest.raises(ToolError, match="the arguments can't be sent"):
            await say({"a": value})
        assert await say({"a": 1, "b": 2}) == "3"  # it would have ended the connection of all


async def test_an_answer_that_its_schema_forbids():
    env = Tooled(McpServer(BARE))
    async with env.opened():
        for name in ("lie", "nonsense"):
            failure = await failed(env, (name, {}))
            assert (failure.boundary, failure.blame) == ("tool", "infrastructure")
            assert f"the tool {name} of the MCP server bare_server.py answered what it must not: " in failure.error
            assert "\n" not in failure.error
        assert await said(env, ("add", {"a": 1, "b": 2})) == ["3"]


@pytest.mark.slow
async def test_long_answers():
    env = Tooled(McpServer(BARE))
    async with env.opened():
        assert len((await said(env, ("long", {"a": 3_000_000})))[0]) == 3_000_000
        failure = await failed(env, ("long", {"a": 2**24}))
        assert "bare_server.py wrote a line of more than 16 MiB" in failure.error


async def test_calls_of_one_reply_run_side_by_side():
    env = Tooled(McpServer(BARE))
    async with env.opened():
        assert await said(env, *[("meet", {"a": 40})] * 40) == ["met"] * 40


async def test_two_servers_with_tools_of_one_name():
    with pytest.raises(ConfigError, match=r"two tools are called 'add': .* prefix"):
        await attempt(Tooled(McpServer(BARE), McpServer(BARE)))
    env = Tooled(McpServer(BARE), McpServer(BARE, prefix="other_"))
    assert await said(env, ("add", {"a": 1, "b": 2}), ("other_add", {"a": 3, "b": 4})) == ["3", "7"]


def lists(*tools):
    """A command that answers two questions of the protocol: what it is, and which tools it has."""
    about = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}
    code = f"""import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    known = {{"initialize": {about}, "tools/list": {{"tools": {list(tools)}}}}}.get(asked["method"])
    said = {{"result": known}} if known else {{"error": {{"code": -32601, "message": "no such method"}}}}
    print(json.dumps({{"jsonrpc": "2.0", "id": asked.get("id"), **said}}), flush=True)
"""
    return [sys.executable, "-SEc", code]


@pytest.mark.parametrize(
    ("tools", "says"),
    [
        ([], "offers no tools"),
        ([{"name": "a"}], "failed: ListToolsResult, tools.0.inputSchema: Field required"),
    ],
)
async def test_a_server_whose_tools_are_none(tools, says):
    with pytest.raises(ServerLost, match=says):
        await attempt(Tooled(McpServer(lists(*tools))))


async def test_what_is_no_server_is_said_at_once():
    with pytest.raises(ConfigError, match=r"servers must be a tuple of McpServer"):
        await attempt(Tooled("server.py"))


# --- many rollouts ------------------------------------------------------------------------------------------------


def sums(messages):
    """A call that depends on the rollout: its task's number, twice."""
    number = int(messages[0]["content"].split()[-1])
    return "slow_add", {"a": number, "b": number}


async def check_many(env):
    groups = await run(env, calling(sums), tasks=8, size=64, concurrency=512)
    for group in groups:
        assert [rollout.failure for rollout in group.rollouts] == [None] * 64
        assert {rollout.reply for rollout in group.rollouts} == {str(2 * int(group.task.answer))}


@pytest.mark.slow
async def test_512_rollouts_share_a_process():
    await check_many(Tooled(McpServer(TOOLBOX)))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_512_rollouts_share_an_http_connection(mode):
    with serving(toolbox().streamable_http_app()) as url:
        await check_many(Tooled(McpServer(url=url, mode=mode)))


async def test_a_pool_shares_the_work():
    env = Tooled(McpServer(BARE, pool=3))
    assert len(set(await said(env, *[("pid", {})] * 9))) == 3


@pytest.mark.slow
async def test_a_server_for_each_rollout_keeps_its_state_apart():
    env = Tooled(McpServer(TOOLBOX, per_rollout=True), McpServer(BARE, per_rollout=True, prefix="bare_"))
    (group,) = await run(env, calling(*[("count", {})] * 3, ("bare_count", {}), ("pid", {}), ("bare_pid", {})), size=3)
    replies = [rollout.reply.split("\n") for rollout in group.rollouts]
    assert [sorted(reply[:3]) for reply in replies] == [["1", "2", "3"]] * 3
    assert [reply[3] for reply in replies] == ["1"] * 3
    pids = {pid for reply in replies for pid in reply[4:]}
    assert len(pids) == 6
    assert not any(map(runs, pids))


@pytest.mark.slow
async def test_an_http_session_for_each_rollout():
    counts = Counter()

    async def count(ctx: Context) -> int:
        """Count on in this session."""
        counts[ctx.headers["mcp-session-id"]] += 1
        return counts[ctx.headers["mcp-session-id"]]

    server = toolbox()
    server.tool(name="count_in_session")(count)
    with serving(server.streamable_http_app()) as url:
        env = Tooled(McpServer(url=url, mode="legacy", per_rollout=True))
        (group,) = await run(env, calling(*[("count_in_session", {})] * 2), size=10)
    assert {frozenset(rollout.reply.split("\n")) for rollout in group.rollouts} == {frozenset({"1", "2"})}
    assert list(counts.values()) == [2] * 10


@pytest.mark.slow
async def test_forty_rollouts_with_a_server_each():
    env = Tooled(McpServer(BARE, per_rollout=True))
    (group,) = await run(env, calling(("count", {})), size=40)
    assert {rollout.reply for rollout in group.rollouts} == {"1"}


# --- servers that fail --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("command", [BARE, TOOLBOX], ids=["bare", "sdk"])
async def test_a_shared_server_that_crashes_is_started_again_and_only_the_culprit_fails(command):
    def crash_first(messages):
        number = int(messages[0]["content"].split()[-1])
        return ("add", {"a": number, "b": number}) if number else ("crash", {})

    env = Tooled(McpServer(command, name="box", env={"TOKEN": "abc-secret"}))
    groups = await run(env, calling(crash_first), tasks=8, size=16, concurrency=128)
    for failure in [rollout.failure for rollout in groups[0].rollouts]:
        assert (failure.boundary, failure.blame) == ("tool", "infrastructure")
        assert failure.error.startswith("ServerLost: the MCP server box has ended (exit status 3; its stderr ends: ")
        assert failure.error.endswith("out of cheese, redo from [TOKEN])")
    for group in groups[1:]:
        assert [rollout.reply for rollout in group.rollouts] == [str(2 * int(group.task.answer))] * 16


async def test_a_shared_server_that_was_killed_is_started_again():
    env = Tooled(McpServer(BARE))
    async with env.opened():
        (first,) = await said(env, ("pid", {}))
        os.kill(int(first), 9)
        (second,) = await said(env, ("pid", {}))
        assert first != second
    assert not runs(second)


@pytest.mark.slow
async def test_a_server_that_closes_its_output_but_stays():
    env = Tooled(McpServer(BARE))
    async with env.opened():
        (pid,) = await said(env, ("pid", {}))
        assert "the MCP server bare_server.py has ended" in (await failed(env, ("close_output", {}))).error
        assert await said(env, ("add", {"a": 1, "b": 2})) == ["3"]
        assert not runs(pid)


async def test_a_server_of_one_rollout_that_crashes_takes_it_along():
    env = Tooled(McpServer(BARE, per_rollout=True))
    failure = await failed(env, ("crash", {}))
    assert (failure.boundary, failure.blame) == ("tool", "infrastructure")
    assert "the MCP server bare_server.py has ended (exit status 3; " in failure.error


@pytest.mark.slow
@pytest.mark.parametrize("how", ["hang", "block"])
async def test_a_call_has_a_time_limit_and_the_next_ones_go_on(how):
    env = Tooled(McpServer(BARE, timeout_s=1.0))
    async with env.opened():
        failure = await failed(env, (how, {}))
        assert (failure.boundary, failure.blame) == ("tool", "infrastructure")
        assert f"the tool {how} of the MCP server bare_server.py took more than 1 s" in failure.error
        assert await said(env, ("add", {"a": 1, "b": 2})) == ["3"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["no-such-program-at-all"], r"no-such-program-at-all failed: FileNotFoundError: .*no-such-program-at-all"),
        ([*BARE[:2], "-c", "raise SystemExit('I need a key')"], r"exit status 1; its stderr ends: I need a key"),
        (["sh", "-c", "echo hello; sleep 600"], r"did not start within 0.5 s \(.*'hello', which is not MCP"),
        (["sh", "-c", "trap '' TERM; sleep 600"], r"did not start within 0.5 s$"),
    ],
)
async def test_a_process_that_is_no_server_is_one_clear_line(command, says):
    limit = 20 if command[0] == sys.executable else 0.5
    with pytest.raises(ServerLost, match=says) as caught:
        await attempt(Tooled(McpServer(command, start_timeout_s=limit)))
    assert "\n" not in str(caught.value)


async def test_a_url_where_no_server_is():
    with pytest.raises(ServerLost, match=r"the MCP server 127.0.0.1:9/mcp failed: ConnectError"):
        await attempt(Tooled(McpServer(url=NOBODY)))
    app = Starlette(routes=[Route("/mcp", lambda request: PlainTextResponse("no", 401), methods=["GET", "POST"])])
    with serving(app) as url, pytest.raises(ServerLost, match=r"/mcp failed: MCPError: .* \(HTTP 401 Unauthorized\)"):
        await attempt(Tooled(McpServer(url=url)))


async def test_what_is_printed_between_messages_does_no_harm():
    env = Tooled(McpServer([*BARE, "welcome", "", '{"bare": 1}']))
    async with env.opened():
        assert await said(env, ("stray", {}), ("add", {"a": 1, "b": 2})) == ["said", "3"]


@pytest.mark.slow
async def test_an_http_server_that_is_busy_now_and_then():
    app, asked = toolbox().streamable_http_app(), []

    async def busy(scope, receive, send):
        if scope["type"] == "http" and dict(scope["headers"]).get(b"mcp-method") == b"tools/call":
            asked.append(1)
            if len(asked) % 9 == 0:
                await PlainTextResponse("later", 503)(scope, receive, send)
                return
        await app(scope, receive, send)

    with serving(busy) as url:
        (group,) = await run(Tooled(McpServer(url=url)), calling(("add", {"a": 1, "b": 2})), size=40, max_retries=2)
    assert {rollout.reply for rollout in group.rollouts} == {"3"}
    assert len(asked) > 40


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_an_http_server_that_was_started_again_is_connected_to_again(mode):
    add = ("add", {"a": 1, "b": 2})
    with serving(toolbox().streamable_http_app()) as url:
        env = Tooled(McpServer(url=url, mode=mode))
        opened = env.opened()
        await opened.__aenter__()
        assert await said(env, add) == ["3"]
    port = int(url.rpartition(":")[2].partition("/")[0])
    waiting = asyncio.create_task(run(env, calling(add), size=20))
    await asyncio.sleep(0.3)
    with serving(toolbox().streamable_http_app(), port):
        assert {rollout.reply for rollout in (await waiting)[0].rollouts} == {"3"}
    env.servers[0].start_timeout_s = 0.2
    assert "the MCP server 127.0.0.1" in (await failed(env, add)).error
    await opened.__aexit__(None, None, None)


# --- nothing is left, nothing is told -----------------------------------------------------------------------------


@pytest.mark.slow
async def test_children_of_a_server_end_with_it():
    env = Tooled(McpServer(BARE))
    (pid,) = await said(env, ("child", {}))
    while runs(pid):  # killed, and then it is the system's to reap
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("per_rollout", [False, True])
async def test_a_run_that_is_cancelled_leaves_nothing(per_rollout):
    env = Tooled(McpServer(BARE, per_rollout=per_rollout))
    started = asyncio.Event()

    def hang(messages):
        started.set()
        return "hang", {}

    running = asyncio.create_task(run(env, calling(hang), size=2))
    await started.wait()
    await asyncio.sleep(0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("MCP")] == []


@pytest.mark.parametrize("per_rollout", [False, True])
@pytest.mark.slow
async def test_a_start_that_is_cancelled_leaves_nothing(per_rollout, tmp_path):
    command = ["sh", "-c", f"sleep 600 & echo $! > {tmp_path}/written; mv {tmp_path}/written {tmp_path}/child; wait"]
    running = asyncio.create_task(run(Tooled(McpServer(command, per_rollout=per_rollout)), size=2))
    while not (tmp_path / "child").exists():
        await asyncio.sleep(0.02)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    while runs((tmp_path / "child").read_text().strip()):
        await asyncio.sleep(0.02)


@pytest.mark.slow
async def test_a_rollout_that_times_out_in_a_tool_leaves_nothing():
    env = Tooled(McpServer(BARE, per_rollout=True))
    failure = await failed(env, ("hang", {}), timeout_s=1.0)
    assert failure.boundary == "timeout"


async def test_secrets_are_in_no_record():
    env = Tooled(McpServer(BARE, env={"TOKEN": "abc-secret"}), McpServer(BARE, prefix="b_", env={"KEY": "def-secret"}))
    rollout = await attempt(env, calling(("refuse", {}), ("b_add", {"a": 1, "b": 1})))
    record = msgspec.json.encode(rollout).decode()
    assert "abc-secret" not in record and "def-secret" not in record
    assert rollout.failure is None


async def test_headers_are_sent_and_in_no_error():
    seen = []

    def look(request):
        seen.append(request.headers.get("authorization"))
        return PlainTextResponse(f"bad key {seen[-1]}", 403)

    app = Starlette(routes=[Route("/mcp", look, methods=["GET", "POST"])])
    with serving(app) as url, pytest.raises(ServerLost) as caught:
        await attempt(Tooled(McpServer(url=url, headers={"Authorization": "Bearer abc-secret"})))
    assert seen[0] == "Bearer abc-secret"
    assert "abc-secret" not in str(caught.value)


@pytest.mark.slow
async def test_workers_start_servers_of_their_own(tmp_path):
    (tmp_path / "tooled.py").write_text(
        "import ludus\n"
        "class Tooled(ludus.Environment):\n"
        f"    servers = (ludus.McpServer({BARE!r}),)\n"
        "    def tasks(self, split):\n"
        "        return [ludus.Task(prompt=str(i)) for i in range(4)]\n"
        "    @ludus.reward\n"
        "    def fine(self, rollout):\n"
        "        return 1.0\n"
    )
    env = load_environment(str(tmp_path / "tooled.py"))
    groups = await run(env, calling(("pid", {})), tasks=4, workers=1)
    pids = {group.rollouts[0].reply for group in groups}
    assert len(pids) == 1 and not any(map(runs, pids))


async def test_opened_twice_at_once_a_server_is_started_once():
    env = Tooled(McpServer(BARE))
    async with env.opened(), Scheduler(env, {MAIN_ROLE: Says()}, Plan()):
        first = await said(env, ("pid", {}))
        assert await said(env, ("pid", {})) == first


# --- mcp: ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def adapter(monkeypatch):
    """`mcp:` as the installed package registers it."""
    registered = EntryPoint("mcp", "ludus.environments.mcp:Mcp", registry.ADAPTERS)
    known = registry.entries
    monkeypatch.setattr(registry, "entries", lambda group: {**known(group), registered.name: registered})


async def test_an_environment_without_a_class(adapter, tmp_path):
    (tmp_path / "sums.jsonl").write_text('{"prompt": "2 + 3?", "answer": "5"}\n{"prompt": "2 + 2?", "answer": "4"}\n')
    spec = f"mcp:{shlex.join(BARE)}"
    env = load_environment(spec, {"tasks": str(tmp_path / "sums.jsonl"), "turns": 3})
    groups = await run(env, calling(("add", {"a": 2, "b": 3})), tasks=2)
    assert [group.rollouts[0].reward for group in groups] == [1.0, 0.0]
    ref = groups[0].rollouts[0].environment
    assert ref.id == spec and "server" not in ref.options
    assert rebuildable(env) and load_environment(ref.id, ref.options).ref == env.ref


def test_the_command_line_lists_servers(adapter, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listed = CliRunner().invoke(main, ["env", "list", "mcp:"])
    assert listed.exit_code == 2 and "mcp: takes a URL, a command line, or the name of a server" in listed.stderr
    Path(".mcp.json").write_text('{"mcpServers": {"git": {"command": "uvx"}, "time": {"command": "uvx"}}}')
    assert CliRunner().invoke(main, ["env", "list", "mcp:"]).stdout.split() == ["mcp:git", "mcp:time"]
    assert "mcp:..." in CliRunner().invoke(main, ["env", "list"]).stdout


async def test_the_check_of_environments_starts_servers_once(adapter, tmp_path):
    from ludus.testing.env_suite import check_environment_async

    (tmp_path / "sums.jsonl").write_text(
        "".join(json.dumps({"prompt": f"{i} + 1?", "answer": str(i + 1)}) + "\n" for i in range(5))
    )
    env = load_environment(f"mcp:{shlex.join(BARE)}", {"tasks": str(tmp_path / "sums.jsonl")})
    findings = {finding.name: finding for finding in await check_environment_async(env, num_tasks=2)}
    assert "described and typed: add, count" in findings["tools"].detail
    assert findings["recording"].ok
    gone = load_environment(f"mcp:{shlex.join([*BARE[:2], '-c', '1 / 0'])}", env.ref.options)
    findings = await check_environment_async(gone, num_tasks=2)
    assert (findings[-1].name, findings[-1].ok) == ("open", False)
    assert "the MCP server python has ended (exit status 1; " in findings[-1].detail

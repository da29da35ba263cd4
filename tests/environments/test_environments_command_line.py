"""A program is the agent: it is started in a sandbox, told where its model is, recorded, and gone afterwards."""

import asyncio
import sys
import time

import pytest

import ludus
from ludus import agents
from ludus.agents import tiny
from ludus.engine.fake import FakeEngine, fake_renderer
from ludus.environments.command_line import CommandLineAgent
from ludus.errors import ModelCallFailed
from ludus.recording.backend import TokenBackend
from ludus.rollouts.scheduler import Plan, Scheduler
from ludus.sandbox import SandboxSpec, capabilities
from ludus.types import MAIN_ROLE, Reply, Task

pytestmark = [
    pytest.mark.usefixtures("nothing_is_left"),
    pytest.mark.skipif(capabilities().tier != "namespaces", reason="this machine has no namespaces for sandboxes"),
]


class Files(CommandLineAgent):
    """Leave a file that says hello."""

    command = "{python} agent.py --turns 4 {prompt}"
    accepted = (0, 3)

    def tasks(self, split):
        return [Task(prompt="write {python} \"hello\" into 'hello.txt'; $HOME")]

    def files(self, task):
        return {"agent.py": agents.source("tiny")}

    @ludus.reward
    async def said_hello(self, sandbox):
        try:
            return float((await sandbox.read("hello.txt")).decode() == "hello\n")
        except OSError:
            return 0.0


class Script(Files):
    """Run a program that is written here."""

    program = ""

    def files(self, task):
        return {"agent.py": f"import os, sys, json, time, urllib.request, subprocess\n{ASK}\n{self.program}"}


ASK = """
def ask(**changes):
    key, base = os.environ["OPENAI_API_KEY"], os.environ["OPENAI_BASE_URL"]
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **changes}
    headers = {"Authorization": "Bearer " + key}
    return urllib.request.urlopen(urllib.request.Request(base + "/chat/completions", json.dumps(body).encode(), headers))
"""


def policy(prompt: str, rng) -> str:
    if "<|tool|>" in prompt:
        return "<think>now</think>done"
    return (
        '<think>so</think><tool_call>{"name": "shell", "arguments": {"command": "echo hello > hello.txt"}}</tool_call>'
    )


async def attempt(env, script=policy, backend=None):
    """One rollout."""
    backend = backend or TokenBackend("fake", FakeEngine(script, context=100_000), fake_renderer())
    async with Scheduler(env, {MAIN_ROLE: backend}, Plan(max_retries=0, timeout_s=120.0)) as scheduler:
        (group,) = [group async for group in scheduler.groups([(task, 0) for task in env.tasks("test")], 1)]
    return group.rollouts[0]


def program(text, **attributes):
    return type("Scripted", (Script,), {"program": text, **attributes})()


@pytest.mark.parametrize("sandbox", ["auto", "none"])
async def test_the_tiny_agent_is_recorded_as_one_sequence(sandbox):
    rollout = await attempt(Files(sandbox))
    assert rollout.failure is None, rollout.failure
    assert (rollout.reward, rollout.num_turns, rollout.reply) == (1.0, 2, "done")
    (sequence,) = rollout.sequences
    assert fake_renderer().tokenizer.decode(sequence.tokens).count("<think>") == 2
    assert rollout.messages[1]["content"] == "write {python} \"hello\" into 'hello.txt'; $HOME"


def test_how_it_is_contained_is_one_of_some_names():
    with pytest.raises(ValueError, match="did you mean 'none'"):
        Files("non")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ask(); sys.exit(7)", "status 7"),
        ("ask(); print('last words', file=sys.stderr); sys.exit(1)", "last words"),
        ("pass", "without a call"),
        ("ask(n=3)", "n = 3 can't be honoured"),
        ("1 / 0", "ZeroDivisionError"),
        ("ask(); os.kill(os.getpid(), 9)", "status -9"),
        ("ask(); print(os.environ['OPENAI_API_KEY'], file=sys.stderr); sys.exit(1)", "[secret]"),
    ],
)
async def test_a_program_that_fails_fails_its_rollout_and_says_why(text, words):
    rollout = await attempt(program(text))
    assert words in rollout.failure.error and rollout.rewards == []
    assert rollout.failure.blame == "environment"


async def test_a_model_that_fails_is_to_blame_whatever_the_program_makes_of_it():
    class Broken:
        name = "broken"

        async def complete(self, messages, tools, sampling):
            raise ModelCallFailed("out of order")

    for env in (Files(), program("try:\n    ask()\nexcept OSError:\n    pass", accepted=None)):
        rollout = await attempt(env, backend=Broken())
        assert (rollout.failure.boundary, rollout.failure.blame) == ("model", "infrastructure")


async def test_a_program_that_shrugs_off_a_dead_model_is_not_scored():
    class Dies:
        name = "dies"

        async def complete(self, messages, tools, sampling):
            if messages[-1]["content"] == "again":
                raise ModelCallFailed("out of order")
            return Reply({"role": "assistant", "content": "ok"})

    again = "ask(messages=[{'role': 'user', 'content': 'again'}])"
    rollout = await attempt(program(f"ask()\ntry:\n    {again}\nexcept OSError:\n    pass"), backend=Dies())
    assert (rollout.failure.boundary, rollout.failure.blame, rollout.rewards) == ("model", "infrastructure", [])


async def test_a_program_that_can_not_be_started():
    rollout = await attempt(type("Missing", (Files,), {"command": "no-such-program-anywhere"})())
    assert "status 127" in rollout.failure.error and "no-such-program-anywhere: No such file" in rollout.failure.error
    rollout = await attempt(type("Empty", (Files,), {"command": ""})())
    assert "must have a command" in rollout.failure.error


LEAVES_DAEMONS = """
ask()
subprocess.Popen(["sleep", "600"])
subprocess.Popen(["sleep", "600"], start_new_session=True, stdin=subprocess.DEVNULL)
subprocess.Popen(["sh", "-c", "trap '' TERM INT HUP; sleep 600"], start_new_session=True)
"""


async def test_whatever_it_started_is_gone_when_it_ends():
    began = time.monotonic()
    rollout = await attempt(program(LEAVES_DAEMONS))
    assert rollout.failure is None, rollout.failure
    assert time.monotonic() - began < 60


@pytest.mark.slow
async def test_whatever_it_started_is_gone_when_its_time_is_up():
    rollout = await attempt(program(LEAVES_DAEMONS + "time.sleep(600)", time_limit_s=1.5, timeout_blame="policy"))
    assert (rollout.failure.boundary, rollout.failure.blame) == ("timeout", "policy")
    assert rollout.reward == 0.0


async def test_whatever_it_started_is_gone_when_the_rollout_is_cancelled():
    env, started = program(LEAVES_DAEMONS + "time.sleep(600)"), asyncio.Event()

    def says(prompt, rng):
        started.set()
        return "ok"

    running = asyncio.create_task(attempt(env, says))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_the_program_sees_nothing_of_this_processs_environment(monkeypatch):
    monkeypatch.setenv("PLANTED_API_KEY", "sk-planted-0123456789")
    rollout = await attempt(program("ask(messages=[{'role': 'user', 'content': str(dict(os.environ))}])"))
    (said,) = [message["content"] for message in rollout.calls[0].messages]
    assert "PLANTED" not in said and "ANTHROPIC_BASE_URL" in said
    assert "[secret]" in said and "ludus-" not in said


async def test_sampling_that_can_not_be_trained_on_is_left_aside():
    rollout = await attempt(program("ask(temperature=0, top_p=0.5, max_tokens=3)"))
    (call,) = rollout.calls
    assert (call.sampling.temperature, call.sampling.top_p, call.sampling.max_tokens) == (1.0, 1.0, 3)


REACHES_ONLY_ITS_MODEL = """
import socket
ask()
host, _, port = os.environ["HOST_ADDRESS"].partition(":")
for place in ((host, int(port)), ("1.1.1.1", 53)):
    try:
        socket.create_connection(place, 2)
    except OSError:
        continue
    sys.exit(f"{place} is reachable")
"""


async def test_only_the_model_is_reachable():
    class Sealed(Script):
        program = REACHES_ONLY_ITS_MODEL

        async def setup(self, ctx):
            await super().setup(ctx)
            self.host = ctx.model.base_url.split("/")[2]

        def environment(self, task):
            return {"HOST_ADDRESS": self.host}

    rollout = await attempt(Sealed())
    assert rollout.failure is None, rollout.failure
    assert rollout.num_turns == 1


async def test_hosts_that_may_be_reached_do_not_stand_between_it_and_its_model():
    class Open(Files):
        def spec(self, task):
            return SandboxSpec(network=("a.example.invalid",), files=self.files(task), folders=("/data",))

    rollout = await attempt(Open())
    assert (rollout.failure, rollout.reward, rollout.num_turns) == (None, 1.0, 2)


async def test_without_a_way_to_the_model_it_says_so():
    class Shut(Files):
        def spec(self, task):
            return SandboxSpec(files=self.files(task))

    rollout = await attempt(Shut())
    assert "a sandbox with network='none' reaches nothing" in rollout.failure.error


@pytest.mark.slow
async def test_many_at_once():
    env = Files()
    backend = TokenBackend("fake", FakeEngine(policy, context=100_000), fake_renderer())
    (task,) = env.tasks("test")
    async with Scheduler(env, {MAIN_ROLE: backend}, Plan(max_retries=0, timeout_s=120.0, concurrency=16)) as scheduler:
        groups = [group async for group in scheduler.groups([(task, visit) for visit in range(4)], 8)]
    assert [rollout.reward for group in groups for rollout in group.rollouts] == [1.0] * 32


FILE = """
import ludus
from ludus import agents
from ludus.environments.command_line import CommandLineAgent


class Worked(CommandLineAgent):
    command = "{python} agent.py {prompt}"

    def tasks(self, split):
        return [ludus.Task(prompt=f"go {i}") for i in range(4)]

    def files(self, task):
        return {"agent.py": agents.source("tiny")}

    @ludus.reward
    async def fine(self, sandbox, state):
        return float(await sandbox.read("hello.txt") == b"hello\\n" and state.stdout == "done\\n")
"""


@pytest.mark.slow
async def test_in_worker_processes(tmp_path):
    (tmp_path / "worked.py").write_text(FILE)
    env = ludus.load_environment(str(tmp_path / "worked.py"))
    backend = TokenBackend("fake", FakeEngine(policy, context=100_000), fake_renderer())
    plan = Plan(max_retries=0, timeout_s=120.0, workers=1)
    async with Scheduler(env, {MAIN_ROLE: backend}, plan) as scheduler:
        groups = [group async for group in scheduler.groups([(task, 0) for task in env.tasks("test")], 1)]
    for group in groups:
        (rollout,) = group.rollouts
        assert rollout.failure is None, rollout.failure
        assert (rollout.reward, rollout.num_turns, len(rollout.sequences)) == (1.0, 2, 1)


# --- the tiny agent -----------------------------------------------------------------------------------------------


def call(name, **arguments):
    import json

    return {"id": "x", "function": {"name": name, "arguments": json.dumps(arguments)}}


def test_tools_of_the_tiny_agent(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hidden")
    assert tiny.use(call("edit", path="a/b.txt", old="", new="one two two"), 9) == "wrote a/b.txt"
    assert tiny.use(call("edit", path="a/b.txt", old="one", new="1"), 9) == "changed a/b.txt"
    assert "2 times, not once" in tiny.use(call("edit", path="a/b.txt", old="two", new="2"), 9)
    assert tiny.use(call("shell", command="cat a/b.txt; echo $OPENAI_API_KEY; exit 3"), 9).split("\n") == [
        "1 two two", "", "[exit status 3]",
    ]  # fmt: skip
    assert tiny.use(call("python", code="print(6 * 7)"), 60) == "42\n\n[exit status 0]"
    assert "killed after 0.2 s" in tiny.use(call("shell", command="sleep 60 & sleep 60"), 0.2)
    for bad in (call("nothing"), call("shell"), {"id": "x", "function": {"name": "shell", "arguments": "{"}}):
        assert tiny.use(bad, 9).startswith("Error: ")
    assert len(tiny.use(call("shell", command="yes | head -c 50000"), 9)) < 9_000


def test_the_tiny_agent_needs_one_task(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tiny"])
    with pytest.raises(SystemExit) as ended:
        tiny.main()
    assert ended.value.code == 2 and "give the task" in capsys.readouterr().err

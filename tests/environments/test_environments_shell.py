"""Agents with a shell or a Python session in a sandbox: what they are told, in order, and what happens when it dies."""

import os
from pathlib import Path

import pytest
from players import Calls, heard, play

import ludus
from ludus.environments.python_session import PythonSession
from ludus.environments.shell import Shell
from ludus.environments.telling import shortened
from ludus.sandbox import Limits, SandboxSpec, capabilities

pytestmark = pytest.mark.skipif(capabilities().tier is None, reason="this machine can't contain code")
SMALL = SandboxSpec(limits=Limits(memory_bytes=96 << 20, output_bytes=2000), files={"names.txt": "Ann\nBo\n"})


class Notes(Shell):
    """Write how many names there are into a file."""

    command_timeout_s = 1.0

    def tasks(self, split):
        return [ludus.Task(prompt="How many names are in names.txt? Write the number into count.txt.", answer="2")]

    def spec(self, task):
        return SMALL

    def variables(self, task):
        return {"COLOUR": "green"}

    @ludus.reward
    async def counted(self, task, sandbox):
        found = await sandbox.exec(["cat", "count.txt"])
        return float(found.stdout.strip() == task.answer)


class Numbers(PythonSession):
    """Compute something."""

    code_timeout_s = 1.0

    def tasks(self, split):
        return [ludus.Task(prompt="What is the sum of the numbers up to 100?", answer="5050")]

    def spec(self, task):
        return SMALL

    @ludus.reward
    def right(self, task, rollout):
        return float(task.answer in rollout.reply)


def bash(*commands):
    return Calls(*(ludus.calls_tool("bash", command=command) for command in commands))


def python(*pieces):
    return Calls(*(ludus.calls_tool("python", code=code) for code in pieces))


async def test_files_stay_and_shells_do_not():
    commands = ("wc -l < names.txt > count.txt; x=1; cd /tmp", "cat count.txt; echo $x $COLOUR; basename $PWD; exit 3")
    (rollout,) = await play(Notes(), bash(*commands))
    assert heard(rollout) == ["(no output)", "2\ngreen\nwork\n(exit code 3)"]
    assert (rollout.reward, rollout.sandboxes) == (1.0, [capabilities().tier])


@pytest.mark.slow
async def test_a_command_that_hangs_is_stopped_and_the_rollout_goes_on():
    (rollout,) = await play(Notes(), bash("echo begun; sleep 60", "echo 2 > count.txt"))
    said = "begun\n(stopped after 1 s, with everything that ran beside it)"
    assert heard(rollout) == [said, "(no output)"] and rollout.reward == 1.0


async def test_long_output_is_shown_in_part():
    (rollout,) = await play(Notes(), bash("seq 100000"))
    assert heard(rollout)[0].startswith("1\n2\n") and heard(rollout)[0].endswith(
        "(there was more output, which is lost)"
    )
    assert shortened("a" * 20_000) == f"{'a' * 5000}\n… 10000 characters left out …\n{'a' * 5000}"


@pytest.mark.parametrize("command", ["echo \0", "x" * 200_000, "echo \ud800"])
async def test_what_no_program_can_be_given_is_the_models_mistake(command):
    (rollout,) = await play(Notes(), bash(command, "echo 2 > count.txt"))
    assert heard(rollout)[0].startswith("Error: ") and rollout.reward == 1.0


async def test_calls_of_one_reply_run_in_their_order():
    calls = [
        ludus.calls_tool("bash", command=f"sleep 0.{3 - i}; echo {i} >> log; cat log")["tool_calls"] for i in range(3)
    ]
    at_once = [{**call, "id": f"c{i}"} for i, (call,) in enumerate(calls)]
    (rollout,) = await play(Notes(), Calls({"role": "assistant", "content": "", "tool_calls": at_once}))
    assert heard(rollout) == ["0", "0\n1", "0\n1\n2"]


async def test_a_model_that_uses_up_the_memory_is_told():
    eat = "python3 -c 'x = [bytes([7]) * (1 << 20) for _ in range(1000)]'"
    (rollout,) = await play(Notes(), bash(eat, "echo 2 > count.txt"))
    assert "memory" in heard(rollout)[0].lower() and rollout.reward == 1.0


async def test_a_session_keeps_variables_and_shows_values():
    (rollout,) = await play(Numbers(), python("x = sum(range(101))\nprint('so')", "x", "1 / 0", "x"))
    answers = heard(rollout)
    assert (answers[0], answers[1], answers[3]) == ("so", "5050", "5050")
    assert answers[2].endswith("ZeroDivisionError: division by zero")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("while True: pass", "was killed after 1 s; its variables are gone"),
        ("import os; os._exit(3)", "ended with exit code 3; its variables are gone"),
        ("raise SystemExit", "ended with exit code 0; its variables are gone"),
        ("x = [b'x' * (1 << 20) for _ in range(1000)]", "emory"),
    ],
)
async def test_a_session_that_ends_is_said_to_in_one_line_and_the_next_call_begins_anew(code, why):
    (rollout,) = await play(
        Numbers(), python("y = 7; open('kept', 'w').write('k')", code, "'y' in globals()", "open('kept').read()")
    )
    first, dead, fresh, kept = heard(rollout)
    assert first == "1" and why in dead and dead.count("\n") <= 20
    assert kept == "'k'" and (fresh == "False" or "emory" in why)


async def test_two_calls_of_one_session_in_one_reply_wait_for_each_other():
    calls = [ludus.calls_tool("python", code=f"import time; time.sleep(0.1); {i}")["tool_calls"][0] for i in range(2)]
    at_once = [{**call, "id": f"c{i}"} for i, call in enumerate(calls)]
    (rollout,) = await play(Numbers(), Calls({"role": "assistant", "content": "", "tool_calls": at_once}))
    assert heard(rollout) == ["0", "1"]


class Fatal(Numbers):
    """Its sandbox is killed while the model works."""

    @ludus.tool
    async def die(self, sandbox) -> str:
        """End the sandbox."""
        await sandbox.kill()
        return "killed"


async def test_a_sandbox_that_is_gone_through_no_fault_of_the_model_fails_the_rollout():
    (rollout,) = await play(Fatal(), Calls(ludus.calls_tool("die"), ludus.calls_tool("python", code="1")))
    assert (rollout.failure.boundary, rollout.failure.blame) == ("sandbox", "infrastructure") and rollout.excluded


async def test_both_tools_in_one_sandbox():
    class Both(Notes, Numbers):
        pass

    model = Calls(
        ludus.calls_tool("python", code="_ = open('count.txt', 'w').write('2')"),
        ludus.calls_tool("bash", command="cat count.txt"),
    )
    (rollout,) = await play(Both(), model)
    assert heard(rollout) == ["(no output)", "2"] and rollout.metrics["counted"] == 1.0


@pytest.mark.slow
async def test_many_at_once_leave_nothing():
    own = f"9{os.getpid()}"  # seconds, that nobody else sleeps
    rollouts = await play(Notes(), bash(f"(sleep {own} > /dev/null 2>&1 &) ; true"), size=24, concurrency=24)
    assert len(rollouts) == 24 and all(rollout.failure is None for rollout in rollouts)
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if _says(path, f"sleep\0{own}\0".encode())]


def _says(path: Path, words: bytes) -> bool:
    try:
        return path.read_bytes() == words
    except OSError:
        return False

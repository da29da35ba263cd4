"""Code that a model writes, judged by tests that it can't see, end early, answer for, or leave something for."""

import asyncio
import json

import pytest
from attacks import ATTACKS
from players import Calls, Says, heard, play

import ludus
from ludus.authoring.tasks import take
from ludus.environments.python_session import PythonSession
from ludus.environments.python_tasks import PythonTasks, function, value
from ludus.environments.shell import Shell
from ludus.environments.tested_code import TestedCode, TestedFiles, inside
from ludus.environments.tested_code.environment import code_of
from ludus.environments.tested_code.inside import decode, encode
from ludus.environments.tested_code.judging import judge
from ludus.environments.tested_code.kinds import read_tests, same
from ludus.errors import ConfigError
from ludus.recording.expert import Expert
from ludus.sandbox import LocalSandbox, SandboxSpec, capabilities
from ludus.testing.env_rewards import check_demonstrations
from ludus.testing.env_suite import check_environment_async
from ludus.testing.playing import Subject

pytestmark = pytest.mark.skipif(capabilities().tier is None, reason="this machine can't contain code")

DOUBLE = "def f(x): return 2 * x"
CALLS = [{"call": "f", "args": [x], "returns": 2 * x} for x in (1, 2, 3)]
TEXTS = [
    "assert f(1) == 2",
    "from solution import f\ndef test_two(): assert f(2) == 4\ndef test_three(): assert f(3) == 6",
]
ENDED = "the code ended its process, or was killed for the time or memory that it took"
RUNS = [{"stdin": "1\n", "stdout": "2\n"}, {"stdin": "2\n", "stdout": "4"}, {"stdin": "3", "stdout": "6"}]


async def problems(code, tests, time_limit_s=10.0, sandboxes=None):
    """Why tests were not passed, and that nothing is left."""
    made = sandboxes if sandboxes is not None else []

    async def new_sandbox():
        made.append(await LocalSandbox.create(SandboxSpec()))
        return made[-1]

    verdict = await judge(
        read_tests(tests), new_sandbox, lambda box: box.write("solution.py", code.encode()), path="solution.py",
        command=("python3", "solution.py"), time_limit_s=time_limit_s,
    )  # fmt: skip
    for sandbox in made:
        with pytest.raises(ludus.RolloutError, match="killed"):
            await sandbox.exec("true")
    return verdict.problems


# --- kinds of tests -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tests", [CALLS, TEXTS, [*CALLS, *TEXTS, *CALLS]])
async def test_right_code_passes(tests):
    assert set(await problems(DOUBLE, tests)) == {""}


async def test_each_test_that_is_not_passed_says_why():
    assert await problems("def f(x): return x + x if x < 3 else 0", [*CALLS, *TEXTS]) == [
        "", "", "returned 0", "", "", "AssertionError: ",
    ]  # fmt: skip


async def test_programs_are_compared_by_what_they_print():
    program = "x = int(input())\nprint('2 ' if x == 1 else 2 * x if x == 2 else 'six')"
    assert await problems(program, RUNS) == ["", "", "printed 'six\\n'"]
    assert (await problems("print(2)\nraise SystemExit(3)", RUNS[:1]))[0].startswith("exit code 3")


async def test_exceptions_can_be_expected():
    code = "class Odd(Exception): pass\ndef half(x):\n    if x % 2: raise Odd('odd')\n    return x // 2"
    text = "from solution import Odd\ntry: half(3)\nexcept Odd as error: assert str(error) == 'odd'\nelse: assert False"
    calls = [{"call": "half", "args": [x], "raises": "Odd"} for x in (3, 4)]
    assert await problems(code, [text, *calls]) == ["", "", "returned 2 where Odd was to be raised"]


async def test_objects_of_the_solution_can_be_used():
    code = """
class Stack:
    def __init__(self, items=()): self.items = list(items)
    def push(self, item): self.items.append(item); return self
    def __len__(self): return len(self.items)
    def __getitem__(self, i): return self.items[i]
    def __eq__(self, other): return self.items == other.items
    def __contains__(self, item): return item in self.items
    def __str__(self): return f"Stack({self.items})"
    def __enter__(self): return self
    def __exit__(self, *_): self.items.clear()
LIMIT = 7
def count():
    n = 0
    while True:
        yield n
        n += 1
"""
    text = """
from solution import *
from itertools import islice
s = Stack([1]).push({"a": (2, {3})})
assert len(s) == 2 and s[1] == {"a": (2, {3})} and 1 in s and s.items[0] == 1 and bool(s)
assert s == Stack([1, {"a": (2, {3})}]) and s != Stack() and str(Stack([2])) == "Stack([2])"
with s as t: assert t is s
assert not s and LIMIT == 7 and list(islice(count(), 3)) == [0, 1, 2]
"""
    assert await problems(code, [text]) == [""]


@pytest.mark.parametrize(
    "value",
    [None, True, -3, 2**100, 0.5, "é\n", b"\0", [1, [2]], (1,), {1, 2}, frozenset("a"), {1: (2,), "a": None}, 1j, {}],
)
def test_plain_values_cross_as_they_are(value):
    back = decode(json.loads(json.dumps(encode(value, lambda it: pytest.fail("kept")))), lambda number: pytest.fail())
    assert back == value and type(back) is type(value)


def test_values_are_compared_as_json_has_them():
    assert same([1, {"a": 0.3}], (1, {"a": 0.1 + 0.2})) and same(2, 2.0) and same("a", "a") and same(None, None)
    for expected, got in [(1, True), (True, 1), (0, False), ("1", 1), ([1], {1}), ({"a": 1}, {}), (None, 0), (1, None)]:
        assert not same(expected, got)


@pytest.mark.parametrize(
    "tests",
    [
        None,
        [],
        "assert True",
        ["assert"],
        [{"call": "f", "retruns": 1}],
        [{}],
        [3],
        [{"stdin": 1, "stdout": ""}],
        ["a\0"],
    ],
)
def test_what_are_no_tests_is_said_in_one_line(tests):
    with pytest.raises(ConfigError, match=r"^test") as caught:
        read_tests(tests)
    assert "\n" not in str(caught.value)


# --- code that would rather not be tested -------------------------------------------------------------------------


@pytest.mark.parametrize("code", ATTACKS.values(), ids=ATTACKS.keys())
async def test_no_test_is_passed_by(code):
    tests = [
        *CALLS,
        *TEXTS,
        "assert all([f(1) == 2])",
        "assert len([f(1)]) == 5",
        "assert not f(5) != 10",
        "assert 4 in f(2)",
        "assert abs(f(1) - 2) < 1",
    ]
    async with asyncio.timeout(30):
        assert "" not in await problems(code, tests, time_limit_s=1.0)


@pytest.mark.parametrize("text", ["assert all([f(1) == 2])", "from solution import *\nassert all([f(1) == 2])"])
def test_no_name_of_the_solution_stands_in_for_one_of_pythons(text):
    mine = [["all", {"object": 1}], ["bool", {"object": 1}]]
    names = {"dict": [["f", {"object": 0}], *mine, ["__builtins__", {"dict": mine}], ["__getattr__", {"object": 1}]]}
    tests = inside.Tests()
    said = json.loads(tests.begin(text, "", names))
    while "do" in said:
        said = json.loads(tests.step({"value": True}))
    assert said == {"passed": False, "why": "AssertionError: "}


async def test_what_hangs_costs_no_more_than_the_time_limit():
    began = asyncio.get_running_loop().time()
    slow = "import time\ndef f(x):\n    if x == 2: time.sleep(60)\n    return 2 * x"
    found = await problems(slow, [*CALLS, TEXTS[0]], time_limit_s=0.5)
    assert found == ["", ENDED, "out of time", "out of time"]
    assert asyncio.get_running_loop().time() - began < 5


async def test_a_crash_costs_its_own_test_alone():
    crash = "import os\ndef f(x):\n    if x == 2: os._exit(0)\n    return 2 * x"
    assert await problems(crash, [*CALLS, *TEXTS]) == ["", ENDED, "", "", ENDED, ""]


async def test_a_test_that_forgives_every_exception_does_not_forgive_a_crash():
    text = "try: f(1)\nexcept BaseException: pass"
    assert await problems("import os\ndef f(x): os._exit(0)", [text]) != [""]
    assert await problems("def f(x): raise ValueError", [text]) == [""]


async def test_who_stops_waiting_leaves_no_sandbox():
    made = []
    waiting = asyncio.create_task(problems("def f(x):\n    while True: pass", [*TEXTS, *CALLS], 60.0, made))
    while len(made) < 2:
        await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    for sandbox in made:
        with pytest.raises(ludus.RolloutError, match="killed"):
            await sandbox.exec("true")


async def test_a_sandbox_that_breaks_is_no_verdict():
    async def broken():
        sandbox = await LocalSandbox.create(SandboxSpec())
        await sandbox.kill()
        return sandbox

    async def nothing(sandbox):
        pass

    with pytest.raises(ludus.RolloutError, match="killed") as caught:
        await judge(read_tests(CALLS), broken, nothing, path="x.py", command=["true"], time_limit_s=5)
    assert caught.value.blame == "infrastructure"


async def test_what_is_tested_finds_nothing_of_its_tests():
    spy = """
import os, subprocess
def f(x):
    places = ["/work", "/tmp", "/dev/shm", "/proc/self/environ"]
    found = subprocess.run(["grep", "-rsl", x + "-secret", *places], capture_output=True, text=True).stdout
    running = [open(f"/proc/{pid}/cmdline").read() for pid in os.listdir("/proc") if pid.isdigit()]
    return found, "secret" in "".join(running[:-1]), [name for name in os.listdir(".") if name != "__pycache__"]
"""
    assert await problems(spy, ["# expected-secret\nassert f('expected') == ('', False, ['solution.py']), f(1)"]) == [
        ""
    ]


# --- environments -------------------------------------------------------------------------------------------------


class Double(TestedCode):
    """Write a function."""

    def tasks(self, split):
        info = {"tests": [*CALLS, *TEXTS]}
        return [ludus.Task(prompt="Write f(x), which doubles x.", answer=DOUBLE, info=info)]


class DoubleFile(TestedFiles, Shell):
    """Write a file."""

    tasks = Double.tasks


class DoublePython(TestedFiles, PythonSession):
    """Write a file with Python."""

    tasks = Double.tasks


def test_code_is_the_last_block_of_a_reply():
    assert code_of("no:\n```\na\n```\nbut:\n```python title\nb\n\n```\n!") == "b\n\n"
    assert code_of("```py\nb") == "b" and code_of("x = 1") == "x = 1" and code_of("") == ""


@pytest.mark.parametrize("kind", [Double, DoubleFile, DoublePython])
async def test_the_known_answer_passes(kind):
    (rollout,) = await play(kind(), Expert())
    assert rollout.failure is None and rollout.metrics == {"passed": 1.0, "tests_passed": 1.0}
    assert rollout.sandboxes == [capabilities().tier]


async def test_all_or_their_share():
    half = Says("```python\ndef f(x): return 2 * x if x < 3 else 0\n```")
    (rollout,) = await play(Double(), half)
    assert (rollout.reward, rollout.metrics["tests_passed"]) == (0.0, pytest.approx(4 / 6))

    class Partial(Double):
        partial = True

    (rollout,) = await play(Partial(), half)
    assert rollout.reward == pytest.approx(4 / 6)


async def test_only_artefacts_are_tested_and_what_runs_is_dead_by_then():
    late = f"(sleep 0.3; echo '{DOUBLE}' > solution.py) > /dev/null 2>&1 & echo '{DOUBLE}' > other.py"
    (rollout,) = await play(DoubleFile(), Calls(ludus.calls_tool("bash", command=late)))
    assert rollout.reward == 0.0 and rollout.failure is None


async def test_links_and_folders_among_artefacts():
    class Package(DoubleFile):
        artefacts = ("solution.py", "lib")

    made = (
        "mkdir lib; echo 'two = 2' > lib/two.py; echo 'from lib.two import two\ndef f(x): return two * x' > solution.py"
    )
    (rollout,) = await play(Package(), Calls(ludus.calls_tool("bash", command=made)))
    assert rollout.reward == 1.0
    planted = "ln -s /etc/passwd solution.py; ln -s / lib"
    (rollout,) = await play(Package(), Calls(ludus.calls_tool("bash", command=planted)))
    assert rollout.reward == 0.0


async def test_a_reply_may_be_tried_in_a_session_first():
    class Tried(Double, PythonSession):
        pass

    model = Calls(ludus.calls_tool("python", code="6 * 7"), {"role": "assistant", "content": DOUBLE})
    (rollout,) = await play(Tried(), model)
    assert heard(rollout) == ["42"] and rollout.reward == 1.0


async def test_a_program_is_run_as_the_class_says():
    class Lines(TestedCode):
        solution = "count.sh"
        command = ("sh", "count.sh")

        def tasks(self, split):
            return [
                ludus.Task(prompt="Count lines.", answer="wc -l", info={"tests": [{"stdin": "a\nb\n", "stdout": "2"}]})
            ]

    (rollout,) = await play(Lines(), Expert())
    assert rollout.reward == 1.0


async def test_tests_that_are_none_are_the_environments_fault():
    class Broken(Double):
        def tests(self, task):
            return ["assert ("]

    (rollout,) = await play(Broken(), Says(DOUBLE))
    assert (rollout.failure.boundary, rollout.failure.blame) == ("scorer", "environment") and rollout.excluded


async def test_a_check_of_the_environment_finds_tests_that_the_known_answer_does_not_pass():
    class Wrong(Double):
        def tests(self, task):
            return ["assert f(1) == 3"]

    subject = Subject(Wrong(), 1)
    await subject.scan()
    (finding,) = await check_demonstrations(subject)
    assert finding.ok is False and "none earns the success reward" in finding.detail


@pytest.mark.slow
async def test_many_at_once():
    rollouts = await play(Double(), Expert(), size=32, concurrency=32)
    assert {rollout.reward for rollout in rollouts} == {1.0}


# --- the environment that comes with it ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"steps": 1, "words": False}, {"steps": 3}])
async def test_python_tasks_keep_their_promises(options):
    findings = await check_environment_async(PythonTasks(**options), num_tasks=6)
    assert [str(finding) for finding in findings if finding.ok is False] == []


def test_the_known_functions_do_their_steps():
    for task in take(PythonTasks(steps=3), "test", 50):
        steps = [tuple(step) for step in task.info["steps"]]
        scope = {}
        exec(function(steps), scope)
        assert [scope["f"](x) for x in range(-3, 4)] == [value(steps, x) for x in range(-3, 4)]


async def test_a_careless_expert_fails_and_a_careful_one_does_not():
    for skill in (0.0, 1.0):
        rollouts = await play(PythonTasks(skill=skill), Expert(), num=8)
        assert {rollout.reward for rollout in rollouts} == {skill}


@pytest.mark.parametrize("options", [{"steps": 0}, {"steps": 4}, {"skill": 2}])
def test_options_that_make_no_tasks_are_refused(options):
    with pytest.raises(ValueError, match="must be"):
        PythonTasks(**options)

"""`Environment`: options are captured, marks collected, author code called where it belongs."""

import asyncio
import threading

import pytest

import ludus
from ludus.authoring.calling import DaemonThreads, call, inject, wanted
from ludus.authoring.environment import as_messages
from ludus.programs.evaluate import evaluate_async
from ludus.testing.scripted import Scripted
from ludus.types import Task


class Plain(ludus.Environment):
    def tasks(self, split):
        return [Task(prompt=split)]


class Optioned(Plain):
    name = "optioned"

    def __init__(self, size: int = 3, *, words: tuple[str, ...] = ("a",), **more):
        self.size = size


# --- options ------------------------------------------------------------------------------------------------------


def test_options_are_captured_with_their_defaults():
    assert Optioned().options == {"size": 3, "words": ("a",)}
    assert Optioned(4, words=("b",), depth=2).options == {"size": 4, "words": ("b",), "depth": 2}
    assert Plain().options == {}


def test_an_environment_is_built_again_from_its_options():
    env = Optioned(4, depth=2)
    again = type(env)(**env.options)
    assert (again.options, again.size) == (env.options, 4)
    described = env.describe()
    assert (described.id, described.options, described.version) == ("optioned", env.options, env.version)


def test_options_that_do_not_exist_are_refused():
    with pytest.raises(TypeError, match="Plain takes no options, got size"):
        Plain(size=3)
    with pytest.raises(TypeError, match="Plain takes no options, got 3"):
        Plain(3)

    class Strict(Plain):
        def __init__(self, size: int) -> None: ...

    with pytest.raises(TypeError, match="missing a required argument: 'size'"):
        Strict()
    with pytest.raises(TypeError, match="unexpected keyword argument 'depth'"):
        Strict(1, depth=2)


def test_an_inherited_init_captures_too():
    class Child(Optioned): ...

    assert Child(5).options["size"] == 5


def test_tasks_have_to_be_defined():
    with pytest.raises(NotImplementedError, match="Nothing must define tasks"):
        type("Nothing", (ludus.Environment,), {})().tasks("train")


# --- marks --------------------------------------------------------------------------------------------------------


class Judged(Plain):
    @ludus.reward
    def correct(self, task, rollout):
        return 1

    @ludus.metric
    def length(self, rollout):
        return 2

    @ludus.reward(weight=0.5, name="best")
    async def compare(self, group):
        return [0] * len(group)

    @ludus.metric(name="spread")
    def of_group(self, group):
        return [0] * len(group)

    @ludus.tool
    def ask(self, question: str) -> str:
        """Ask."""
        return question

    @ludus.stop
    def bored(self, ctx):
        return False


def test_marks_are_collected_in_order_of_definition():
    env = Judged()
    assert [(mark.name, mark.weight) for _, mark in env.scorers()] == [("correct", 1.0), ("length", 0.0)]
    assert [(mark.name, mark.weight) for _, mark in env.group_scorers()] == [("best", 0.5), ("spread", 0.0)]
    assert list(env.make_tools()) == ["ask"]


def test_a_subclass_adds_replaces_and_removes():
    class Child(Judged):
        @ludus.reward(weight=2.0)
        def correct(self, rollout):
            return 0

        def length(self, rollout):  # not marked any more
            return 3

        @ludus.tool
        def tell(self, answer: str) -> str:
            """Tell."""
            return answer

    env = Child()
    assert [(mark.name, mark.weight) for _, mark in env.scorers()] == [("correct", 2.0)]
    assert list(env.make_tools()) == ["ask", "tell"]
    assert env.scorers()[0][0](None) == 0


def test_properties_are_not_run_while_looking_for_marks():
    class Touchy(Judged):
        @property
        def index(self):
            raise AssertionError("looked at")

    assert len(Touchy().scorers()) == 2


def test_marked_functions_are_still_functions():
    assert Judged().correct(None, None) == 1
    assert Judged().ask("x") == "x"


# --- small parts of the loop --------------------------------------------------------------------------------------


def test_answers_become_messages():
    message = {"role": "user", "content": "hi"}
    assert as_messages("hi") == as_messages(message) == as_messages([message]) == [message]
    assert as_messages(None) == []


def test_the_opening_has_the_system_prompt_first():
    env = Plain()
    env.system_prompt = "Be brief."
    opening = env.opening(Task(prompt=[{"role": "user", "content": "hi"}]))
    assert [message["role"] for message in opening] == ["system", "user"]


def test_only_those_who_define_it_can_demonstrate():
    class Expert(Plain):
        def demonstrate(self, task):
            return "hi"

    assert (Expert().can_demonstrate, Plain().can_demonstrate) == (True, False)


# --- calling author code ------------------------------------------------------------------------------------------


async def test_sync_code_runs_in_a_thread_and_async_code_here():
    async def here():
        return threading.current_thread()

    assert await call(here) is threading.current_thread()
    assert await call(threading.current_thread) is not threading.current_thread()
    assert await call(lambda: here()) is threading.current_thread()  # what a function returns may be awaitable


@pytest.mark.parametrize("error", [SystemExit(2), KeyboardInterrupt(), StopIteration(), asyncio.CancelledError()])
async def test_author_code_can_neither_end_the_run_nor_seem_to(error):
    def sync():
        raise error

    async def coroutine():
        raise error

    with pytest.raises(RuntimeError, match="sync"):
        await call(sync)
    if not isinstance(error, KeyboardInterrupt):  # in the loop's own thread, that is the person at the keyboard
        with pytest.raises(RuntimeError, match="coroutine"):
            await call(coroutine)


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_call_can_be_cancelled(kind):
    running, hold = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def sync():
        loop.call_soon_threadsafe(running.set)
        hold.wait(5)

    async def coroutine():
        running.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(call(sync if kind == "sync" else coroutine))
    await running.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    hold.set()


async def test_as_many_threads_as_there_are_calls():
    barrier = threading.Barrier(40)
    await asyncio.gather(*(call(barrier.wait, 20) for _ in range(40)))  # one stranded call would break it
    await asyncio.gather(*(call(barrier.wait, 20) for _ in range(40)))


def test_work_never_waits_behind_work_that_hangs():
    threads, hold = DaemonThreads(), threading.Event()
    try:
        assert threads.submit(lambda: 1).result(5) == 1
        hanging = [threads.submit(hold.wait) for _ in range(3)]
        assert [threads.submit(lambda i=i: i).result(5) for i in range(20)] == list(range(20))
        assert not any(future.done() for future in hanging)
    finally:
        hold.set()


def test_injection_is_by_name():
    def scorer(rollout, task, threshold=3): ...

    assert wanted(scorer) == ("rollout", "task")
    assert inject(scorer, {"task": 1, "rollout": 2, "ctx": 3}) == {"rollout": 2, "task": 1}
    with pytest.raises(TypeError, match="scorer asks for rollout, but here only task, ctx exist"):
        inject(scorer, {"task": 1, "ctx": 3})


async def test_a_scorer_sees_what_those_before_it_said():
    class Bonus(ludus.Environment):
        def tasks(self, split):
            return [Task(prompt="hi")]

        @ludus.reward
        def right(self, rollout):
            assert rollout.rewards == []
            return 1.0

        @ludus.reward
        def bonus(self, rollout):
            return 0.5 * rollout.reward

    result = await evaluate_async(Bonus(), Scripted("m", lambda messages: "hi"), num_tasks=1)
    assert result.metrics["bonus"] == 0.5 and result.mean == 1.5

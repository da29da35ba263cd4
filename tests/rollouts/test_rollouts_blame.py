"""Every failure has one boundary and one blame, whoever raises what, where; and its siblings live on."""

import asyncio
import sys
import threading
from pathlib import Path

import numpy as np
import openai
import pytest
from playground import Fails, Hangs, Says, Small, attempt, run

import ludus
from ludus.authoring.loading import load_environment
from ludus.engine.fake import FakeEngine, fake_renderer
from ludus.errors import ModelCallFailed, RolloutError
from ludus.recording.backend import TokenBackend
from ludus.store import RolloutLog
from ludus.types import Reply

HOLD = threading.Event()
"""Never set: what waits for it hangs, in a thread that does not outlive the tests."""

CALL = {"id": "call_0", "type": "function", "function": {"name": "do", "arguments": "{}"}}


def calls_tool(messages, arguments="{}", name="do"):
    """Calls a tool, and gives up when it has been answered."""
    if messages[-1]["role"] == "tool":
        return messages[-1]["content"]
    from ludus.renderers.parsing import tool_calls_of

    message = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{**CALL, "function": {"name": name, "arguments": arguments}}],
    }
    return Reply(message, tool_calls_of(message), "tool_calls")


def raising(error):
    def method(self, *args, **kwargs):
        raise error

    async def coroutine(self, *args, **kwargs):
        raise error

    return method, coroutine


def in_tool(fn):
    """An environment whose only tool is `fn`."""

    class WithTool(Small):
        @ludus.tool
        def do(self) -> str:
            """Do it."""
            return fn(self)

    return WithTool()


def in_scorer(fn):
    class Scored(Small):
        @ludus.reward
        def fine(self, rollout):
            return fn(self)

    return Scored()


def overriding(name, fn):
    return type("Overriding", (Small,), {name: fn})()


# --- the table ----------------------------------------------------------------------------------------------------

ERRORS = [
    (ValueError("oops"), "environment"),
    (TimeoutError("the socket's own"), "environment"),
    (SystemExit(3), "environment"),
    (asyncio.CancelledError(), "environment"),
    (RolloutError("crashed its own code", "sandbox", "policy"), "policy"),
    (RolloutError("no machine", "sandbox", "infrastructure"), "infrastructure"),
]


@pytest.mark.parametrize("kind", [0, 1], ids=["sync", "async"])
@pytest.mark.parametrize("where", ["setup", "run", "respond", "teardown"])
@pytest.mark.parametrize(("error", "blame"), ERRORS, ids=[f"{type(e).__name__}-{b}" for e, b in ERRORS])
async def test_what_an_environment_raises(where, error, blame, kind):
    rollout = await attempt(overriding(where, raising(error)[kind]))
    expected = "sandbox" if isinstance(error, RolloutError) else "environment"
    assert (rollout.failure.boundary, rollout.failure.blame) == (expected, blame)
    assert (rollout.stop, rollout.excluded) == ("failed", blame != "policy")
    assert [reward.scorer for reward in rollout.rewards] == (["failure"] if blame == "policy" else [])


@pytest.mark.parametrize("kind", [0, 1], ids=["sync", "async"])
@pytest.mark.parametrize("error", [ValueError("oops"), SystemExit(3), TimeoutError("own")])
async def test_what_a_tool_raises(error, kind):
    method = raising(error)[kind]
    rollout = await attempt(in_tool(method), Says(calls_tool))
    assert (rollout.failure.boundary, rollout.failure.blame) == ("tool", "environment")
    assert "the tool do raised" in rollout.failure.error


@pytest.mark.parametrize("kind", [0, 1], ids=["sync", "async"])
@pytest.mark.parametrize("error", [ValueError("oops"), SystemExit(3), TimeoutError("own")])
async def test_what_a_scorer_raises(error, kind):
    rollout = await attempt(in_scorer(raising(error)[kind]))
    assert (rollout.failure.boundary, rollout.failure.blame) == ("scorer", "environment")
    assert "the scorer fine raised" in rollout.failure.error
    assert rollout.rewards == []


async def test_a_failure_shows_the_authors_own_line():
    def respond(self, ctx, reply):
        return {}["missing key"]

    rollout = await attempt(overriding("respond", respond))
    assert rollout.failure.error == "KeyError: 'missing key'"
    assert 'return {}["missing key"]' in rollout.failure.trace
    tooled = await attempt(in_tool(lambda self: {}["missing key"]), Says(calls_tool))
    assert "return fn(self)" in tooled.failure.trace


@pytest.mark.parametrize(
    ("value", "ok"),
    [
        (1, True), (True, True), (0.5, True), (np.float32(0.5), True), (np.int64(2), True), (np.bool_(True), True),
        (None, False), (float("nan"), False), (float("inf"), False), (-np.inf, False), ("1", False), ([1.0], False),
        (1j, False), (10**400, False), ({"reward": 1}, False),
    ],
    ids=str,
)  # fmt: skip
async def test_what_a_scorer_returns(value, ok):
    rollout = await attempt(in_scorer(lambda self: value))
    if ok:
        assert rollout.failure is None
        assert (type(rollout.reward), rollout.reward) == (float, float(value))
    else:
        assert (rollout.failure.boundary, rollout.failure.blame) == ("scorer", "environment")
        assert "the scorer fine must return a finite number, got" in rollout.failure.error


# --- time ---------------------------------------------------------------------------------------------------------


async def hang(*args):
    await asyncio.Event().wait()


def hang_in_thread(*args):
    HOLD.wait()


@pytest.mark.parametrize("how", [hang, hang_in_thread], ids=["async", "sync"])
@pytest.mark.parametrize("where", ["setup", "run", "respond", "teardown"])
async def test_an_environment_that_hangs(where, how):
    rollout = await attempt(overriding(where, how), timeout_s=0.1)
    assert (rollout.failure.boundary, rollout.failure.blame) == ("timeout", "environment")
    assert "took more than 0.1 s" in rollout.failure.error


@pytest.mark.parametrize("how", [hang, hang_in_thread], ids=["async", "sync"])
@pytest.mark.slow
async def test_a_scorer_or_a_tool_that_hangs(how):
    for env, model in ((in_scorer(how), Says()), (in_tool(how), Says(calls_tool))):
        rollout = await attempt(env, model, timeout_s=0.5)
        assert (rollout.failure.boundary, rollout.failure.blame) == ("timeout", "environment")


async def test_a_tools_own_limit():
    class Impatient(Small):
        @ludus.tool(timeout_s=0.05)
        def do(self) -> str:
            """Do it."""
            HOLD.wait()

    rollout = await attempt(Impatient(), Says(calls_tool))
    assert (rollout.failure.boundary, rollout.failure.blame) == ("tool", "environment")
    assert "the tool do took more than 0.05 s" in rollout.failure.error


async def test_a_model_that_hangs_is_not_the_environments_fault():
    rollout = await attempt(Small(), Hangs(), timeout_s=0.5)
    assert (rollout.failure.boundary, rollout.failure.blame) == ("timeout", "infrastructure")


async def test_what_was_said_before_the_end_is_kept():
    model = Says(lambda messages: "first")
    rollout = await attempt(overriding("respond", hang), model, timeout_s=0.5)
    assert rollout.reply == "first"
    assert [message["role"] for message in rollout.messages] == ["user", "assistant"]


@pytest.mark.slow
async def test_hanging_threads_do_not_hold_up_others():
    class Sometimes(Small):
        def respond(self, ctx, reply):
            if ctx.task.answer == "0":
                HOLD.wait()

    groups = await run(Sometimes(), tasks=8, timeout_s=2.0)
    assert [group.rollouts[0].failure is None for group in groups] == [False] + [True] * 7


# --- the model's own mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "name", "says"),
    [
        ("{}", "undo", "Error: there is no tool 'undo'; the tools are: do"),
        ('{"x": 1}', "do", "Error: bad arguments for do: x: Extra inputs are not permitted"),
        ("{", "do", "Error: the arguments of do are not valid JSON"),
        ("[1]", "do", "Error: the arguments of do: expected a JSON object, got a list"),
    ],
)
async def test_mistakes_in_tool_calls_are_answered(arguments, name, says):
    rollout = await attempt(in_tool(lambda self: "done"), Says(lambda m: calls_tool(m, arguments, name)))
    assert rollout.failure is None
    assert rollout.reply.startswith(says)


async def test_a_tool_that_refuses_is_answered():
    def refuse(self):
        raise ludus.ToolError("not today")

    rollout = await attempt(in_tool(refuse), Says(calls_tool))
    assert (rollout.reply, rollout.reward) == ("Error: not today", 1.0)


async def test_a_call_that_cannot_be_read_is_answered():
    said = iter(["<tool_call>{oops</tool_call>", "sorry"])
    backend = TokenBackend("fake", FakeEngine(lambda prompt, rng: next(said)), fake_renderer())
    rollout = await attempt(in_tool(lambda self: "done"), backend)
    assert rollout.messages[2]["content"].startswith("Your tool call could not be read: tool call 0 can't be read")
    assert (rollout.reply, rollout.failure) == ("sorry", None)


async def test_a_failure_of_the_policy_earns_the_failure_reward():
    def crash(self, ctx, reply):
        raise RolloutError("its program crashed", "sandbox", "policy")

    env = overriding("respond", crash)
    env.failure_reward = -0.5
    rollout = await attempt(env, max_retries=2)
    assert (rollout.reward, rollout.excluded, rollout.seeds.attempt) == (-0.5, False, 0)


async def test_outgrowing_the_context_is_the_policys_failure():
    backend = TokenBackend("fake", FakeEngine(lambda prompt, rng: "on", context=60), fake_renderer())
    env = overriding("respond", lambda self, ctx, reply: "more and more and more")
    env.failure_reward = -1.0
    rollout = await attempt(env, backend)
    assert (rollout.failure.boundary, rollout.failure.blame, rollout.reward) == ("model", "policy", -1.0)
    assert len(rollout.sequences) == 1  # what it said before is there to be trained on


async def test_a_failure_that_breaks_teardown_too_is_still_the_policys():
    class Fragile(Small):
        async def respond(self, ctx, reply):
            raise RolloutError("its program crashed", "sandbox", "policy")

        async def teardown(self, ctx):
            raise OSError("nothing to clean up")

    rollout = await attempt(Fragile())
    assert (rollout.failure.boundary, rollout.failure.blame) == ("sandbox", "policy")
    assert "crashed; then teardown raised OSError: nothing to clean up" in rollout.failure.error


# --- the model's failures, seen through a client ------------------------------------------------------------------


@pytest.mark.parametrize("blame", ["policy", "infrastructure"])
async def test_an_agent_sees_its_clients_error_but_the_model_is_to_blame(blame):
    class Agent(Small):
        async def run(self, ctx):
            await ctx.model.openai.chat.completions.create(model="any", messages=self.opening(ctx.task))

    rollout = await attempt(Agent(), Fails(blame))
    assert (rollout.failure.boundary, rollout.failure.blame) == ("model", blame)
    assert "out of order" in rollout.failure.error
    assert "of which the agent made" in rollout.failure.error
    assert [r.scorer for r in rollout.rewards] == (["failure"] if blame == "policy" else [])


async def test_an_agent_that_copes_with_a_failed_call_is_to_blame_for_what_comes_later():
    class Agent(Small):
        async def run(self, ctx):
            client, request = ctx.model.openai, {"model": "any", "messages": self.opening(ctx.task)}
            with pytest.raises(openai.InternalServerError):
                await client.chat.completions.create(**request)
            await client.chat.completions.create(**request)
            raise KeyError("a mistake of its own")

    tries = iter([ModelCallFailed("once"), None])

    def said(messages):
        if error := next(tries):
            raise error
        return "ok"

    rollout = await attempt(Agent(), Says(said))
    assert (rollout.failure.boundary, rollout.failure.error) == ("environment", "KeyError: 'a mistake of its own'")


async def test_a_failed_call_that_harms_nothing_is_no_failure():
    class Agent(Small):
        async def run(self, ctx):
            with pytest.raises(ModelCallFailed):
                await ctx.model.chat(self.opening(ctx.task))

    rollout = await attempt(Agent(), Fails())
    assert (rollout.failure, rollout.reward) == (None, 1.0)


# --- life cycle ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["nowhere", "setup", "run", "scorer", "timeout"])
async def test_setup_and_teardown_pair(where):
    events = []

    class Tidy(Small):
        def setup(self, ctx):
            events.append("setup")
            if where == "setup":
                raise ValueError

        async def run(self, ctx):
            if where == "run":
                raise ValueError
            if where == "timeout":
                await hang()

        @ludus.reward
        def fine(self):
            return None if where == "scorer" else 1

        async def teardown(self, ctx):
            events.append("teardown")

    rollout = await attempt(Tidy(), timeout_s=0.5 if where == "timeout" else 20.0)
    assert events == ["setup", "teardown"]
    assert (rollout.failure is None) == (where == "nowhere")


async def test_teardown_of_a_cancelled_rollout():
    events, running = [], asyncio.Event()

    class Slow(Small):
        async def run(self, ctx):
            running.set()
            await hang()

        async def teardown(self, ctx):
            events.append("teardown")

    task = asyncio.create_task(run(Slow()))
    await running.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert events == ["teardown"]


async def test_tools_that_cannot_be_made_are_a_failure_like_any_other():
    class Bad(Small):
        @ludus.tool
        def do(self, *what: int) -> str:
            """Do it."""

    rollout = await attempt(Bad())
    assert "a schema needs named parameters" in rollout.failure.error


@pytest.mark.slow
async def test_author_code_has_no_hold_on_the_process():
    """A tool that calls sys.exit, and a thread that never ends, are survived by the interpreter's own exit."""
    code = (
        "import asyncio, sys, threading\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from playground import Small, attempt\n"
        "class Stuck(Small):\n"
        "    def respond(self, ctx, reply): threading.Event().wait()\n"
        "class Quits(Small):\n"
        "    def respond(self, ctx, reply): sys.exit(9)\n"
        "print(asyncio.run(attempt(Quits())).failure.error)\n"
        "print(asyncio.run(attempt(Stuck(), timeout_s=0.1)).failure.boundary)\n"
    )
    here = str(Path(__file__).parent)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, here, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    assert "called sys.exit(9)" in out.decode()
    assert out.decode().endswith("timeout\n")


# --- what no record can hold --------------------------------------------------------------------------------------


def nested(self, ctx, reply):
    ctx.messages.append({"role": "user"})
    ctx.messages[-1]["content"] = ctx.messages


@pytest.mark.parametrize(
    ("respond", "says"),
    [
        (lambda self, ctx, reply: {"role": "user", "content": object()}, "epilogue must be JSON of the right types: "),
        (lambda self, ctx, reply: {"role": "user", "content": np.int64(3)}, "numpy.int64 is unsupported"),
        (lambda self, ctx, reply: {"role": "user", "content": {1: "x"}}, "Only dicts with str keys are supported"),
        (lambda self, ctx, reply: ["not", "messages"], "epilogue must be JSON of the right types: Expected `object`"),
        (nested, "epilogue must be JSON of the right types: "),
        (lambda self, ctx, reply: ctx.task.info.update(seen=object()), "task must be JSON of the right types: "),
        (raising(RolloutError("x", blame="model"))[0], "failure must be JSON of the right types: "),
    ],
    ids=["object", "numpy", "keys", "texts", "nested", "task", "blame"],
)
async def test_it_fails_its_rollout_and_can_be_recorded(respond, says, tmp_path):
    def sometimes(self, ctx, reply):
        return respond(self, ctx, reply) if ctx.task.answer == "1" else None

    log = RolloutLog(tmp_path)
    env = overriding("respond", sometimes)
    env.max_turns = 1
    groups = await run(env, tasks=3, max_retries=1, on_rollout=log.append)
    log.close()
    assert [len(group.scored) for group in groups] == [1, 0, 1]
    failed = [rollout for rollout in log.read(verify=True) if rollout.failure]
    assert [rollout.seeds.attempt for rollout in failed] == [0, 1]
    for rollout in failed:
        assert (rollout.failure.boundary, rollout.failure.blame) == ("environment", "environment")
        assert says in rollout.failure.error
        assert (rollout.stop, rollout.rewards, rollout.reply) == ("failed", [], "ok")


async def test_why_a_loop_ended_is_text(tmp_path):
    class Custom(Small):
        async def run(self, ctx):
            await super().run(ctx)
            ctx.stop = 3

    log = RolloutLog(tmp_path)
    rollout = await attempt(Custom(), on_rollout=log.append)
    assert "stop must be JSON of the right types: Expected `str`, got `int`" in rollout.failure.error
    assert list(log) == [rollout]


async def test_the_text_of_an_object_is_kept(tmp_path):
    log = RolloutLog(tmp_path)
    env = overriding("respond", lambda self, ctx, reply: {"role": "user", "content": np.int64(3)})
    rollout = await attempt(env, on_rollout=log.append)  # the model is never called with such a message
    why = "Encoding objects of type numpy.int64 is unsupported"
    assert rollout.failure.error == f"TypeError: {why}; epilogue must be JSON of the right types: {why}"
    assert rollout.epilogue == [{"role": "user", "content": "3"}]
    assert list(log) == [rollout]


async def test_an_option_may_be_any_object(tmp_path):
    class Searching(Small):
        def __init__(self, index):
            self.index = index

    log = RolloutLog(tmp_path)
    rollout = await attempt(Searching(len), on_rollout=log.append)
    assert (rollout.failure, rollout.environment.options) == (None, {"index": "<built-in function len>"})
    assert list(log) == [rollout]


async def test_half_of_a_surrogate_pair_is_no_failure(tmp_path):
    log = RolloutLog(tmp_path)
    env = overriding("respond", lambda self, ctx, reply: "\ud800")
    rollout = await attempt(env, on_rollout=log.append)
    assert rollout.failure is None
    assert [kept.epilogue[-1]["content"] for kept in log] == ["\\ud800"]


@pytest.mark.slow
async def test_workers_fail_the_same_rollouts(tmp_path):
    (tmp_path / "odd.py").write_text(
        "import ludus\n"
        "class Odd(ludus.Environment):\n"
        "    def tasks(self, split):\n"
        "        return [ludus.Task(prompt='a')]\n"
        "    def respond(self, ctx, reply):\n"
        "        return {'role': 'user', 'content': len}\n"
    )
    env = load_environment(str(tmp_path / "odd.py"))
    here, there = await attempt(env), await attempt(env, workers=1)
    assert (here.failure.error, here.epilogue) == (there.failure.error, there.epilogue)
    assert "Encoding objects of type builtin_function_or_method is unsupported; epilogue must be" in here.failure.error


async def test_a_stop_string_alone_is_one_stop_string():
    class Stops(Small):
        async def run(self, ctx):
            await ctx.model.chat(ctx.task.messages(), stop="END")

    (group,) = await run(Stops())
    assert group.rollouts[0].calls[0].sampling.stop == ("END",)


async def test_sampling_of_the_wrong_type_fails_the_rollout():
    class Wrong(Small):
        async def run(self, ctx):
            await ctx.model.chat(ctx.task.messages(), temperature="hot")

    (group,) = await run(Wrong())
    assert "Expected `float`, got `str` - at `$.temperature`" in group.rollouts[0].failure.error
    assert group.rollouts[0].failure.blame == "environment"


# --- group scorers ------------------------------------------------------------------------------------------------


async def test_a_failure_of_the_policy_earns_nothing_from_a_group_scorer():
    class Shortest(Small):
        failure_reward = -1.0

        def respond(self, ctx, reply):
            if ctx.random.random() < 0.5:
                raise RolloutError("crashed", "tool", "policy")

        @ludus.reward
        def all_alike(self, group):
            return [1.0 for _ in group]

    (group,) = await run(Shortest(), size=16)
    assert {rollout.reward for rollout in group.rollouts} == {-1.0, 2.0}
    assert {rollout.reward for rollout in group.rollouts if rollout.failure} == {-1.0}


@pytest.mark.slow
async def test_a_group_scorer_that_hangs_is_cut_off():
    class Slow(Small):
        @ludus.reward
        async def compare(self, group):
            await asyncio.Event().wait()

    (group,) = await run(Slow(), size=2, timeout_s=1.0)
    assert all("scoring the group took more than 1.0 s" in rollout.failure.error for rollout in group.rollouts)


ODD = """
import ludus

class Odd(ludus.Environment):
    max_turns = 1
    def tasks(self, split):
        return [ludus.Task(prompt="?")]
    def respond(self, ctx, reply):
        return [{"role": "user", "content": ODD}]
    @ludus.reward
    def fine(self, rollout):
        return 1.0
"""


@pytest.mark.parametrize("odd", [r'"\ud800"', "object()"])
async def test_what_can_not_leave_a_worker_fails_its_rollout(odd, tmp_path):
    (tmp_path / "odd.py").write_text(ODD.replace("ODD", odd))
    (group,) = await run(load_environment(str(tmp_path / "odd.py")), workers=1)
    assert (group.rollouts[0].failure.boundary, group.rollouts[0].failure.blame) == ("environment", "environment")

"""Play the environments of one stack, with the interpreter that has it: right answers earn 1, wrong ones nothing.

    python -m benchmarks.authoring.check ludus_envs
    INTERPRETER -m benchmarks.authoring.check inspect_tasks

Where a file asks for a container, the stack's own way of running on this machine stands in: what is checked is the file.
"""

from __future__ import annotations

import asyncio
import sys
import types
from typing import Any

from benchmarks.authoring.count import HERE

CODE = "```python\ndef f(x): return 2 * x\n```"
GUESSES = ["what?", "2", "9", "3"]
GREET = "echo hello Ann > greeting.txt"


def ludus_envs() -> None:
    """Through the scheduler, with a model of messages that says what it is told."""
    import ludus
    from ludus.testing.scripted import Scripted

    def earned(name: str, *replies: Any) -> float:
        env = ludus.load_environment(str(HERE / "ludus_envs" / f"{name}.py"))
        backend: Any = _Says(replies) if any(isinstance(reply, dict) for reply in replies) else None
        turns = lambda messages: sum(message["role"] == "assistant" for message in messages)  # noqa: E731
        model = backend or Scripted("script", lambda messages: replies[min(turns(messages), len(replies) - 1)])
        return ludus.evaluate(env, model, split="train", num_tasks=1, progress=lambda row: None).mean

    def buy(item: str) -> Any:
        return ludus.calls_tool("buy", item=item)

    _expect("single_turn", earned("single_turn", "elppa"), earned("single_turn", "apple"))
    _expect("tools_with_state", earned("tools_with_state", buy("tea"), buy("gold"), buy("soap"), "done"),
            earned("tools_with_state", buy("hat"), "done"))  # fmt: skip
    _expect("game", earned("game", *GUESSES), earned("game", "1"))
    _expect("tested_code", earned("tested_code", CODE), earned("tested_code", "def f(x): return 0"))
    shell = ludus.calls_tool("shell", command=GREET)
    _expect("command_line", earned("command_line", shell, "done"), earned("command_line", "done"))


class _Says:
    """A model of messages and texts, one after another."""

    name = "script"

    def __init__(self, replies: Any) -> None:
        self._replies = replies

    async def complete(self, messages: Any, tools: Any, sampling: Any) -> Any:
        from ludus.renderers.parsing import tool_calls_of
        from ludus.types import Reply

        said = self._replies[sum(message["role"] == "assistant" for message in messages)]
        message = said if isinstance(said, dict) else {"role": "assistant", "content": said}
        called = tool_calls_of(message)
        return Reply(message, called, "tool_calls" if called else "stop")


def verifiers_v1() -> None:
    """Tasks and rewards; on a subprocess instead of a container. Its loops are played by tests of `verifiers:`."""
    import verifiers.v1 as vf
    from verifiers.v1.runtimes.subprocess import SubprocessRuntime

    modules = _modules("verifiers_v1", "single_turn", "tools_with_state", "game", "tested_code", "command_line")

    def first(kind: str, taskset: str, config: str) -> Any:
        module = modules[kind]
        return next(iter(getattr(module, taskset)(getattr(module, config)(id=kind))))

    def said(text: str) -> Any:
        return types.SimpleNamespace(last_reply=text)

    async def check() -> None:
        word = first("single_turn", "BackwardTaskset", "BackwardConfig")
        _expect("single_turn", await word.correct(said("elppa")), await word.correct(said("apple")))
        cart = first("tools_with_state", "CartTaskset", "CartConfig")
        filled, empty = (types.SimpleNamespace(state=types.SimpleNamespace(items=i)) for i in (["tea", "soap"], []))
        _expect("tools_with_state", await cart.bought(filled), await cart.bought(empty))
        guess = first("game", "GuessTaskset", "GuessConfig")
        _expect("game", await guess.found(said("3")), await guess.found(said("1")))
        runtime = SubprocessRuntime(vf.SubprocessConfig())
        await runtime.start()
        code = first("tested_code", "MultiplyTaskset", "MultiplyConfig")
        right, wrong = [await code.passed(said(text), runtime) for text in (CODE, "def f(x): return 0")]
        _expect("tested_code", right, wrong)
        greeting = first("command_line", "GreetingTaskset", "GreetingConfig")
        before = await greeting.greeted(runtime)
        await runtime.write("greeting.txt", b"hello Ann\n")
        _expect("command_line", await greeting.greeted(runtime), before)
        await runtime.stop()

    asyncio.run(check())


def inspect_tasks() -> None:
    """Through its own `eval`, with its mock model, in its local sandbox."""
    import tempfile

    import tiktoken
    from inspect_ai import eval as evaluate
    from inspect_ai.model import ModelOutput, get_model

    # its mock model counts tokens with a table that it would fetch from the network
    table = {bytes([byte]): byte for byte in range(256)}
    tiktoken.get_encoding = lambda name: tiktoken.Encoding(
        "bytes", pat_str=r"[\s\S]", mergeable_ranks=table, special_tokens={}
    )
    names = {"single_turn": "backward", "tools_with_state": "cart", "game": "guess", "tested_code": "multiply",
             "command_line": "greeting"}  # fmt: skip
    modules = _modules("inspect_tasks", *names)

    def say(text: str) -> Any:
        return ModelOutput.from_content("mockllm/model", text)

    def call(tool: str, **arguments: Any) -> Any:
        return ModelOutput.for_tool_call("mockllm/model", tool, arguments)

    def earned(kind: str, *outputs: Any) -> float:
        task = getattr(modules[kind], names[kind])()
        model = get_model("mockllm/model", custom_outputs=list(outputs))
        local = {"sandbox": "local"} if task.sandbox else {}
        with tempfile.TemporaryDirectory() as logs:
            (log,) = evaluate(task, model=model, limit=1, log_dir=logs, display="none", **local)
        assert log.status == "success", log.error
        return float(next(iter(log.results.scores[0].metrics.values())).value)

    _expect("single_turn", earned("single_turn", say("elppa")), earned("single_turn", say("apple")))
    bought = [call("buy", item=item) for item in ("tea", "gold", "soap")]
    _expect("tools_with_state", earned("tools_with_state", *bought, say("done")), earned("tools_with_state", say("-")))
    _expect("game", earned("game", *map(say, GUESSES)), earned("game", *[say("1")] * 6))
    _expect("tested_code", earned("tested_code", say(CODE)), earned("tested_code", say("def f(x): return 0")))
    greeted = earned("command_line", call("shell", command=GREET), say("done"))
    _expect("command_line", greeted, earned("command_line", say("done")))


def openenv_servers() -> None:
    """The environments behind its servers, step by step."""
    from openenv.core.env_server.mcp_types import CallToolAction

    modules = _modules("openenv_servers", "single_turn", "tools_with_state", "game", "tested_code")

    def earned(kind: str, env: str, action: str, *texts: str) -> float:
        world = getattr(modules[kind], env)()
        world.reset(seed=0)
        return float([world.step(getattr(modules[kind], action)(text=text)) for text in texts][-1].reward)

    async def bought(*items: str) -> float:
        world = modules["tools_with_state"].Cart()
        world.reset(seed=0)
        actions = [CallToolAction(tool_name="buy", arguments={"item": item}) for item in items]
        return float([await world.step_async(action) for action in actions][-1].reward)

    replies = [earned("single_turn", "Backward", "Reply", text) for text in ("elppa", "apple")]
    _expect("single_turn", *replies)
    _expect("tools_with_state", asyncio.run(bought("tea", "gold", "soap")), asyncio.run(bought("hat")))
    _expect("game", earned("game", "Guess", "Number", *GUESSES), earned("game", "Guess", "Number", *["1"] * 6))
    codes = [earned("tested_code", "Multiply", "Reply", text) for text in (CODE, "def f(x): return 0")]
    _expect("tested_code", *codes)


def _modules(stack: str, *kinds: str) -> dict[str, Any]:
    from importlib import import_module

    sys.path.insert(0, str(HERE / stack))
    return {kind: import_module(kind) for kind in kinds}


def _expect(kind: str, right: float, wrong: float) -> None:
    assert (right, wrong) == (1.0, 0.0), f"{kind}: a right answer earned {right}, a wrong one {wrong}"
    print(f"ok  {kind}")


STACKS = {check.__name__: check for check in (ludus_envs, verifiers_v1, inspect_tasks, openenv_servers)}

if __name__ == "__main__":
    STACKS[sys.argv[1]]()

"""A whole command-line agent: model -> tool -> result, until the model has nothing more to do.

    python -m ludus.agents.tiny "Make the tests in this folder pass."
    python -m ludus.agents.tiny --file task.txt

It knows nothing of training: it talks to the model at OPENAI_BASE_URL with OPENAI_API_KEY, as OPENAI_MODEL. What the
model says goes to stdout, what the tools do to stderr. Exit status: 0 when the model was done, 3 when it had no turns
left, 1 when the model could not be reached.
"""

# ruff: noqa: T201 - a program prints

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

SYSTEM = "You are an agent in a folder of a Linux machine. Use your tools; when the task is done, say so without one."
MOST_CHARACTERS = 8_000  # of a tool's result that the model sees


def shell(command: str, timeout_s: float) -> str:
    """Run a command in a shell."""
    return run(["sh", "-c", command], timeout_s)


def python(code: str, timeout_s: float) -> str:
    """Run a Python program."""
    return run([sys.executable, "-c", code], timeout_s)


def edit(path: str, old: str, new: str) -> str:
    """Replace the one place where a file has the text `old`; where `old` is empty, write the file anew."""
    file = Path(path)
    if not old:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(new, encoding="utf-8")
        return f"wrote {path}"
    text = file.read_text(encoding="utf-8")
    if text.count(old) != 1:
        raise ValueError(f"the text to replace is in {path} {text.count(old)} times, not once")
    file.write_text(text.replace(old, new), encoding="utf-8")
    return f"changed {path}"


def run(argv: list[str], timeout_s: float) -> str:
    """Output and exit status. The child has no key: what a model wrote runs in it."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment,
        start_new_session=True,
    ) as child:  # fmt: skip
        try:
            output, _ = child.communicate(timeout=timeout_s)
            end = f"exit status {child.returncode}"
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)  # whatever it started too: that would hold the pipe open
            output, _ = child.communicate()
            end = f"killed after {timeout_s:g} s"
    return f"{output.decode(errors='replace')}\n[{end}]"


TOOLS: dict[str, tuple[Callable[..., str], list[str]]] = {  # with the texts that each takes
    "shell": (shell, ["command"]),
    "python": (python, ["code"]),
    "edit": (edit, ["path", "old", "new"]),
}


def schema(name: str) -> dict[str, Any]:
    """A tool as the model is told of it."""
    function, arguments = TOOLS[name]
    properties = {argument: {"type": "string"} for argument in arguments}
    parameters = {"type": "object", "properties": properties, "required": arguments}
    described = {"name": name, "description": function.__doc__, "parameters": parameters}
    return {"type": "function", "function": described}


def use(call: dict[str, Any], timeout_s: float) -> str:
    """The result of a tool call; whatever goes wrong is told to the model."""
    name = call["function"]["name"]
    try:
        function, wanted = TOOLS[name]
        arguments = {argument: str(json.loads(call["function"]["arguments"])[argument]) for argument in wanted}
        result = function(**arguments) if name == "edit" else function(**arguments, timeout_s=timeout_s)
    except (OSError, ValueError, LookupError, TypeError) as error:
        result = f"Error: {type(error).__name__}: {error}"
    half = MOST_CHARACTERS // 2
    return result if len(result) <= MOST_CHARACTERS else f"{result[:half]}\n[...]\n{result[-half:]}"


def ask(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The model's next message. Raises OSError, ValueError."""
    address = os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1").rstrip("/")
    body = {"model": os.environ.get("OPENAI_MODEL", "default"), "messages": messages, "tools": [*map(schema, TOOLS)]}
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', '')}"}
    request = urllib.request.Request(f"{address}/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as response:
        message: dict[str, Any] = json.load(response)["choices"][0]["message"]
    return message


def work(task: str, turns: int, timeout_s: float) -> bool:
    """Whether the model says that it is done before its turns are used up."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": task}]
    for _ in range(turns):
        reply = ask(messages)
        messages.append(reply)
        if reply.get("content"):
            print(reply["content"], flush=True)
        calls = reply.get("tool_calls") or []
        for call in calls:
            result = use(call, timeout_s)
            print(f"{call['function']['name']} {call['function']['arguments']}\n{result}", file=sys.stderr, flush=True)
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
        if not calls:
            return True
    return False


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ludus.agents.tiny", description="A small command-line agent.")
    parser.add_argument("task", nargs="?", help="what to do")
    parser.add_argument("--file", type=Path, help="read the task from a file")
    parser.add_argument("--turns", type=int, default=20, help="replies of the model (20)")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds that a tool may take (60)")
    options = parser.parse_args()
    if (options.task is None) == (options.file is None):
        parser.error("give the task, or --file with the task in it")
    try:
        task = options.task if options.file is None else options.file.read_text(encoding="utf-8")
        return 0 if work(task, options.turns, options.timeout) else 3
    except urllib.error.HTTPError as error:
        print(f"tiny: the model refused: {error}: {error.read()[:500].decode(errors='replace')}", file=sys.stderr)
    except (OSError, ValueError, LookupError) as error:
        print(f"tiny: {type(error).__name__}: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

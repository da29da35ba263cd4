"""An MCP server of the standard library alone: it starts in no time, and fails in ways that the SDK prevents.

`python bare_server.py [a line to print first]`; it speaks the handshake of 2025-11-25 only.
"""

import json
import os
import subprocess
import sys
import time

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
counted = 0
waiting = []
"""Requests that are answered all at once, when there are as many as they ask for."""


def text(value):
    return {"content": [{"type": "text", "text": str(value)}]}


def count(arguments):
    global counted
    counted += 1
    return text(counted)


def crash(arguments):
    print("first words", file=sys.stderr)
    print(f"out of cheese, redo from {os.environ.get('TOKEN')}", file=sys.stderr, flush=True)
    os._exit(3)


def stray(arguments):
    print("this is no message\n\n[1]\n{}", flush=True)
    return text("said")


def close_output(arguments):
    os.close(1)
    time.sleep(3600)


def error(code):
    def raise_it(arguments):
        raise RuntimeError(code, f"not so ({code})")

    return raise_it


TOOLS = {
    "add": lambda arguments: text(arguments["a"] + arguments["b"]),
    "count": count,
    "pid": lambda arguments: text(os.getpid()),
    "child": lambda arguments: text(subprocess.Popen(["sleep", "600"]).pid),
    "token": lambda arguments: text(os.environ.get("TOKEN")),
    "refuse": lambda arguments: {**text(f"not with {os.environ.get('TOKEN')}"), "isError": True},
    "meet": lambda arguments: None,
    "hang": lambda arguments: None,
    "block": lambda arguments: time.sleep(3600),
    "crash": crash,
    "stray": stray,
    "close_output": close_output,
    "bad_parameters": error(-32602),
    "own_error": error(-32603),
    "lie": lambda arguments: {**text("x"), "structuredContent": {"number": "not one"}},
    "nonsense": lambda arguments: {"content": "nonsense"},
    "long": lambda arguments: text("x" * arguments["a"]),
}
OUTPUT = {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}


def listed(name):
    tool = {"name": name, "description": f"It is called {name}.", "inputSchema": SCHEMA}
    return {**tool, "outputSchema": OUTPUT} if name == "lie" else tool


def send(message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def answer(request):
    method, params = request["method"], request.get("params", {})
    if method == "initialize":
        info = {"name": "bare", "version": "1"}
        version = params["protocolVersion"]
        return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
    if method == "tools/list":
        names = list(TOOLS)  # two pages of them
        return (
            {"tools": [listed(name) for name in names[5:]]}
            if params.get("cursor")
            else {"tools": [listed(name) for name in names[:5]], "nextCursor": "5"}
        )
    if method == "tools/call":
        return TOOLS[params["name"]](params["arguments"])
    raise RuntimeError(-32601, "no such method")


if __name__ == "__main__":
    for line in sys.argv[1:]:
        print(line, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "id" not in request:
            continue
        try:
            result = answer(request)
        except RuntimeError as problem:
            code, message = problem.args
            send({"id": request["id"], "error": {"code": code, "message": message}})
            continue
        if result is not None:
            send({"id": request["id"], "result": result})
        elif request["params"]["name"] == "meet":
            waiting.append(request["id"])
            if len(waiting) == request["params"]["arguments"]["a"]:
                for number in waiting:
                    send({"id": number, "result": text("met")})

"""Recorded conversations, for the tests: a shop's assistant with one tool, in OpenAI's format."""

import gzip
import json
from pathlib import Path

TOOL = {
    "type": "function",
    "function": {
        "name": "get_price", "description": "What a thing costs.",
        "parameters": {"type": "object", "properties": {"item": {"type": "string"}}, "required": ["item"]},
    },
}  # fmt: skip


def called(name, arguments, id="c1"):
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {"role": "assistant", "content": None, "tool_calls": [
        {"id": id, "type": "function", "function": {"name": name, "arguments": text}}]}  # fmt: skip


def result(text, id="c1"):
    return {"role": "tool", "tool_call_id": id, "content": text}


def said(text):
    return {"role": "assistant", "content": text}


def asked(text):
    return {"role": "user", "content": text}


def talk(number, **more):
    """A conversation of two turns, another one for each number."""
    item, price = f"thing {number}", str(100 + number)
    messages = [
        {"role": "system", "content": "You sell things."}, asked(f"What does {item} cost?"),
        called("get_price", {"item": item}), result(price), said(f"The {item} costs {price} cents."),
        asked("Thanks. And the colour?"), said(f"I don't know the colour of {item}, sorry."),
    ]  # fmt: skip
    return {"messages": messages, "tools": [TOOL], **more}


def write(path: Path, rows) -> Path:
    """A file of traces; texts and bytes are written as they are."""
    lines = [
        row if isinstance(row, bytes) else (row if isinstance(row, str) else json.dumps(row)).encode() for row in rows
    ]
    data = b"\n".join(lines) + b"\n"
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path

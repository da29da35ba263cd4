"""Where a conversation stands in a record: messages or items, bare or in a logged request and its answer."""

from __future__ import annotations

from typing import Any

from ludus.programs.traces.streams import put_together, unpacked

_PACKED = ("request", "body", "input", "response", "output")
"""Fields that some logs keep as text."""


class Unusable(ValueError):
    """Why a line gives no task."""


def parts_of(row: Any) -> tuple[list[Any], list[Any], dict[str, Any]]:
    """Messages and tools of a record in the form of chat completions, and the object that may have a signal.

    The answer of a logged request is one more message. Raises Unusable where there are no messages.
    """
    if isinstance(row, list):
        row = {"messages": row}
    if not isinstance(row, dict):
        raise Unusable("no JSON object")
    row = {name: unpacked(value) if name in _PACKED else value for name, value in row.items()}
    request = next((row[name] for name in ("request", "body", "input") if isinstance(row.get(name), dict)), row)
    messages = _list(request, "messages") or _list(request, "input")
    if isinstance(request.get("input"), str):
        messages = [{"role": "user", "content": request["input"]}]
    if not messages:
        raise Unusable("no list of messages")
    if any(isinstance(message, dict) and "messages" in message for message in messages):
        raise Unusable("several conversations in one line: write each on a line of its own")
    if isinstance(request.get("instructions"), str):
        messages = [{"role": "system", "content": request["instructions"]}, *messages]
    if not (isinstance(messages[-1], dict) and messages[-1].get("role") == "assistant"):
        messages = [*messages, *_answer(row)]
    return _without_items(messages), _tools(request, row), row


def _answer(row: dict[str, Any]) -> list[Any]:
    """What was replied to a logged request, if it is there."""
    answer: Any = next((row[name] for name in ("response", "output") if isinstance(row.get(name), dict | list)), row)
    if isinstance(answer, dict):
        body = unpacked(answer.get("body"))
        answer = body if isinstance(body, dict | list) else answer
    if isinstance(answer, list):
        streamed = put_together(answer)
        return answer if streamed is None else streamed
    choices = _list(answer, "choices")
    if choices and isinstance(choices[0], dict) and choices[0].get("message"):
        return [choices[0]["message"]]
    if answer.get("role") == "assistant":
        return [answer]
    return [answer["message"]] if isinstance(answer.get("message"), dict) else _list(answer, "output")


def _without_items(messages: list[Any]) -> list[Any]:
    """Calls and results that are items of their own, as the Responses API has them, as messages; thoughts are left out."""
    if not any(isinstance(message, dict) and "role" not in message for message in messages):
        return messages
    found: list[Any] = []
    for item in messages:
        kind = item.get("type") if isinstance(item, dict) else None
        if kind == "function_call":
            call = {"id": item.get("call_id"), "function": {name: item.get(name) for name in ("name", "arguments")}}
            own = found and isinstance(found[-1], dict) and found[-1].get("role") == "assistant"
            reply: dict[str, Any] = found.pop() if own else {"role": "assistant", "content": None}
            found.append({**reply, "tool_calls": [*_list(reply, "tool_calls"), call]})
        elif kind == "function_call_output":
            found.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": item.get("output")})
        elif str(kind).endswith("_call"):  # of the API's own tools, such as a search: told of where calls are read
            found.append({"role": "assistant", "content": None, "tool_calls": [{"type": kind}]})
        elif kind != "reasoning":
            found.append(item)
    return found


def _tools(request: dict[str, Any], row: dict[str, Any]) -> list[Any]:
    """What was offered, each under "function"; older requests and responses have them bare."""
    offered = _list(request, "tools") or _list(row, "tools") or _list(request, "functions")
    return [
        {"type": "function", "function": tool} if isinstance(tool, dict) and "function" not in tool else tool
        for tool in offered
    ]


def _list(value: dict[str, Any], name: str) -> list[Any]:
    found = value.get(name)
    return found if isinstance(found, list) else []

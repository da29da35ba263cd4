"""One recorded conversation: read from a line, in the forms that OpenAI's API and its logs have, and mended.

Mended means: images and files become a note, results without a call and calls without a result are left out, so are calls
whose arguments are no JSON, and text is text. What is left is a conversation that any chat API would take.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ludus.authoring.labels import Verdict, has_signal, signal_of
from ludus.programs.traces.forms import Unusable, parts_of
from ludus.types import Message

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool",
         "function": "tool"}  # fmt: skip
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


@dataclass
class Conversation:
    """A conversation whose reply can be asked for."""

    opening: list[Message]
    """Up to the first reply to what the user said; an assistant's greeting is a part of it."""
    rest: list[Message]
    """From that reply to the last, results of its tool calls included."""
    tools: list[Any]
    """Schemas as they were recorded."""
    verdict: Verdict | None = None
    """What the product's signal said."""
    why: str = ""
    mended: Counter[str] = field(default_factory=Counter)
    """What was left out or changed, counted by its kind."""


def read(line: bytes) -> Conversation:
    """Read and mend one line. Raises Unusable."""
    messages, tools, row = parts_of(_json(line))
    mended: Counter[str] = Counter()
    talk = _Mender(mended).mend(messages)
    asked = next((i for i, message in enumerate(talk) if message["role"] == "user" and message["content"]), None)
    if asked is None:
        raise Unusable("nothing that a user said")
    replies = [i for i, message in enumerate(talk) if i > asked and message["role"] in ("assistant", "tool")]
    if not replies:
        calls = mended["tool calls without a result"]
        raise Unusable("no reply but calls without a result" if calls else "no reply of an assistant")
    first, last = replies[0], replies[-1]
    why = next((row[name] for name in ("why", "reason", "comment") if isinstance(row.get(name), str)), "")
    verdict = signal_of(row)
    if verdict is None and has_signal(row):
        mended["signals that say neither good nor bad: write accepted, true or false, instead"] += 1
    return Conversation(talk[:first], talk[first : last + 1], tools, verdict, why, mended)


def _json(line: bytes) -> Any:
    """Raises Unusable, with what is likely to be wrong."""
    try:
        return _decode(line)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        pass
    try:
        return json.loads(line.decode())  # which takes the NaN that Python writes
    except UnicodeDecodeError:
        raise Unusable("text in another encoding than UTF-8") from None
    except (ValueError, RecursionError):
        spread = line.strip() in (b"[", b"{")
        raise Unusable("JSON over several lines: write each conversation on one" if spread else "no JSON") from None


class _Mender:
    """Makes a conversation of whatever was recorded, and counts what it had to change."""

    def __init__(self, mended: Counter[str]) -> None:
        self._mended = mended
        self._talk: list[Message] = []
        self._reply_at = -1
        """Where the last reply stands, while results of its calls may come; -1 otherwise."""
        self._open: list[tuple[Any, dict[str, Any]]] = []
        """Its calls without a result yet, behind the ids that they were recorded with, if any; some may be the same."""
        self._num_calls = 0

    def mend(self, messages: list[Any]) -> list[Message]:
        """Raises Unusable."""
        for message in messages:
            role = ROLES.get(str(message.get("role"))) if isinstance(message, dict) else None
            if role is None:
                raise Unusable("a message without a role that is known")
            if role == "tool":
                self._result(message)
                continue
            self._settle()
            if role == "assistant":
                self._reply(message)
            else:
                self._said(role, self._text(message.get("content")))
        self._settle()
        return self._talk

    def _said(self, role: str, text: str) -> None:
        before = self._talk[-1]["role"] if self._talk else ""
        replied = any(message["role"] == "assistant" for message in self._talk)
        if before == "tool" and role == "user":
            raise Unusable("a user who speaks before the assistant has made something of a tool's result")
        if replied and role == "system":
            self._mended["instructions in mid-conversation"] += 1
        elif replied and before == "user":
            self._talk[-1]["content"] += f"\n\n{text}"
        else:
            self._talk.append({"role": role, "content": text})

    def _reply(self, message: dict[str, Any]) -> None:
        calls = message.get("tool_calls")
        if not isinstance(calls, list):
            legacy = message.get("function_call")
            calls = [{"function": legacy}] if isinstance(legacy, dict) else []
        for call in calls:
            mended = self._call(call)
            if mended is not None:
                self._open.append((call.get("id"), mended))
        reply: Message = {"role": "assistant", "content": self._text(message.get("content") or message.get("refusal"))}
        if self._open:
            reply["tool_calls"] = [call for _, call in self._open]
        if self._talk and self._talk[-1]["role"] == "assistant":  # said in two messages what is one turn
            reply["content"] = "\n\n".join(filter(None, [self._talk.pop()["content"], reply["content"]]))
        self._reply_at = len(self._talk)
        self._talk.append(reply)

    def _call(self, call: Any) -> dict[str, Any] | None:
        function = call.get("function") if isinstance(call, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(name, str) or not name:
            kind = call.get("type", "function") if isinstance(call, dict) else "function"
            other = f"tool calls of another kind: {str(kind)[:40]}"
            self._mended["tool calls without a name" if kind == "function" else other] += 1
            return None
        arguments = function.get("arguments")
        try:
            value = _decode(arguments or "{}") if isinstance(arguments, str) else arguments or {}
        except (msgspec.MsgspecError, RecursionError, UnicodeEncodeError):
            value = None
        if not isinstance(value, dict):
            self._mended["tool calls whose arguments are no JSON object"] += 1
            return None
        self._num_calls += 1
        mended = {"name": name, "arguments": _encode(value).decode()}
        return {"id": f"call_{self._num_calls}", "type": "function", "function": mended}

    def _result(self, message: dict[str, Any]) -> None:
        id, name = message.get("tool_call_id"), message.get("name")
        for place, (recorded, call) in enumerate(self._open):  # the older format names the function instead
            if id == recorded if id else not name or name == call["function"]["name"]:
                del self._open[place]
                break
        else:
            self._mended["tool results without a call"] += 1
            return
        text, name = self._text(message.get("content")), call["function"]["name"]
        self._talk.append({"role": "tool", "tool_call_id": call["id"], "name": name, "content": text})

    def _settle(self) -> None:
        """Leave out calls that were never answered, and a reply of which nothing is left."""
        if self._reply_at < 0:
            return
        reply = self._talk[self._reply_at]
        if self._open:
            self._mended["tool calls without a result"] += len(self._open)
            left = [call["id"] for _, call in self._open]
            answered = [call for call in reply.pop("tool_calls") if call["id"] not in left]
            reply |= {"tool_calls": answered} if answered else {}
        if not reply["content"] and "tool_calls" not in reply:
            self._mended["empty replies"] += 1
            del self._talk[self._reply_at]
        self._reply_at, self._open = -1, []

    def _text(self, content: Any) -> str:
        """Content as text; of parts that are none, a note."""
        if content is None or isinstance(content, str):
            return content or ""
        if not isinstance(content, list):
            return _encode(content).decode()
        texts = []
        for part in content:
            kind = str(part.get("type")) if isinstance(part, dict) else ""
            if kind.startswith("tool_"):
                raise Unusable("calls or results of tools as parts of a message, which is another API's format")
            text = part.get("text", part.get("refusal")) if isinstance(part, dict) else part
            if not isinstance(text, str):
                what = "image" if "image" in kind else "audio" if "audio" in kind else "file"
                self._mended[f"parts that are no text: {what}"] += 1
                text = f"[{what} left out]"
            texts.append(text)
        return "\n".join(texts)

"""Replies of most templates: reasoning between two tags, then text with tool calls in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ludus.renderers.formats.base import Call, CallSyntax, Malformed, Tools, as_tool_calls
from ludus.types import FinishReason, Message


@dataclass(frozen=True)
class Tags:
    """What stands before and after reasoning."""

    open: str
    close: str


@dataclass(frozen=True)
class TaggedFormat:
    """Reasoning between tags, or None; tool calls in a syntax, or None. With neither, a reply is plain text."""

    thinking: Tags | None = None
    calls: CallSyntax | None = None

    @property
    def calls_style(self) -> str:
        return self.calls.name if self.calls else ""

    @property
    def thinking_style(self) -> str:
        return self.thinking.open.strip() if self.thinking else ""

    def opened_by(self, prompt: str) -> bool:
        return self.thinking is not None and prompt[-100:].rstrip().endswith(self.thinking.open.rstrip())

    def without_empty_thinking(self, text: str) -> str:
        if self.thinking is None or not text.startswith(self.thinking.open):
            return text
        thought, _, rest = text.removeprefix(self.thinking.open).partition(self.thinking.close)
        return text if thought.strip() else rest.lstrip("\n")

    def parse(
        self, text: str, *, opened: bool = False, tools: Tools = (), finish_reason: FinishReason = "stop"
    ) -> tuple[Message, str]:
        message: Message = {"role": "assistant"}
        thought, text = self._split_thinking(text, opened)
        if thought is not None:
            message["reasoning_content"] = thought
        message["content"] = text
        if self.calls is None:
            return message, ""
        try:
            content, calls = self.calls.read(text, tools)
        except Malformed as problem:
            return message, problem.explain(self.calls.form, finish_reason)
        if calls:
            message["content"], message["tool_calls"] = content, as_tool_calls(calls)
        return message, ""

    def _split_thinking(self, text: str, opened: bool) -> tuple[str | None, str]:
        """Reasoning and the text after it. A block that is not closed is all reasoning."""
        if self.thinking is None:
            return None, text
        tag = self.thinking.open
        if not opened:
            stripped = text.lstrip()
            if not stripped.startswith(tag):
                return None, text
            text = stripped.removeprefix(tag)
        thought, closed, rest = text.partition(self.thinking.close)
        # A model may open the block that the prompt has opened already.
        return thought.removeprefix(tag).strip("\n"), rest.lstrip("\n") if closed else ""


@dataclass(frozen=True)
class TaggedCalls:
    """Calls in blocks between two tags.

    Args:
        name, form: see `CallSyntax`.
        open, close: the tags.
        read_block: the calls in the text between them. Raises Malformed.
    """

    name: str
    form: str
    open: str
    close: str
    read_block: Callable[[str, Tools], list[Call]]

    def read(self, text: str, tools: Tools) -> tuple[str, list[Call]]:
        """See `CallSyntax`. White space between two blocks is not content."""
        start = text.find(self.open)
        if start < 0:
            return text, []
        calls: list[Call] = []
        content = text[:start].removesuffix("\n")
        while start >= 0:
            begin = start + len(self.open)
            end = text.find(self.close, begin)
            if end < 0:
                raise Malformed(f"the tag {self.close} is missing", len(calls), unfinished=True)
            try:
                calls += self.read_block(text[begin:end], tools)
            except Malformed as problem:
                problem.number += len(calls)
                raise
            after = end + len(self.close)
            start = text.find(self.open, after)
            between = text[after:] if start < 0 else text[after:start].removesuffix("\n")
            content += between if between.strip() else ""
        return content, calls

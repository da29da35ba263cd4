"""`RemoteBackend`: any OpenAI-compatible API behind a model. Messages, usage and cost are known, tokens are not.

Retries are made here rather than by the client library: they are bounded, they cover answers that are not what was
promised (proxies answer with HTML, connections end half-way), and they end in one error that says what happened.
Connections close with the event loop that they belong to, which the caller of a program never sees.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from email.utils import mktime_tz, parsedate_tz
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import msgspec

from ludus.errors import Blame, ModelCallFailed, UsageError
from ludus.redaction import SECRETS
from ludus.renderers.parsing import REASONING_FIELDS, tool_calls_of
from ludus.types import FinishReason, Message, Reply, Sampling, Usage

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

OPENAI_URL = "https://api.openai.com/v1"
MAX_WAIT_S = 60.0

_FINISH: dict[str, FinishReason] = {"length": "length", "tool_calls": "tool_calls"}


class RemoteBackend:
    """A model behind an OpenAI-compatible API.

    Args:
        name: the model's name there.
        base_url: the API's address, usually ending in /v1; None is OPENAI_BASE_URL, or else OpenAI's own.
        api_key: None is OPENAI_API_KEY.
        max_retries: attempts after the first.
        timeout_s: of one attempt.
        price: US dollars per million prompt tokens and per million completion tokens, for `Usage.cost`.
        sleep: waits between attempts; takes seconds.

    Raises:
        UsageError: neither a key nor an address is known.
    """

    def __init__(
        self,
        name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        max_retries: int = 5,
        timeout_s: float = 120.0,
        price: tuple[float, float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.name = name
        address = base_url or os.environ.get("OPENAI_BASE_URL")
        self.base_url = (address or OPENAI_URL).rstrip("/")
        self._key = api_key or os.environ.get("OPENAI_API_KEY") or ""
        SECRETS.add(self._key, urlsplit(self.base_url).password or "")
        if not self._key and not address:
            raise UsageError(
                f"the model {name!r} at {self.base_url} needs a key: set OPENAI_API_KEY, or give the address of an API "
                f"that needs none (base_url, or OPENAI_BASE_URL)"
            )
        self._max_retries = max_retries
        self._timeout_s = timeout_s
        self._price = price or (0.0, 0.0)
        self._sleep = sleep
        self._open: tuple[asyncio.AbstractEventLoop, AsyncOpenAI, AsyncGenerator[AsyncOpenAI, None]] | None = None

    async def complete(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], sampling: Sampling) -> Reply:
        """The next reply.

        Raises:
            ModelCallFailed: the API refused the request (at once), or gave no proper answer after all retries.
        """
        request = _request(messages, tools, sampling, is_openai=self.base_url == OPENAI_URL)
        began = time.perf_counter()
        for attempt in range(self._max_retries + 1):
            waited_s = time.perf_counter() - began if attempt else 0.0
            try:
                return self._reply(await self._post(request), waited_s)
            except _Failed as error:
                failed = error
            if not failed.may_pass or attempt == self._max_retries:
                break
            try:
                await self._sleep(_wait_s(attempt, failed.retry_after_s))
            except asyncio.CancelledError as error:
                error.add_note(self._explain(failed, attempt + 1))  # for whoever waits no longer
                raise
        raise ModelCallFailed(self._explain(failed, attempt + 1), failed.blame)

    async def open(self) -> None:
        """Make the client now: the first one takes a second, which would be part of the time of the first calls."""
        await self._connect()

    async def close(self) -> None:
        """Close the connections now, rather than with the event loop."""
        if self._open is not None:
            (_, _, lifetime), self._open = self._open, None
            await lifetime.aclose()

    async def _post(self, request: dict[str, Any]) -> bytes:
        """One attempt: the body of a successful answer. Raises _Failed."""
        import httpx2
        import openai

        client = await self._connect()
        try:
            async with asyncio.timeout(self._timeout_s):
                body = {"model": self.name, **request}
                response = await client.post("/chat/completions", body=body, cast_to=httpx2.Response)
                return response.content
        except (TimeoutError, openai.APITimeoutError):
            raise _Failed(f"no answer within {self._timeout_s:g} s") from None
        except openai.APIStatusError as error:
            raise _from_status(error) from None
        except openai.APIError as error:
            raise _Failed(f"{error} ({error.__cause__!r})" if error.__cause__ else str(error)) from None

    async def _connect(self) -> AsyncOpenAI:
        """The client of this event loop; connections can't move to another."""
        loop = asyncio.get_running_loop()
        if self._open is None or self._open[0] is not loop:
            lifetime = self._lifetime()
            self._open = (loop, await anext(lifetime), lifetime)
        return self._open[1]

    async def _lifetime(self) -> AsyncGenerator[AsyncOpenAI, None]:
        """Yields a client and then closes it: an event loop that ends sees asynchronous generators to their end."""
        from openai import AsyncOpenAI

        from ludus.recording.connections import async_client

        client = AsyncOpenAI(
            base_url=self.base_url, api_key=self._key or "none", max_retries=0, timeout=self._timeout_s,
            http_client=async_client(self.base_url),
        )  # fmt: skip
        try:
            yield client
        finally:
            await client.close()

    def _reply(self, content: bytes, waited_s: float) -> Reply:
        """The answer's reply. Raises _Failed where it is not a chat completion."""
        try:
            body = msgspec.json.decode(content, type=_Body)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            shown = content[:200].decode(errors="replace")
            raise _Failed(f"the answer is not a chat completion ({error}): {shown!r}") from None
        choice = body.choices[0]
        message = choice.message.read()
        calls = tool_calls_of(message)
        finish = "tool_calls" if calls and choice.finish_reason != "length" else choice.finish_reason
        usage = Usage(
            body.usage.prompt_tokens,
            body.usage.completion_tokens,
            (body.usage.prompt_tokens * self._price[0] + body.usage.completion_tokens * self._price[1]) / 1e6,
        )  # fmt: skip
        return Reply(message, calls, _FINISH.get(finish or "", "stop"), usage, waited_s=waited_s)

    def _explain(self, failed: _Failed, attempts: int) -> str:
        tries = "" if attempts == 1 else f" after {attempts} attempts"
        return SECRETS.hide(f"the model {self.name!r} at {self.base_url} did not answer{tries}: {failed}")


class _Failed(Exception):
    """One attempt failed."""

    def __init__(
        self, text: str, *, may_pass: bool = True, retry_after_s: float = 0.0, blame: Blame = "infrastructure"
    ) -> None:
        super().__init__(text)
        self.may_pass, self.retry_after_s, self.blame = may_pass, retry_after_s, blame


class _Function(msgspec.Struct):
    name: str
    arguments: str = "{}"


class _Call(msgspec.Struct):
    function: _Function
    id: str = ""


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_Call] | None = None

    def read(self) -> Message:
        message: Message = {"role": "assistant"}
        if thought := self.reasoning_content or self.reasoning:
            message["reasoning_content"] = thought
        message["content"] = self.content or self.refusal or ""
        if self.tool_calls:
            message["tool_calls"] = [
                {"id": call.id or f"call_{i}", "type": "function", "function": msgspec.to_builtins(call.function)}
                for i, call in enumerate(self.tool_calls)
            ]
        return message


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Body(msgspec.Struct):
    """What is read of a chat completion; APIs add fields of their own."""

    choices: Annotated[list[_Choice], msgspec.Meta(min_length=1)]
    usage: _Usage = msgspec.field(default_factory=_Usage)


def _request(
    messages: Sequence[Message], tools: Sequence[dict[str, Any]], sampling: Sampling, *, is_openai: bool
) -> dict[str, Any]:
    """The request's fields. Reasoning is not sent back: most APIs ignore it and some refuse it."""
    request: dict[str, Any] = {
        "messages": [{k: v for k, v in message.items() if k not in REASONING_FIELDS} for message in messages],
        "temperature": sampling.temperature,
    }
    if is_openai and sampling.temperature == 1:
        del request["temperature"]  # the default there, and OpenAI's reasoning models refuse the field
    if tools:
        request["tools"] = list(tools)
    if sampling.top_p < 1:
        request["top_p"] = sampling.top_p
    if sampling.max_tokens is not None:
        request["max_completion_tokens" if is_openai else "max_tokens"] = sampling.max_tokens
    if sampling.stop:
        request["stop"] = list(sampling.stop)
    if sampling.seed is not None:
        request["seed"] = sampling.seed
    own = {"top_k": sampling.top_k, "stop_token_ids": list(sampling.stop_token_ids)}  # vLLM's and others' additions
    return request | {name: value for name, value in own.items() if value}


def _from_status(error: APIStatusError) -> _Failed:
    status = error.status_code
    text = f"status {status}: {error.message[:500]}"
    if status in (408, 409, 425, 429) or status >= 500:
        spent = error.code == "insufficient_quota"  # OpenAI says 429 for it too, but waiting does not help
        return _Failed(text, may_pass=not spent, retry_after_s=_retry_after_s(error.response.headers))
    return _Failed(
        text, may_pass=False, blame="policy" if error.code == "context_length_exceeded" else "infrastructure"
    )


def _retry_after_s(headers: Any) -> float:
    """The Retry-After header, seconds or a date, as seconds from now; 0.0 if there is none."""
    value = headers.get("retry-after") or ""
    try:
        return max(0.0, float(value))
    except ValueError:
        date = parsedate_tz(value)
        return 0.0 if date is None else max(0.0, mktime_tz(date) - time.time())


def _wait_s(attempt: int, retry_after_s: float) -> float:
    """Exponential backoff with jitter, from 0.25-0.5 s, and no less than the server asked for; a minute at most."""
    backoff = 0.5 * 2.0**attempt * random.uniform(0.5, 1.0)
    return min(MAX_WAIT_S, max(backoff, retry_after_s))

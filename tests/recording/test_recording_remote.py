"""The remote backend against a real server on the loopback interface that fails in every way servers do."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable

import pytest

from ludus.errors import ModelCallFailed, UsageError
from ludus.recording.backend import MessageBackend
from ludus.recording.remote import RemoteBackend
from ludus.types import Sampling, Usage

ASK = [{"role": "user", "content": "2 + 2?"}]
KEY = "sk-secret"


def completion(message=None, finish_reason="stop", **fields):
    choice = {"index": 0, "message": message or {"role": "assistant", "content": "4"}, "finish_reason": finish_reason}
    return {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], **fields}


def answer(status, body, **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [
        f"HTTP/1.1 {status} X",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
        "Connection: close",
    ]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


OK = answer(200, completion(usage={"prompt_tokens": 1_000_000, "completion_tokens": 500_000}))
HANG = None


class Server:
    """Answers the i-th request with the i-th answer, and the last one from then on; keeps what it was asked."""

    def __init__(self, *answers):
        self.answers = answers
        self.requests = []
        self.connections = set()
        self.waits = []

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_):
        self.server.close()
        await self.backend.close()
        await asyncio.gather(*self.connections)
        await self.server.wait_closed()

    async def serve(self, reader, writer):
        self.connections.add(asyncio.current_task())
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:  # the client gave up before it had asked
            writer.close()
            return
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        self.requests.append((head.decode(), json.loads(await reader.readexactly(length))))
        response = self.answers[min(len(self.requests), len(self.answers)) - 1]
        if response is HANG:
            await reader.read()  # until the client gives up
        else:
            writer.write(response)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def wait(self, seconds):
        self.waits.append(seconds)

    async def ask(self, messages=ASK, tools=(), sampling=Sampling(), **options):  # noqa: B008 - frozen
        self.backend = RemoteBackend("m", self.url, KEY, **{"sleep": self.wait, **options})
        return await self.backend.complete(messages, tools, sampling)


async def test_an_answer():
    async with Server(OK) as server:
        reply = await server.ask(price=(2.0, 10.0))
        assert reply.message == {"role": "assistant", "content": "4"}
        assert (reply.finish_reason, reply.usage) == ("stop", Usage(1_000_000, 500_000, 7.0))
        assert isinstance(server.backend, MessageBackend)
    head, body = server.requests[0]
    assert head.startswith("POST /v1/chat/completions")
    assert f"authorization: bearer {KEY}" in head.lower()
    assert body == {"model": "m", "messages": ASK, "temperature": 1.0}


async def test_what_is_sent():
    messages = [*ASK, {"role": "assistant", "content": "4", "reasoning_content": "hm"}, *ASK]
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    sampling = Sampling(temperature=0, top_p=0.5, top_k=3, max_tokens=7, stop=("a",), stop_token_ids=(5,), seed=1)
    async with Server(OK) as server:
        await server.ask(messages, [tool], sampling)
    assert server.requests[0][1] == {
        "model": "m",
        "messages": [*ASK, {"role": "assistant", "content": "4"}, *ASK],
        "tools": [tool],
        "temperature": 0,
        "top_p": 0.5,
        "top_k": 3,
        "max_tokens": 7,
        "stop": ["a"],
        "stop_token_ids": [5],
        "seed": 1,
    }


async def test_tool_calls_and_reasoning():
    calls = [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
        {"id": "b", "type": "function", "function": {"name": "f", "arguments": '{"x": '}},
    ]
    message = {"role": "assistant", "content": None, "reasoning": "hm", "tool_calls": calls}
    async with Server(answer(200, completion(message, "tool_calls"))) as server:
        reply = await server.ask()
    assert reply.finish_reason == "tool_calls"
    assert reply.message == {"role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": calls}
    assert reply.tool_calls[0].arguments == {"x": 1}
    assert reply.tool_calls[1].arguments is None
    assert "not valid JSON" in reply.tool_calls[1].error


@pytest.mark.parametrize(
    ("given", "read"),
    [("stop", "stop"), ("length", "length"), ("content_filter", "stop"), (None, "stop"), ("something", "stop")],
)
async def test_finish_reasons(given, read):
    async with Server(answer(200, completion(finish_reason=given))) as server:
        assert (await server.ask()).finish_reason == read


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(answer(429, {"error": {"message": "slow down"}}), id="429"),
        pytest.param(answer(500, {"error": {"message": "oops"}}), id="500"),
        pytest.param(answer(503, b"<html>"), id="503"),
        pytest.param(answer(200, b"<html>"), id="html"),
        pytest.param(answer(200, b'{"choices": ['), id="half of the JSON"),
        pytest.param(answer(200, {"choices": []}), id="no choices"),
        pytest.param(answer(200, {"error": "x"}), id="another object"),
        pytest.param(answer(200, b"[" * 100_000), id="deep"),
        pytest.param(answer(200, b"\xff\xfe"), id="bytes"),
        pytest.param(answer(200, completion({"tool_calls": [{"function": {}}]})), id="nameless call"),
        pytest.param(OK[:-10], id="truncated"),
        pytest.param(b"", id="closed"),
        pytest.param(b"nonsense\r\n\r\n", id="not HTTP"),
    ],
)
async def test_what_passes_is_tried_again(first):
    async with Server(first, first, OK) as server:
        assert (await server.ask()).text == "4"
    assert len(server.requests) == 3
    assert 0.25 <= server.waits[0] <= 0.5 <= server.waits[1] <= 1.0


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        ("7", 7, 7),
        ("0", 0.25, 0.5),
        ("3600", 60, 60),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.25, 0.5),
        ("soon", 0.25, 0.5),
    ],
)
async def test_the_server_s_wait_is_respected(value, low, high):
    async with Server(answer(429, {}, Retry_After=value), OK) as server:
        await server.ask()
    assert low <= server.waits[0] <= high


async def test_a_server_that_hangs():
    async with Server(HANG) as server:
        with pytest.raises(ModelCallFailed, match=r"after 2 attempts: no answer within 0\.05 s"):
            await server.ask(timeout_s=0.05, max_retries=1)
    assert len(server.waits) == 1  # on a busy machine a client may give up before the server has read its request


async def test_a_server_that_is_down():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
    waits: list[float] = []
    backend = RemoteBackend("m", url, KEY, max_retries=8, sleep=recorded(waits))
    with pytest.raises(
        ModelCallFailed, match=f"'m' at {url} did not answer after 9 attempts: Connection error"
    ) as caught:
        await backend.complete(ASK, (), Sampling())
    assert caught.value.blame == "infrastructure"
    assert len(waits) == 8
    assert max(waits) <= 60
    await backend.close()


async def test_who_gives_up_between_attempts_is_told_why_they_failed():
    waiting = asyncio.Event()

    async def sleep(seconds: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    async with Server(answer(500, {"error": {"message": "disk full"}})) as server:
        server.backend = RemoteBackend("m", server.url, KEY, sleep=sleep)
        asked = asyncio.create_task(server.backend.complete(ASK, (), Sampling()))
        await waiting.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await asked
    assert "disk full" in caught.value.__notes__[0]


def recorded(waits: list[float]) -> Callable[[float], object]:
    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    return sleep


async def test_errors_end_with_status_and_text():
    async with Server(answer(500, {"error": {"message": "disk full"}})) as server:
        with pytest.raises(ModelCallFailed, match=r"after 3 attempts: status 500.*disk full"):
            await server.ask(max_retries=2)


@pytest.mark.parametrize(
    ("status", "error", "blame"),
    [
        (401, {"message": f"bad key {KEY}"}, "infrastructure"),
        (404, {"message": "no such model"}, "infrastructure"),
        (429, {"message": "pay", "code": "insufficient_quota"}, "infrastructure"),
        (400, {"message": "too long", "code": "context_length_exceeded"}, "policy"),
    ],
)
async def test_refusals_fail_at_once(status, error, blame):
    async with Server(answer(status, {"error": error})) as server:
        with pytest.raises(ModelCallFailed, match=f"did not answer: status {status}") as caught:
            await server.ask()
    assert len(server.requests) == 1
    assert caught.value.blame == blame
    assert KEY not in str(caught.value)


def test_one_backend_serves_several_event_loops():
    async def ask_twice(backend):
        async with Server(OK) as server:
            server.backend = RemoteBackend("m", server.url, KEY)  # closed in place of the one that lives on
            backend.base_url = server.url
            return (await backend.complete(ASK, (), Sampling())).text

    backend = RemoteBackend("m", "http://127.0.0.1:1/v1", KEY, max_retries=0)
    assert [asyncio.run(ask_twice(backend)) for _ in range(2)] == ["4", "4"]


def test_connections_close_with_their_event_loop():
    """One thread serves one connection, which it keeps open until the client closes it."""
    closed = threading.Event()

    def serve(listening):
        connection, _ = listening.accept()
        with connection:
            while not connection.recv(1 << 16).endswith(b"}"):
                pass
            connection.sendall(OK.replace(b"Connection: close", b"Connection: keep-alive"))
            if not connection.recv(1):
                closed.set()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=[listening], daemon=True)
        thread.start()
        backend = RemoteBackend("m", f"http://127.0.0.1:{listening.getsockname()[1]}/v1", KEY)
        assert asyncio.run(backend.complete(ASK, (), Sampling())).text == "4"
        assert closed.wait(5)
        thread.join()


def test_a_missing_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(UsageError, match=r"'gpt' at https://api\.openai\.com/v1 needs a key: set OPENAI_API_KEY"):
        RemoteBackend("gpt")
    assert RemoteBackend("gpt", "http://localhost:1/v1").base_url == "http://localhost:1/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:2/v1")
    assert RemoteBackend("gpt").base_url == "http://localhost:2/v1"
    monkeypatch.delenv("OPENAI_BASE_URL")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert RemoteBackend("gpt").base_url == "https://api.openai.com/v1"

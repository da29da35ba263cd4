"""Connections to an API, against a real server on the loopback interface."""

import asyncio
import gzip
import socket

import httpx2
import pytest

from ludus.recording.connections import Direct, async_client


class Last(bytes):
    """An answer after which the server closes, though it does not say so."""


class Server:
    """Answers every request with the next of the answers, on connections that it keeps open."""

    def __init__(self, *answers):
        self.answers, self.connections, self.asked = list(answers), 0, []

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        self.client = async_client(self.url)
        return self

    async def __aexit__(self, *exc):
        await self.client.aclose()
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader, writer):
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                self.asked.append((head.split()[1].decode(), await reader.readexactly(sum(length))))
                await asyncio.sleep(0)
                answer = self.answers.pop(0)
                writer.write(answer)
                if isinstance(answer, Last) or b"connection: close" in answer:
                    break
        except asyncio.IncompleteReadError:
            pass
        writer.close()


def answer(body, *headers, status="200 OK"):
    return "\r\n".join([f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers]).encode() + b"\r\n\r\n" + body


async def test_a_connection_serves_one_call_after_another():
    async with Server(*[answer(b"one")] * 3) as server:
        for _ in range(3):
            assert (await server.client.post(server.url, content=b"x")).text == "one"
        assert server.connections == 1 and server.asked == [("/v1", b"x")] * 3


@pytest.mark.slow
async def test_calls_side_by_side_have_one_each():
    async with Server(*[answer(b"one")] * 300) as server:
        answers = await asyncio.gather(*(server.client.post(server.url, content=b"x") for _ in range(300)))
        assert {each.text for each in answers} == {"one"} and server.connections <= 300


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n", id="chunks"),
        pytest.param(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\none", id="until it closes"),
        pytest.param(answer(gzip.compress(b"one"), "content-encoding: gzip"), id="gzip"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"one"), id="100 first"),
    ],
)
async def test_ways_to_send_a_body(said):
    async with Server(said, answer(b"two")) as server:
        assert (await server.client.post(server.url, content=b"x")).text == "one"
        assert (await server.client.post(server.url, content=b"x")).text == "two"


async def test_a_redirect_is_followed():
    async with Server(answer(b"", "location: /v2", status="307 Temporary Redirect"), answer(b"there")) as server:
        assert (await server.client.post(server.url, content=b"x")).text == "there"
        assert server.asked == [("/v1", b"x"), ("/v2", b"x")]


async def test_a_connection_that_the_server_closed_is_not_used_again():
    async with Server(answer(b"one", "connection: close"), answer(b"two")) as server:
        assert (await server.client.post(server.url, content=b"x")).text == "one"
        assert (await server.client.post(server.url, content=b"x")).text == "two"
        assert server.connections == 2


@pytest.mark.parametrize("said", [b"", b"nonsense\r\n\r\n", answer(b"one")[:-2]])
async def test_no_answer_is_an_error(said):
    async with Server(Last(said)) as server:
        with pytest.raises(httpx2.RemoteProtocolError):
            await server.client.post(server.url, content=b"x")


async def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    async with async_client(url) as client:
        with pytest.raises(httpx2.ConnectError):
            await client.post(url)
        with pytest.raises(httpx2.UnsupportedProtocol):
            await client.post("ftp://127.0.0.1/")


async def test_a_call_that_is_cancelled_takes_its_connection_along():
    async with Server(answer(b"one"), answer(b"two")) as server:
        call = asyncio.create_task(server.client.post(server.url, content=b"x"))
        while not server.asked:
            await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (await server.client.post(server.url, content=b"x")).text == "two" and server.connections == 2


def test_a_proxy_is_used_where_the_environment_names_one(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)

    def direct(url):
        return any(isinstance(transport, Direct) for transport in async_client(url)._mounts.values())

    assert direct("https://api.example.com/v1")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    assert not direct("https://api.example.com/v1") and direct("http://api.example.com/v1")
    monkeypatch.setenv("no_proxy", "example.com")
    assert direct("https://api.example.com/v1")

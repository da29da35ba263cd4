"""What a model call costs through a rollout's address, and what a thousand streams at once leave in memory.

The clients run in a process of their own, so that the server's CPU time (sockets, HTTP, JSON, events, recording) and
theirs are known apart. Beside it stands the same call in process. The model answers at once; each rollout has five turns of
one conversation.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.results import Limit, Section, Table
from ludus.engine.fake import FakeEngine, fake_renderer
from ludus.recording.backend import TokenBackend
from ludus.recording.gateway import Gateway
from ludus.recording.model import RecordedModel
from ludus.recording.recorder import Recorder
from ludus.types import MAIN_ROLE, Message, user

TURNS, ROLLOUTS, IN_FLIGHT, STREAMS, ROUNDS = 5, 100, 16, 1000, 5
REPLY = "a reply of some forty characters, no more"
LIMIT_MS = 2.0
LEFT_MIB = 10.0
"""By which a thousand streams, over and over, may make the process grow."""
PATHS = ("chat/completions", "responses", "messages")
PLAIN, OPENAI = "plain HTTP", "openai"


class Slow(FakeEngine):
    """Waits between tokens, so that all streams are open at once."""

    async def sample(self, request):
        async for chunk in super().sample(request):
            await asyncio.sleep(0.02)
            yield chunk


def new_rollout(gateway: Gateway, engine: FakeEngine) -> RecordedModel:
    backend = TokenBackend("fake", engine, fake_renderer())
    return RecordedModel(Recorder({MAIN_ROLE: backend}), MAIN_ROLE, gateway)


async def over_rollouts(count: int, in_flight: int, play: Callable[[], Awaitable[None]]) -> float:
    """CPU milliseconds a model call."""
    limit = asyncio.Semaphore(in_flight)

    async def one() -> None:
        async with limit:
            await play()

    began = time.process_time()
    await asyncio.gather(*(one() for _ in range(count)))
    return 1000 * (time.process_time() - began) / (count * TURNS)


async def in_process(gateway: Gateway) -> None:
    """The default loop's way."""
    model = new_rollout(gateway, FakeEngine(lambda prompt, rng: REPLY, context=100_000))
    messages: list[Message] = [user("go")]
    for _ in range(TURNS):
        reply = await model.chat(messages)
        messages += [reply.message, user("on")]
    model.close()


async def over_http(gateway: Gateway, path: str, stream: bool, client: str) -> tuple[float, float]:
    """CPU milliseconds a call: of this process, and of the clients in theirs."""
    models = [new_rollout(gateway, FakeEngine(lambda prompt, rng: REPLY, context=100_000)) for _ in range(ROLLOUTS)]
    addresses = [(model.base_url, model.api_key) for model in models]
    began = time.process_time()
    theirs = await asking(addresses, path, stream, TURNS, IN_FLIGHT, client)
    cost = 1000 * (time.process_time() - began) / (ROLLOUTS * TURNS)
    assert all(len(model.recorder.calls) == TURNS and len(model.recorder.sequences) == 1 for model in models)
    for model in models:
        model.close()
    return cost, 1000 * theirs / (ROLLOUTS * TURNS)


async def many_streams(gateway: Gateway) -> tuple[int, list[float]]:
    """Streams that were open at once, and resident MiB after each round of a thousand."""
    sizes, engine = [], Slow(lambda prompt, rng: REPLY, context=100_000)
    most = 0
    for _ in range(ROUNDS):
        models = [new_rollout(gateway, engine) for _ in range(STREAMS)]
        addresses = [(model.base_url, model.api_key) for model in models]
        asked = asyncio.create_task(asking(addresses, "chat/completions", True, 1, STREAMS))
        while not asked.done():
            most = max(most, sum(model.recorder.waiting for model in models))
            await asyncio.sleep(0.05)
        await asked
        assert all(len(model.recorder.calls) == 1 for model in models)
        for model in models:
            model.close()
        engine.releases.clear()
        sizes.append(resident_mib())
    return most, sizes


async def asking(
    addresses: list[tuple[str, str]], path: str, stream: bool, turns: int, in_flight: int, client: str = PLAIN
) -> float:
    """Run the clients in a process of their own: the CPU seconds that asking took them."""
    job = {"addresses": addresses, "path": path, "stream": stream, "turns": turns, "in_flight": in_flight}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.address", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        env=os.environ,
    )  # fmt: skip
    said, _ = await process.communicate(json.dumps({**job, "client": client}).encode())
    assert process.returncode == 0
    return float(said)


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


# --- the clients' process -----------------------------------------------------------------------------------------


async def clients() -> None:
    """Speak as told on stdin, and print the CPU seconds that it took."""
    job = json.load(sys.stdin)
    limit = asyncio.Semaphore(job["in_flight"])
    speak = converse if job["client"] == PLAIN else through_openai

    async def one(url: str, key: str) -> None:
        async with limit:
            await speak(url, key, job["path"], job["stream"], job["turns"])

    if speak is through_openai:
        import openai  # noqa: F401 - not a part of any call
    began = time.process_time()
    await asyncio.gather(*(one(url, key) for url, key in job["addresses"]))
    print(time.process_time() - began)


async def through_openai(url: str, key: str, path: str, stream: bool, turns: int) -> None:
    """One rollout with OpenAI's client."""
    from openai import AsyncOpenAI

    messages: list[Message] = [user("go")]
    async with AsyncOpenAI(base_url=url, api_key=key, max_retries=0) as client:
        for _ in range(turns):
            answer = await client.chat.completions.create(model="m", messages=messages, stream=stream)
            if stream:
                async for _chunk in answer:
                    pass
            messages += [{"role": "assistant", "content": REPLY}, user("on")]


async def converse(url: str, key: str, path: str, stream: bool, turns: int) -> None:
    """One rollout over one connection: plain HTTP, so that no client library sets the pace."""
    host, _, prefix = url.removeprefix("http://").partition("/")
    reader, writer = await asyncio.open_connection(*host.split(":"))
    messages: list[Message] = [user("go")]
    for _ in range(turns):
        field = "input" if path == "responses" else "messages"
        body = {"model": "m", field: messages, "stream": stream, **({"max_tokens": 100} if path == "messages" else {})}
        content = json.dumps(body).encode()
        head = (
            f"POST /{prefix}/{path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        )
        writer.write(head.encode() + content)
        await read_answer(reader)
        messages += [{"role": "assistant", "content": REPLY}, user("on")]
    writer.close()


async def read_answer(reader: asyncio.StreamReader) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    assert head.startswith(b"http/1.1 200"), head
    if b"content-length: " in head:
        await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        return
    while size := int((await reader.readline()).strip(), 16):
        await reader.readexactly(size + 2)
    await reader.readline()


def measure(quick: bool) -> Section:
    """CPU milliseconds of a call, in process and over HTTP, and what streams leave in memory."""
    return asyncio.run(measured(2 if quick else 3))


async def measured(rounds: int) -> Section:
    """The section; each cost is the least of some rounds, taken in turn."""
    section, gateway = Section(), Gateway()
    ways = [(path, stream, PLAIN) for path in PATHS for stream in (False, True)]
    ways += [("chat/completions", False, OPENAI), ("chat/completions", True, OPENAI)]
    base, costs = float("inf"), dict.fromkeys(ways, (float("inf"), float("inf")))
    try:
        for _ in range(rounds):  # what is slow the first time is not the least
            base = min(base, await over_rollouts(ROLLOUTS, IN_FLIGHT, lambda: in_process(gateway)))
            for way in ways:
                costs[way] = min(costs[way], await over_http(gateway, *way))
        most, sizes = await many_streams(gateway)
    finally:
        await gateway.close()
    assert most == STREAMS, f"only {most} streams were open at once"
    rows: list[list[object]] = [["in process", "", base, 0.0, 0.0]]
    for (path, stream, client), (ours, theirs) in costs.items():
        name = f"{path}{', streaming' if stream else ''}"
        rows.append([name, client, ours, ours - base, theirs])
        if client == PLAIN:
            section.limits[f"CPU ms of a call over the one in process, {name}"] = Limit(ours - base, LIMIT_MS)
    columns = ["", "client", "server's CPU ms", "over in process", "client's CPU ms"]
    section.tables.append(Table("A model call through a rollout's address", columns, rows, NOTE))
    section.limits[f"MiB that {STREAMS:,} streams at once, {ROUNDS} times, leave in memory"] = Limit(
        sizes[-1] - sizes[0], LEFT_MIB
    )
    return section


NOTE = (
    f"{ROLLOUTS} rollouts of {TURNS} turns, {IN_FLIGHT} in flight, a model that answers at once; recorded. The server's "
    f"time is that of the process that plays; the clients are in another. The least of three rounds. "
    "OpenAI's client is a new one for each rollout."
)


if __name__ == "__main__":
    asyncio.run(clients())

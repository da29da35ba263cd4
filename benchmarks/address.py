"""What a model call costs through a rollout's address, and what a thousand streams at once leave in memory.

    python -m benchmarks.address

The clients run in a process of their own, so the CPU time is the server's alone: sockets, HTTP, JSON, events, recording.
Beside it stands the same call in process. The model answers at once; each rollout has five turns of one conversation.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from ludus.engine.fake import FakeEngine, fake_renderer
from ludus.recording.backend import TokenBackend
from ludus.recording.gateway import Gateway
from ludus.recording.model import RecordedModel
from ludus.recording.recorder import Recorder
from ludus.types import MAIN_ROLE, Message, user

TURNS, ROLLOUTS, IN_FLIGHT, STREAMS, ROUNDS = 5, 100, 16, 1000, 5
REPLY = "a reply of some forty characters, no more"
LIMIT_MS = 2.0
PATHS = ("chat/completions", "responses", "messages")


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


async def through_client(gateway: Gateway) -> None:
    """OpenAI's client without a socket: the client is in it."""
    model = new_rollout(gateway, FakeEngine(lambda prompt, rng: REPLY, context=100_000))
    messages: list[Message] = [user("go")]
    for _ in range(TURNS):
        answer = await model.openai.chat.completions.create(model="m", messages=messages)
        messages += [{"role": "assistant", "content": answer.choices[0].message.content}, user("on")]
    model.close()


async def over_http(gateway: Gateway, path: str, stream: bool) -> float:
    """CPU milliseconds a call of this process, with the clients in another."""
    models = [new_rollout(gateway, FakeEngine(lambda prompt, rng: REPLY, context=100_000)) for _ in range(ROLLOUTS)]
    addresses = [(model.base_url, model.api_key) for model in models]
    began = time.process_time()
    await asking(addresses, path, stream, TURNS, IN_FLIGHT)
    cost = 1000 * (time.process_time() - began) / (ROLLOUTS * TURNS)
    assert all(len(model.recorder.calls) == TURNS and len(model.recorder.sequences) == 1 for model in models)
    for model in models:
        model.close()
    return cost


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


async def asking(addresses: list[tuple[str, str]], path: str, stream: bool, turns: int, in_flight: int) -> None:
    """Run the clients in a process of their own."""
    job = json.dumps({"addresses": addresses, "path": path, "stream": stream, "turns": turns, "in_flight": in_flight})
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.address", "--clients", stdin=asyncio.subprocess.PIPE, env=os.environ
    )
    await process.communicate(job.encode())
    assert process.returncode == 0


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


# --- the clients' process -----------------------------------------------------------------------------------------


async def clients() -> None:
    """Speak as told on stdin: plain HTTP, so that no client library sets the pace."""
    job = json.load(sys.stdin)
    limit = asyncio.Semaphore(job["in_flight"])

    async def one(url: str, key: str) -> None:
        async with limit:
            await converse(url, key, job["path"], job["stream"], job["turns"])

    await asyncio.gather(*(one(url, key) for url, key in job["addresses"]))


async def converse(url: str, key: str, path: str, stream: bool, turns: int) -> None:
    """One rollout over one connection."""
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


async def measure() -> int:
    """Print what was measured; 1 where a call costs more than it may."""
    gateway = Gateway()
    try:
        await over_rollouts(20, IN_FLIGHT, lambda: in_process(gateway))
        base = await over_rollouts(ROLLOUTS, IN_FLIGHT, lambda: in_process(gateway))
        print(f"{'in process':34} {base:6.2f} ms CPU a call")
        await over_rollouts(5, IN_FLIGHT, lambda: through_client(gateway))
        cost = await over_rollouts(ROLLOUTS, IN_FLIGHT, lambda: through_client(gateway))
        print(f"{'OpenAI client in process':34} {cost:6.2f} ms CPU a call, the client's included")
        worst = 0.0
        for path in PATHS:
            for stream in (False, True):
                over = await over_http(gateway, path, stream) - base
                worst = max(worst, 0.0 if stream else over)
                print(f"{path + (', streaming' if stream else ''):34} {over:6.2f} ms CPU a call more")
        most, sizes = await many_streams(gateway)
        print(f"{most} streams at once; resident MiB after each round: {', '.join(f'{size:.0f}' for size in sizes)}")
    finally:
        await gateway.close()
    return int(worst > LIMIT_MS)


if __name__ == "__main__":
    if sys.argv[1:] == ["--clients"]:
        asyncio.run(clients())
    else:
        sys.exit(asyncio.run(measure()))

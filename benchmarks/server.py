"""`Server`: a side that is spoken to over HTTP, as anybody would: /v1/completions, token ids in, log-probabilities out."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.side import LAST_LINES, ROOT, WORK, Answer, SideFailed, ending, tree_cpu_s

READY_S = 300.0


class Server:
    """A server of one model on this machine.

    Args:
        name: of the side and of its log.
        command: that serves at `port`.
        port: free.
        model: its name in requests.
        env: environment variables beside those of this process.

    Raises:
        SideFailed: it ended, or was not ready in time.
    """

    def __init__(
        self, name: str, command: Sequence[str], port: int, model: str, env: Mapping[str, str] | None = None
    ) -> None:
        self.name, self._port, self._model = name, port, model
        log = WORK / "logs" / f"{name.replace(' ', '-').replace('/', '-')}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                command, cwd=WORK, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **(env or {})},
            )  # fmt: skip
        self.about: dict[str, Any] = {}
        deadline = time.monotonic() + READY_S
        while not self._healthy():
            if self._process.poll() is not None or time.monotonic() > deadline:
                last = "\n  ".join(log.read_text(errors="replace").splitlines()[-LAST_LINES:])
                self.close()
                raise SideFailed(f"{name} does not serve; the end of {log}:\n  {last}")
            time.sleep(0.5)

    def ask(self, *, prompts: Sequence[Sequence[int]], max_tokens: int) -> Answer:
        """Send all prompts at once and wait for all replies; `values` has the tokens that came back."""
        bodies = [
            json.dumps(
                {
                    "model": self._model,
                    "prompt": list(prompt),
                    "max_tokens": max_tokens,
                    "temperature": 1,
                    "logprobs": 0,
                }
            ).encode()
            for prompt in prompts
        ]
        began, cpu = time.perf_counter(), tree_cpu_s(self._process.pid)
        replies = asyncio.run(_post_all(self._port, bodies))
        wall, spent = time.perf_counter() - began, tree_cpu_s(self._process.pid) - cpu
        tokens = 0
        for reply in replies:
            answer = json.loads(reply)
            tokens += len(answer["choices"][0]["logprobs"]["token_logprobs"])
        return Answer(wall, spent, {"tokens": tokens})

    def close(self) -> None:
        """End it and its processes."""
        with ending(self._process.pid):
            try:
                os.killpg(self._process.pid, signal.SIGTERM)
                self._process.wait(20)
            except ProcessLookupError:
                pass
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


async def _post_all(port: int, bodies: Sequence[bytes]) -> list[bytes]:
    """The bodies of the answers. A client library would take more of the two cores than some servers do."""
    return await asyncio.gather(*(_post(port, body) for body in bodies))


async def _post(port: int, body: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
    answer = await reader.read(-1)
    writer.close()
    head_bytes, _, content = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head_bytes.partition(b"\r\n")[0]:
        raise SideFailed(f"expected status 200, got {answer[:500]!r}")
    if b"chunked" in head_bytes.lower():
        raise SideFailed("expected a body of known length, got chunks")
    return content

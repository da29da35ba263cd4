"""Sampling against vLLM (over HTTP and in process) and transformers' `generate`: 1, 32 and 128 requests at once."""

from __future__ import annotations

import random
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.models import SHAPES, model_folder
from benchmarks.peers import python_of
from benchmarks.results import Ratio, Section, Table
from benchmarks.server import Server
from benchmarks.side import Answer, Side, alternate, median

OURS, VLLM, TRANSFORMERS = "ludus", "vLLM", "transformers"
OVER_HTTP = "over HTTP"
CASES = {("4x256", "float32"): 128, ("4x256", "bfloat16"): 128, ("0.5B", "bfloat16"): 16}
"""Model and type: tokens of each reply."""
QUICK = {("4x256", "bfloat16"): 128}
REQUESTS = (1, 32, 128)
PROMPT_TOKENS = (8, 64)
CONTEXT = 1024
THREADS = 2
TARGETS = {VLLM: 1.0, TRANSFORMERS: 1.5}
VLLM_ENV = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
EAGER = False
"""vLLM compiles the model first, which is faster here."""


def measure(quick: bool) -> Section:
    """All sides in turn, per model, type, way and number of requests."""
    section, rows = Section(), []
    for (shape, dtype), max_tokens in (QUICK if quick else CASES).items():
        for way, make in ((OVER_HTTP, servers), ("in process", in_process)):
            with ExitStack() as stack:
                sides = [stack.enter_context(side) for side in make(shape, dtype)]
                for side in sides:
                    section.versions |= getattr(side, "about", {}).get("versions", {})
                for count in REQUESTS:
                    rounds = 1 if shape == "0.5B" else 3 if quick else 5
                    rates = measure_rates(sides, shape, count, max_tokens, rounds)
                    rows += [[shape, dtype, way, count, name, *figures] for name, figures in rates.items()]
                    for peer, target in TARGETS.items():
                        if peer in rates:
                            key = f"{shape} {dtype}, {count} requests {way}, against {peer}"
                            section.ratios[key] = Ratio(rates[OURS][0] / rates[peer][0], target)
    columns = ["model", "type", "way", "requests", "", "tokens/s", "CPU ms per 1,000 tokens"]
    section.tables.append(Table("Sampling", columns, rows, NOTE))
    return section


NOTE = (
    f"Requests sent at once with prompts of {PROMPT_TOKENS[0]}-{PROMPT_TOKENS[1]} tokens, none alike; temperature 1, "
    "log-probabilities of the sampled tokens on; prompts count in the time, not in the tokens. Replies have 128 tokens "
    f"(0.5B: 16). vLLM {'eager' if EAGER else 'compiled'}; transformers pads on the left and has {THREADS} threads. Over "
    "HTTP the client runs on the same cores."
)


def measure_rates(
    sides: list[Server] | list[Side], shape: str, count: int, max_tokens: int, rounds: int
) -> dict[str, list[float]]:
    """Tokens a second, and CPU milliseconds for a thousand, by side."""
    work = prompts(SHAPES[shape]["vocab_size"], count * (2 * rounds + 2))

    def ask(side: Server | Side) -> Answer:
        """Prompts are never sent twice: what a cache of prefixes saves is not compared here."""
        batch = [next(work) for _ in range(count)]
        if isinstance(side, Server):
            return side.complete(batch, max_tokens)
        return side.ask(prompts=batch, max_tokens=max_tokens)

    answers = alternate(sides, rounds, ask)
    print(
        count,
        {name: [round(a.values["tokens"] / a.wall_s) for a in a_s] for name, a_s in answers.items()},
        file=sys.stderr,
    )
    return {
        name: [
            median(a_s, lambda a: a.values["tokens"] / a.wall_s),
            median(a_s, lambda a: 1e6 * a.cpu_s / a.values["tokens"]),
        ]
        for name, a_s in answers.items()
    }


def prompts(vocab_size: int, seed: int) -> Iterator[list[int]]:
    """Random ids, of random lengths; none is a special token."""
    rng = random.Random(seed)
    while True:
        yield [rng.randrange(10, vocab_size) for _ in range(rng.randint(*PROMPT_TOKENS))]


def servers(shape: str, dtype: str) -> Iterator[Server]:
    """Ours and vLLM's, as their command lines start them."""
    folder = str(model_folder(shape, dtype))
    port = free_port()
    yield Server(OURS, [sys.executable, "-m", "ludus.cli", "serve", folder, "--port", str(port)], port, folder)
    port = free_port()
    command = [str(python_of("vllm")), "-m", "vllm.entrypoints.openai.api_server", "--model", folder, "--dtype", dtype]
    command += ["--port", str(port), "--max-model-len", str(CONTEXT), "--no-enable-prefix-caching"]
    command += ["--disable-log-stats", "--disable-uvicorn-access-log", *(["--enforce-eager"] if EAGER else [])]
    yield Server(VLLM, command, port, folder, VLLM_ENV)


def in_process(shape: str, dtype: str) -> Iterator[Side]:
    """Ours, vLLM's and transformers'."""
    folder = str(model_folder(shape, dtype))
    yield Side(OURS, "ludus_sampling.py", Path(sys.executable), {"model": folder})
    vllm = {"model": folder, "dtype": dtype, "context": CONTEXT, "eager": EAGER}
    yield Side(VLLM, "vllm_sampling.py", python_of("vllm"), vllm, VLLM_ENV)
    yield Side(
        TRANSFORMERS, "transformers_sampling.py", python_of("trl"),
        {"model": folder, "dtype": dtype, "threads": THREADS}, {"OMP_NUM_THREADS": str(THREADS)},
    )  # fmt: skip


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port

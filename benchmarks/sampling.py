"""Sampling against vLLM (over HTTP and in process) and transformers' `generate`: 1, 32 and 128 requests at once."""

from __future__ import annotations

import random
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.models import SHAPES, model_folder
from benchmarks.peers import python_of
from benchmarks.results import Ratio, Section, Table
from benchmarks.server import Server
from benchmarks.side import WORK, Answer, Side, alternate, median

OURS, VLLM, TRANSFORMERS = "ludus", "vLLM", "transformers"


@dataclass(frozen=True)
class Case:
    """A model, and what is asked of it."""

    shape: str
    dtype: str
    prompt_tokens: tuple[int, int]
    """Fewest and most."""
    reply_tokens: int
    rounds: int


CASES = (
    Case("4x256", "float32", (8, 64), 128, 4),
    Case("4x256", "bfloat16", (8, 64), 128, 4),
    Case("0.5B", "bfloat16", (4, 16), 8, 5),
)
QUICK = (Case("4x256", "bfloat16", (8, 64), 128, 2),)
REQUESTS = (1, 32, 128)
CONTEXT = 1024
THREADS = 2
TARGETS = {VLLM: 1.0, TRANSFORMERS: 1.5}
VLLM_ENV = {
    "VLLM_CACHE_ROOT": str(WORK / "vllm-cache"),
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
}
EAGER = False
"""vLLM compiles the model first, which is faster here."""


def measure(quick: bool) -> Section:
    """All sides in turn, per model, type, way and number of requests."""
    section, rows = Section(), []
    for case in QUICK if quick else CASES:
        for way, make in WAYS.items():
            with ExitStack() as stack:
                sides = [stack.enter_context(side) for side in make(case.shape, case.dtype)]
                for side in sides:
                    section.versions |= side.about.get("versions", {})
                for count in REQUESTS:
                    rates = measure_rates(sides, case, count)
                    about = [case.shape, case.dtype, way, count]
                    rows += [[*about, name, *figures] for name, figures in rates.items()]
                    for peer in [name for name in TARGETS if name in rates]:
                        key = f"{case.shape} {case.dtype}, {count} requests {way}, against {peer}"
                        section.ratios[key] = Ratio(rates[OURS][0] / rates[peer][0], TARGETS[peer])
    columns = ["model", "type", "way", "requests", "", "tokens/s", "CPU ms per 1,000 tokens"]
    section.tables.append(Table("Sampling", columns, rows, NOTE))
    return section


NOTE = (
    "Requests sent at once, their prompts of 8-64 tokens and never alike, replies of 128 (0.5B: 4-16, and 8); "
    "temperature 1, log-probabilities of the sampled tokens on; prompts count in the time, not in the tokens. "
    f"vLLM {'eager' if EAGER else 'compiled'}; transformers pads on the left and has {THREADS} threads. Over HTTP the "
    "client runs on the same cores, and a reply may end early by itself."
)


def measure_rates(sides: Sequence[Server | Side], case: Case, count: int) -> dict[str, list[float]]:
    """Tokens a second, and CPU milliseconds for a thousand, by side."""
    work = prompts(case, seed=count)

    def ask(side: Server | Side) -> Answer:
        """Prompts are never sent twice: what a cache of prefixes saves is not compared here."""
        batch = [next(work) for _ in range(count)]
        return side.ask(prompts=batch, max_tokens=case.reply_tokens)

    answers = alternate(sides, case.rounds, ask, warm_up=1)
    return {name: [median(given, _rate), median(given, _cpu_ms)] for name, given in answers.items()}


def _rate(answer: Answer) -> float:
    return float(answer.values["tokens"] / answer.wall_s)


def _cpu_ms(answer: Answer) -> float:
    return float(1e6 * answer.cpu_s / answer.values["tokens"])


def prompts(case: Case, seed: int) -> Iterator[list[int]]:
    """Random ids, of random lengths; none is a special token."""
    rng = random.Random(seed)
    while True:
        yield [rng.randrange(10, SHAPES[case.shape]["vocab_size"]) for _ in range(rng.randint(*case.prompt_tokens))]


def servers(shape: str, dtype: str) -> Iterator[Server | Side]:
    """Ours and vLLM's, as their command lines start them."""
    folder = str(model_folder(shape, dtype))
    port = free_port()
    yield Server(OURS, [sys.executable, "-m", "ludus", "serve", folder, "--port", str(port)], port, folder)
    port = free_port()
    command = [str(python_of("vllm")), "-m", "vllm.entrypoints.openai.api_server", "--model", folder, "--dtype", dtype]
    command += ["--port", str(port), "--max-model-len", str(CONTEXT), "--no-enable-prefix-caching"]
    command += ["--disable-log-stats", "--disable-uvicorn-access-log", *(["--enforce-eager"] if EAGER else [])]
    yield Server(VLLM, command, port, folder, VLLM_ENV)


def in_process(shape: str, dtype: str) -> Iterator[Server | Side]:
    """Ours, vLLM's and transformers'."""
    folder = str(model_folder(shape, dtype))
    yield Side(OURS, "ludus_sampling.py", Path(sys.executable), {"model": folder})
    vllm = {"model": folder, "dtype": dtype, "context": CONTEXT, "eager": EAGER}
    yield Side(VLLM, "vllm_sampling.py", python_of("vllm"), vllm, VLLM_ENV)
    yield Side(
        TRANSFORMERS, "transformers_sampling.py", python_of("trl"),
        {"model": folder, "dtype": dtype, "threads": THREADS}, {"OMP_NUM_THREADS": str(THREADS)},
    )  # fmt: skip


WAYS: dict[str, Callable[[str, str], Iterator[Server | Side]]] = {"over HTTP": servers, "in process": in_process}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port

"""On a GPU: sampling against transformers' continuous batching and the memory's bandwidth, training against what the
device can multiply, a GRPO step against TRL, and the switch between the two halves. Skips itself where there is none.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import training
from benchmarks.models import SHAPES, model_folder
from benchmarks.results import Limit, Ratio, Section, Table
from benchmarks.sampling import Case, measure_rates
from benchmarks.side import Side, alternate, median

OURS, TRANSFORMERS = "ludus", "transformers"
SHAPE, DTYPE, DEVICE = "0.5B", "bfloat16", "cuda"
REQUESTS, PROMPT_TOKENS, REPLY_TOKENS = (128, 256), (8, 64), 256
TRAINED_TOKENS, LENGTH = 4096, 1024
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}
"""Dense bfloat16 operations a second by the maker's sheet; of others the fastest product that is measured."""


def measure(quick: bool) -> Section:
    """Everything, or nothing where there is no GPU."""
    import torch

    section = Section()
    if not torch.cuda.is_available():
        print("no CUDA device: nothing to measure", file=sys.stderr)
        return section
    with Side(OURS, "ludus_colocated.py", Path(sys.executable), colocated_settings()) as side:
        section.versions |= side.about["versions"] | {"device": side.about["device"]}
        limits = side.ask(matmul=8192, read=1 << 30).values
        train(section, side, limits)
        seconds = side.ask(switch=20).values["seconds"]
        section.limits["ms to switch from sampling to training and back"] = Limit(1000 * seconds, 50)
    sample(section, limits["bandwidth"], 2 if quick else 5)
    grpo_step(section, 3 if quick else 7)
    return section


def colocated_settings() -> dict[str, Any]:
    """Of `ludus_colocated.py`."""
    return {"model": str(model_folder(SHAPE, DTYPE)), "device": DEVICE}


def train(section: Section, side: Side, limits: dict[str, float]) -> None:
    """Share of the device's operations that a forward and backward uses (MFU)."""
    seconds = side.ask(train=TRAINED_TOKENS, length=LENGTH).values["seconds"]
    peak = next((value for name, value in PEAKS.items() if name in side.about["device"]), limits["flops"])
    share = training_flops(TRAINED_TOKENS, LENGTH) / seconds / peak
    rows = [[TRAINED_TOKENS, LENGTH, 1000 * seconds, share, limits["flops"] / 1e12]]
    columns = ["packed tokens", "a sequence", "ms", "MFU", "matmul TFLOP/s here"]
    section.tables.append(Table("Training on a GPU", columns, rows, f"{SHAPE}, {DTYPE}; forward and backward."))
    section.ratios["training MFU against 40 %"] = Ratio(share / 0.4, 1.0)


def training_flops(tokens: int, length: int) -> float:
    """Of forward and backward: six for each weight that a token is multiplied with, and causal attention's."""
    from ludus.engine.torch.memory import active_parameters

    config = decoder_config()
    attention = 6 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * length
    return float(tokens * (6 * active_parameters(config) + attention))


def decoder_config() -> Any:
    """Of the model that is measured."""
    from ludus.engine.torch.config import DecoderConfig
    from ludus.engine.torch.folder import read_config

    folder = model_folder(SHAPE, DTYPE)
    return DecoderConfig.from_hf(read_config(folder), folder)


def sample(section: Section, bandwidth: float, rounds: int) -> None:
    """Both sides in turn, and the share of the bandwidth that ours uses."""
    folder = str(model_folder(SHAPE, DTYPE))
    own, rows = Path(sys.executable), []
    case = Case(SHAPE, DTYPE, PROMPT_TOKENS, REPLY_TOKENS, rounds)
    theirs = {"model": folder, "dtype": DTYPE, "threads": 8, "device": DEVICE, "continuous": True}
    with (
        Side(OURS, "ludus_sampling.py", own, {"model": folder, "device": DEVICE}) as ours,
        Side(TRANSFORMERS, "transformers_sampling.py", own, theirs) as peer,
    ):
        section.versions |= peer.about["versions"]
        for count in REQUESTS:
            rates = measure_rates([ours, peer], case, count)
            share = rates[OURS][0] / count * step_bytes(count) / bandwidth
            rows += [[count, name, figures[0], share if name == OURS else ""] for name, figures in rates.items()]
            section.ratios[f"{SHAPE} {DTYPE}, {count} requests on a GPU"] = Ratio(
                rates[OURS][0] / rates[TRANSFORMERS][0], 3.0
            )
            section.ratios[f"bandwidth used at {count} requests against 50 %"] = Ratio(share / 0.5, 1.0)
    columns = ["requests", "", "tokens/s", "of the bandwidth"]
    note = f"{SHAPE}, {DTYPE}; replies of {REPLY_TOKENS} tokens; a sum reads {bandwidth / 1e12:.2f} TB/s here."
    section.tables.append(Table("Sampling on a GPU", columns, rows, note))


def step_bytes(count: int) -> float:
    """That one token for each request has to read at the least: all weights, and keys and values so far."""
    from ludus.engine.torch.memory import num_parameters

    shape = SHAPES[SHAPE]
    cached = 2 * 2 * shape["num_hidden_layers"] * shape["num_key_value_heads"] * shape["head_dim"]
    length = sum(PROMPT_TOKENS) / 2 + REPLY_TOKENS / 2
    return float(2 * num_parameters(decoder_config()) + count * length * cached)


def grpo_step(section: Section, rounds: int) -> None:
    """One GRPO step of mixed lengths against TRL's."""
    setting = {"dtype": "float32", "config": {"per_device_train_batch_size": training.BATCH, "bf16": True}}
    with ExitStack() as stack:
        pair = training.step_sides("mixed", {"device": DEVICE, "dtype": DTYPE}, setting, shape=SHAPE, device=DEVICE)
        sides = [stack.enter_context(side) for side in pair]
        answers = alternate(sides, rounds, lambda side: side.ask(steps=1), warm_up=2)
    rows = [[name, *training.step_figures(a)] for name, a in answers.items()]
    section.tables.append(Table("One GRPO step on a GPU, mixed lengths", training.STEP_COLUMNS[1:], rows))
    ours, trl = (median(answers[name], lambda a: a.wall_s) for name in (training.OURS, training.TRL))
    section.ratios["GRPO step on a GPU, mixed lengths, wall"] = Ratio(trl / ours, 3.0)

"""Training against TRL's `GRPOTrainer`: one step, sampling included, and CPU time to an equal held-out reward."""

from __future__ import annotations

import itertools
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.models import model_folder
from benchmarks.peers import python_of
from benchmarks.results import Ratio, Section, Table
from benchmarks.side import WORK, Answer, Side, alternate, median

OURS, TRL = "ludus", "TRL"
PROMPTS, GROUP_SIZE = 16, 8
LENGTHS = {"mixed": (16, 112), "equal": (64, 64)}
"""Shortest and longest completion; 64 tokens on average in both."""
TARGETS = {"mixed": 2.0, "equal": 1.4}
THREADS = 2
BATCH = PROMPTS * GROUP_SIZE
BEST = {
    "dtype": "float32",
    "config": {"per_device_train_batch_size": BATCH // 2, "gradient_accumulation_steps": 2, "bf16": False},
}
"""TRL's fastest setting in float32, in which ours run, of those that `settings` tries."""
ALWAYS = {"gradient_checkpointing": False}


def measure(quick: bool) -> Section:
    """Steps of both sides in turn, and the way to an equal reward."""
    section = Section()
    rows = []
    for shape in LENGTHS:
        with ExitStack() as stack:
            sides = [stack.enter_context(side) for side in step_sides(shape, {})]
            answers = alternate(sides, 3 if quick else 7, lambda side: side.ask(steps=1), warm_up=2)
            for side in sides:
                section.versions |= side.about["versions"]
        ours, trl = answers[OURS], answers[TRL]
        if {a.values["tokens"] for a in ours} != {a.values["tokens"] for a in trl}:
            raise AssertionError(f"the sides sampled different numbers of tokens: {ours[0].values}, {trl[0].values}")
        rows += [[shape, name, *step_figures(answers[name])] for name in (OURS, TRL)]
        for what, figure in (("wall", lambda a: a.wall_s), ("CPU", lambda a: a.cpu_s)):
            ratio = median(trl, figure) / median(ours, figure)
            target = TARGETS[shape] if what == "wall" else None
            section.ratios[f"GRPO step, {shape} lengths, {what}"] = Ratio(ratio, target)
    section.tables.append(Table("One GRPO step", STEP_COLUMNS, rows, f"{STEP_WORK} TRL's setting: {describe(BEST)}."))
    if not quick:
        to_reward(section, seed=0)
    return section


STEP_COLUMNS = ["lengths", "", "wall s", "of it sampling", "CPU s", "tokens"]
STEP_WORK = (
    f"{PROMPTS} prompts of 23 tokens x {GROUP_SIZE} completions of 16-112 tokens (mixed) or 64 (equal), 64 on average; "
    "Qwen3 of 4 layers x 256, float32; medians of steps taken in turn. Both sides sample the same number of tokens, and "
    "everything a step is made of is in it: rendering, scoring, and with us the durable record."
)


def describe(setting: Mapping[str, Any]) -> str:
    """A setting of TRL as text."""
    config = ", ".join(f"{name}={value}" for name, value in setting["config"].items())
    return f"weights {setting['dtype']}, {config}, no gradient checkpointing, {THREADS} threads, no logging"


def step_figures(answers: list[Answer]) -> list[float]:
    """Wall, sampling and CPU seconds, and tokens."""
    return [
        median(answers, lambda a: a.wall_s),
        median(answers, lambda a: a.values["sampling_s"]),
        median(answers, lambda a: a.cpu_s),
        median(answers, lambda a: a.values["tokens"]),
    ]


def step_sides(
    kind: str, ours: Mapping[str, Any], trl: Mapping[str, Any] = BEST, *, shape: str = "4x256", device: str = "cpu"
) -> Iterator[Side]:
    """Both sides, ready to take steps.

    Args:
        kind: of lengths.
        ours: more of the recipe.
        trl: a setting of its.
        shape: of the model.
        device: "cpu" or "cuda".
    """
    prompts, lengths = forced_work(kind)
    folder = str(model_folder(shape, "float32"))
    runs = str(WORK / "runs")
    rl = {"steps": 10_000, "groups": PROMPTS, "group_size": GROUP_SIZE, "lr": 1e-5, "refill": 0.0}
    recipe = {"rl": rl, "save_every": 10_000, "concurrency": BATCH, **ours}
    settings = {"model": folder, "runs": runs, "recipe": recipe, "forced": {"prompts": prompts, "lengths": lengths}}
    yield Side(OURS, "ludus_rl.py", Path(sys.executable), settings)
    yield trl_side(
        TRL, trl, model=folder, prompts=prompts, lengths=lengths, rates=[1e-5] * 10_000, max_tokens=max(lengths),
        device=device,
    )  # fmt: skip


def forced_work(kind: str) -> tuple[list[str], list[int]]:
    """Prompts of 20 numbers, one token each, and the lengths of a batch's completions."""
    rng = random.Random(0)
    prompts = ["".join(f"{rng.randrange(100):02}" for _ in range(20)) for _ in range(PROMPTS)]
    low, high = LENGTHS[kind]
    lengths = [low + round(i * (high - low) / (BATCH - 1)) for i in range(BATCH)]
    rng.shuffle(lengths)
    return prompts, lengths


def trl_side(name: str, setting: Mapping[str, Any], **settings: Any) -> Side:
    """TRL in a setting, for a batch of BATCH or as its config says."""
    given = {
        "threads": THREADS, "temperature": 1.0, "group_size": GROUP_SIZE, **settings, "dtype": setting["dtype"],
        "config": {**ALWAYS, **setting["config"]},
    }  # fmt: skip
    return Side(name, "trl_grpo.py", python_of("trl"), given, {"OMP_NUM_THREADS": str(given["threads"])})


def settings(quick: bool) -> Section:
    """Which of TRL's settings is fastest here: a step of mixed lengths in each."""
    rows = []
    for dtype, bf16, size, more in trl_settings():
        accumulated = {"gradient_accumulation_steps": BATCH // size} if size < BATCH else {}
        config = {"per_device_train_batch_size": size, **accumulated, "bf16": bf16, **more}
        setting = {"dtype": dtype, "config": config}
        ours, trl = step_sides("mixed", {}, setting)
        ours.close()
        with trl:
            answers = alternate([trl], 1 if quick else 3, lambda side: side.ask(steps=1))[TRL]
        rows.append([describe(setting), *step_figures(answers)[:3]])
        print(rows[-1], file=sys.stderr)
    columns = ["setting", "wall s", "of it sampling", "CPU s"]
    return Section(tables=[Table("TRL's settings, one step of mixed lengths", columns, rows, "")])


def trl_settings() -> Iterator[tuple[str, bool, int, dict[str, Any]]]:
    """Type of the weights, bf16 autocast, batch size, other settings."""
    for (dtype, bf16), size in itertools.product([("float32", False), ("float32", True)], [128, 64, 32]):
        yield dtype, bf16, size, {}
    yield "bfloat16", False, 128, {}
    yield "float32", False, 128, {"torch_compile": True}
    yield "float32", False, 128, {"cache_implementation": "static"}


# --- CPU time to an equal reward --------------------------------------------------------------------------------------

FAMILY = "spell_backward"
REWARD = 0.65
"""Held-out mean reward to be reached; the warm-up leaves the model at 0.40-0.46."""
EVERY, MOST_STEPS = 10, 400
"""Steps between evaluations, and after which it is given up."""
RL: dict[str, Any] = {
    "steps": 550, "groups": 32, "group_size": 8, "lr": 2e-3, "temperature": 1.2, "warmup": 0.1, "final_lr": 0.4,
    "refill": 0.5, "max_tokens": 16, "truncated": "zero",
}  # fmt: skip
"""The table [rl] of examples/spell_backward.toml."""


def to_reward(section: Section, seed: int) -> None:
    """Train both sides from one warmed-up model until a held-out evaluation reaches REWARD."""
    from benchmarks.held_out import HeldOut, warmed_up

    folder = warmed_up(seed)
    held_out = HeldOut(f"rg:{FAMILY}")
    rows: list[list[Any]] = [["start", 0, 0.0, held_out.reward(folder)]]
    found: dict[str, float] = {}
    with ExitStack() as stack:
        sides = [stack.enter_context(side) for side in reward_sides(folder, seed, held_out)]
        cpu = dict.fromkeys((side.name for side in sides), 0.0)
        for steps in range(EVERY, MOST_STEPS + 1, EVERY):
            for side in sides:
                if side.name in found:
                    continue
                cpu[side.name] += side.ask(steps=EVERY).cpu_s
                export = Path(tempfile.mkdtemp(dir=WORK))
                side.ask(save=str(export))
                reward = held_out.reward(export)
                shutil.rmtree(export)
                rows.append([side.name, steps, cpu[side.name], reward])
                print(rows[-1], file=sys.stderr)
                if reward >= REWARD:
                    found[side.name] = cpu[side.name]
            if len(found) == len(sides):
                break
    note = (
        f"{FAMILY}, {HeldOut.TASKS} held-out words, from one warmed-up model; batches of 32 x 8, learning rates by step, "
        f"temperature, clipping and rewards are equal. Evaluated by the same program every {EVERY} steps, which is not "
        f"counted. Bar: {REWARD}."
    )
    kept = [row for i, row in enumerate(rows) if row[1] % 30 == 0 or row[0] not in [r[0] for r in rows[i + 1 :]]]
    section.tables.append(Table("CPU time to a held-out reward", ["", "steps", "CPU s", "held-out reward"], kept, note))
    if len(found) == len(sides):
        section.ratios[f"CPU time to a held-out reward of {REWARD}"] = Ratio(found[TRL] / found[OURS], 2.0)


def reward_sides(folder: Path, seed: int, held_out: Any) -> Iterator[Side]:
    """Both sides at the start of RL."""
    from ludus.programs.schedule import learning_rate

    recipe = {"rl": RL, "save_every": 10_000, "concurrency": 256, "seed": seed}
    settings = {"model": str(folder), "runs": str(WORK / "runs"), "recipe": recipe, "env": held_out.name}
    yield Side(OURS, "ludus_rl.py", Path(sys.executable), settings)
    tasks = held_out.training_tasks(MOST_STEPS * RL["groups"], seed)
    config = {"per_device_train_batch_size": 256, "bf16": False}
    yield trl_side(
        TRL, {"dtype": "float32", "config": config}, model=str(folder), family=FAMILY,
        prompts=[task.prompt for task in tasks], indices=[task.info["index"] for task in tasks],
        rates=[learning_rate(i, RL["steps"], RL["lr"], RL["warmup"], RL["final_lr"]) for i in range(RL["steps"])],
        max_tokens=RL["max_tokens"], temperature=RL["temperature"], group_size=RL["group_size"],
    )  # fmt: skip

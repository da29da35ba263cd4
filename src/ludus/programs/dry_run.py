"""What a recipe will take, before it takes it: memory by part, tokens and time, from a config and a few prompts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ludus.authoring.environment import Environment
from ludus.authoring.tasks import take
from ludus.errors import UsageError
from ludus.programs.evaluate import preferred_sampling
from ludus.programs.models import PRESET, model_folder
from ludus.programs.recipe import Recipe

if TYPE_CHECKING:
    import torch

    from ludus.engine.torch.config import DecoderConfig
    from ludus.engine.torch.memory import Memory

PROMPTS = 32
"""Tasks whose prompts are measured."""
BACKWARD = 3
"""Operations of forward and backward, in forwards; one more where layers are run again."""


@dataclass(frozen=True)
class DryRun:
    """What a recipe takes; tokens and time are for rollouts that use all their turns and tokens."""

    num_parameters: int
    num_trained: int
    memory: Memory
    free_bytes: int
    prompt_tokens: float
    """Mean over a few tasks."""
    rollout_tokens: float
    """Of prompt and replies together, at most."""
    tokens: dict[str, float]
    """By what is done with them: sampled (prompts included) and trained on."""
    seconds: float
    """Of matrix products alone, at the speed measured on this machine."""


def dry_run(recipe: Recipe, env: Environment) -> DryRun:
    """Work out what a recipe takes. Nothing is kept on disk and no weights are loaded. Raises as `train` does."""
    from ludus.engine.torch.device import find_device, free_bytes
    from ludus.engine.torch.memory import active_parameters, num_adapter_parameters, num_parameters

    device = find_device(recipe.device)
    with _folder(recipe) as folder:
        config, dtype = _model(recipe, folder)
        prompt = _prompt_tokens(env, folder)
    rollout = _rollout_tokens(recipe, env, prompt, config.max_position_embeddings)
    tokens = _tokens(recipe, rollout)
    forwards = tokens["sampled"] + (BACKWARD + recipe.recompute) * tokens["trained"]
    lora = recipe.lora_settings()
    total = num_parameters(config)
    return DryRun(
        num_parameters=total,
        num_trained=total if lora is None else num_adapter_parameters(config, lora),
        memory=_memory(recipe, config, dtype, device),
        free_bytes=free_bytes(device),
        prompt_tokens=prompt,
        rollout_tokens=rollout,
        tokens=tokens,
        seconds=2.0 * active_parameters(config) * forwards / _speed(dtype, device),
    )


def check_fits(recipe: Recipe) -> None:
    """Raises UsageError where the model can't be trained in the memory that is free, with what could be."""
    from ludus.engine.torch.device import find_device, free_bytes

    if recipe.model.startswith(PRESET):
        return  # small by design
    device = find_device(recipe.device)
    with _folder(recipe) as folder:
        config, dtype = _model(recipe, folder)
        needed, free = _memory(recipe, config, dtype, device).total, free_bytes(device)
        if needed > free:
            hint = _smaller(recipe, folder, config, device, free)
            raise UsageError(f"training {recipe.model} takes {gib(needed)} of memory, but {gib(free)} are free: {hint}")


def gib(count: float) -> str:
    """Bytes for people."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 / 10 else f"{count / 2**20:.1f} MiB"


def _smaller(recipe: Recipe, folder: Path, config: DecoderConfig, device: torch.device, free: int) -> str:
    """The first setting that would fit."""
    options: dict[str, dict[str, Any]] = {
        "recompute=true": {"recompute": True},
        "dtype=bfloat16": {"dtype": "bfloat16"},
        "dtype=bfloat16 recompute=true": {"dtype": "bfloat16", "recompute": True},
        "lora.rank=16": {"lora": {}},
        "lora.rank=16 dtype=bfloat16 recompute=true": {"lora": {}, "dtype": "bfloat16", "recompute": True},
    }
    for words, changes in options.items():
        if recipe.deterministic and "dtype" in changes:
            continue
        other = Recipe.model_validate({**recipe.model_dump(), **changes})
        needed = _memory(other, config, _model(other, folder)[1], device).total
        if needed <= free:
            return f"with {words} it would take {gib(needed)}"
    return "no setting makes it fit; take a smaller model or a larger machine"


@contextmanager
def _folder(recipe: Recipe) -> Iterator[Path]:
    """The model's folder; that of a new model is gone afterwards."""
    from ludus.engine.torch.presets import init_model

    if not recipe.model.startswith(PRESET):
        yield model_folder(recipe.model)
        return
    with TemporaryDirectory() as folder:
        init_model(Path(folder), recipe.model.removeprefix(PRESET))
        yield Path(folder)


def _model(recipe: Recipe, folder: Path) -> tuple[DecoderConfig, torch.dtype]:
    from ludus.engine.torch.config import DecoderConfig
    from ludus.engine.torch.device import find_dtype
    from ludus.engine.torch.folder import read_config
    from ludus.engine.torch.lora import base_of

    base = base_of(folder)
    dtype = find_dtype("float32" if recipe.deterministic else recipe.dtype, base)
    return DecoderConfig.from_hf(read_config(base), base / "config.json"), dtype


def _memory(recipe: Recipe, config: DecoderConfig, dtype: torch.dtype, device: torch.device) -> Memory:
    from ludus.engine.torch.memory import memory
    from ludus.engine.torch.trainer import HEAD_ELEMENTS, MICRO_BATCH_TOKENS

    return memory(
        config, dtype, training=bool(recipe.sft or recipe.rl), lora=recipe.lora_settings(),
        micro_batch_tokens=MICRO_BATCH_TOKENS[device.type], recompute=recipe.recompute, head_elements=HEAD_ELEMENTS,
    )  # fmt: skip


def _prompt_tokens(env: Environment, folder: Path) -> float:
    """Mean over the first training tasks (or whatever split there is)."""
    from ludus.engine.torch.lora import base_of
    from ludus.renderers.chat import ChatRenderer

    renderer = ChatRenderer.from_folder(base_of(folder))
    split = "train" if "train" in env.splits else env.splits[0]
    tasks = take(env, split, PROMPTS)
    return sum(len(renderer.render(env.opening(task))) for task in tasks) / len(tasks)


def _rollout_tokens(recipe: Recipe, env: Environment, prompt: float, context: int) -> float:
    limit = {} if recipe.rl is None or recipe.rl.max_tokens is None else {"max_tokens": recipe.rl.max_tokens}
    reply = preferred_sampling(env, limit).max_tokens
    return float(context) if reply is None else min(context, prompt + env.max_turns * reply)


def _tokens(recipe: Recipe, rollout: float) -> dict[str, float]:
    sampled, trained = 0.0, 0.0
    if recipe.sft:
        trained += recipe.sft.steps * recipe.sft.batch_size
    if recipe.rl:
        batch = recipe.rl.groups * recipe.rl.group_size
        trained += recipe.rl.steps * batch
        sampled += recipe.rl.steps * batch * (1 + recipe.rl.refill)
    if recipe.eval:
        steps = recipe.rl.steps if recipe.rl else 0
        ends = (2 + bool(recipe.sft)) * (1 + recipe.eval.greedy)
        on_the_way = (steps - 1) // recipe.eval.every if recipe.eval.every and steps else 0
        sampled += (ends + on_the_way) * recipe.eval.num_tasks * recipe.eval.samples
    return {"sampled": sampled * rollout, "trained": trained * rollout}


def _speed(dtype: torch.dtype, device: torch.device) -> float:
    """Operations a second of a matrix product, measured."""
    import torch

    size = 1024 if device.type == "cpu" else 8192
    a = torch.randn(size, size, device=device).to(dtype)
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        (a @ a)[0, 0].item()  # waits for the result
        best = min(best, time.perf_counter() - began)
    return 2.0 * size**3 / best

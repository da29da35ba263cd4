"""What a recipe will take, before it takes it: memory by part, tokens and time, from a config and a few prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ludus.authoring.environment import Environment
from ludus.authoring.tasks import take
from ludus.errors import UsageError
from ludus.programs.evaluate import preferred_sampling
from ludus.programs.members import Member
from ludus.programs.models import PRESET, model_folder
from ludus.programs.recipe import Recipe

if TYPE_CHECKING:
    from ludus.engine.torch.footprint import Footprint
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


def dry_run(recipe: Recipe, members: Sequence[Member]) -> DryRun:
    """Work out what a recipe takes, of a mixture's rollouts on average. Nothing is kept on disk and no weights are loaded.

    Raises as `train` does.
    """
    with _folder(recipe) as folder:
        model = _footprint(recipe, folder)
        prompts = {member.name: _prompt_tokens(member.env, folder) for member in members}
    context = model.config.max_position_embeddings
    prompt = _mean(members, lambda member: prompts[member.name])
    rollout = _mean(members, lambda member: _rollout_tokens(recipe, member, prompts[member.name], context))
    tokens = _tokens(recipe, rollout)
    total, trained = model.parameters(recipe.lora_settings())
    return DryRun(
        num_parameters=total,
        num_trained=trained,
        memory=_memory(recipe, model),
        free_bytes=model.free_bytes,
        prompt_tokens=prompt,
        rollout_tokens=rollout,
        tokens=tokens,
        seconds=model.seconds(tokens["sampled"] + (BACKWARD + recipe.recompute) * tokens["trained"]),
    )


def check_fits(recipe: Recipe) -> None:
    """Raises UsageError where the model can't be trained in the memory that is free, with what could be."""
    if recipe.model.startswith(PRESET):
        return  # small by design
    folder = model_folder(recipe.model)
    model = _footprint(recipe, folder)
    needed, free = _memory(recipe, model).total, model.free_bytes
    if needed > free:
        hint = _smaller(recipe, folder, free)
        raise UsageError(f"training {recipe.model} takes {gib(needed)} of memory, but {gib(free)} are free: {hint}")


def gib(count: float) -> str:
    """Bytes for people."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 / 10 else f"{count / 2**20:.1f} MiB"


def _smaller(recipe: Recipe, folder: Path, free: int) -> str:
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
        needed = _memory(other, _footprint(other, folder)).total
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


def _footprint(recipe: Recipe, folder: Path) -> Footprint:
    from ludus.engine.torch.footprint import Footprint

    return Footprint.of(folder, recipe.device, "float32" if recipe.deterministic else recipe.dtype)


def _memory(recipe: Recipe, model: Footprint) -> Memory:
    return model.memory(recipe.lora_settings(), training=bool(recipe.sft or recipe.rl), recompute=recipe.recompute)


def _prompt_tokens(env: Environment, folder: Path) -> float:
    """Mean over the first training tasks (or whatever split there is)."""
    from ludus.engine.torch.lora import base_of
    from ludus.renderers.chat import ChatRenderer

    renderer = ChatRenderer.from_folder(base_of(folder))
    split = "train" if "train" in env.splits else env.splits[0]
    tasks = take(env, split, PROMPTS)
    return sum(len(renderer.render(env.opening(task))) for task in tasks) / len(tasks)


def _mean(members: Sequence[Member], value: Callable[[Member], float]) -> float:
    """By weight."""
    return sum(member.weight * value(member) for member in members) / sum(member.weight for member in members)


def _rollout_tokens(recipe: Recipe, member: Member, prompt: float, context: int) -> float:
    most = recipe.max_tokens(member.config)
    reply = preferred_sampling(member.env, {} if most is None else {"max_tokens": most}).max_tokens
    return float(context) if reply is None else min(context, prompt + member.env.max_turns * reply)


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
        tasks = recipe.eval.num_tasks * len(recipe.environments)
        sampled += (ends + on_the_way) * tasks * recipe.eval.samples
    return {"sampled": sampled * rollout, "trained": trained * rollout}

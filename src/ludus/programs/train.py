"""`train`: from a recipe to a run folder with a better model in it.

Stages: evaluate the start, warm up (SFT), evaluate, RL with evaluations on the way, evaluate, export, report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ludus import config
from ludus.authoring.tasks import take
from ludus.errors import ConfigError, MissingExtra, UnknownName, UsageError
from ludus.programs.advantages import ADVANTAGES
from ludus.programs.batch import check_trainable
from ludus.programs.data.read import read_examples
from ludus.programs.dry_run import check_fits
from ludus.programs.evaluate import preferred_sampling
from ludus.programs.members import Member, load_members, roles_of
from ludus.programs.models import DEMONSTRATOR, PRESET, OpenModel, check_model, model_folder, open_folder, open_model
from ludus.programs.recipe import Recipe
from ludus.programs.rl import rl
from ludus.programs.sft import sft
from ludus.programs.training import Progress, Training
from ludus.protocols import Loss
from ludus.redaction import HIDDEN
from ludus.sinks import check_sinks
from ludus.store import RolloutIndex, RunFolder
from ludus.types import MAIN_ROLE


async def train(
    recipe: Recipe,
    *,
    progress: Progress = lambda row: None,
    on_start: Callable[[Training], None] = lambda training: None,
) -> dict[str, Any]:
    """Run a recipe from its beginning. Returns what result.json holds.

    Raises:
        UsageError: an environment, model or value that does not exist.
        RunFolderError: the run folder is taken, locked, read-only or full.
        TooManyFailures, NonFiniteUpdate: the run can't go on; what it had is whole.
    """
    members = load_members(recipe)
    check_recipe(recipe, members)
    with RunFolder.create(Path(recipe.runs) / recipe.name, overwrite=recipe.overwrite) as run:
        run.write_config(config.to_toml(recipe))
        if recipe.model.startswith(PRESET):
            _init(run.path / "init", recipe.model.removeprefix(PRESET), recipe.seed)
        return await _run(recipe, members, run, resume=False, progress=progress, on_start=on_start)


async def resume(
    path: Path, *, progress: Progress = lambda row: None, on_start: Callable[[Training], None] = lambda training: None
) -> dict[str, Any]:
    """Go on with a run that ended early, from its newest whole state.

    Raises:
        RunFolderError: not a run, or it has no whole state (it is never silently started again).
        UsageError: an option of its environment was a secret, which the run folder does not hold.
    """
    with RunFolder.resume(path) as run:
        recipe = config.load(Recipe, run.path / "config.toml")
        if hidden := [name for name, value in recipe.env_options.items() if value == HIDDEN]:
            raise UsageError(
                f"it can't be resumed: {', '.join(hidden)} of its environment was a secret, and is not written down; "
                "let the environment read such values from environment variables"
            )
        run.load_state()  # before anything is made: without one there is nothing to go on with
        members = load_members(recipe)
        check_sinks(recipe.sinks)
        return await _run(recipe, members, run, resume=True, progress=progress, on_start=on_start)


async def _run(
    recipe: Recipe,
    members: Sequence[Member],
    run: RunFolder,
    *,
    resume: bool,
    progress: Progress,
    on_start: Callable[[Training], None],
) -> dict[str, Any]:
    folder = run.path / "init" if recipe.model.startswith(PRESET) else model_folder(recipe.model)
    settings: dict[str, Any] = {
        "device": recipe.device, "threads": recipe.threads, "deterministic": recipe.deterministic,
        "dtype": recipe.dtype,
    }  # fmt: skip
    trained: dict[str, Any] = {
        "lora": recipe.lora_settings(),
        "seed": recipe.seed,
        "recompute": recipe.recompute,
        "keep_thinking": recipe.keep_thinking,
    }
    opened = open_folder(folder, recipe.name, **settings, **trained)
    others: dict[str, OpenModel] = {}
    rivals = recipe.eval.role_models if recipe.eval else {}
    try:
        for model in dict.fromkeys([*recipe.role_models.values(), *rivals.values()]):
            others[model] = open_model(model, **settings)
        backends, in_evaluations = (
            {role: others[model].backend for role, model in models.items()} for models in (recipe.role_models, rivals)
        )
        training = Training(recipe, run, members, opened, backends, in_evaluations, progress)
        on_start(training)
        await (training.restore() if resume else training.save())
        with training.open_sinks(resumed=resume) as training.sinks:
            await _stages(training)
            return await _finish(training)
    finally:
        for each in (opened, *others.values()):
            each.close()


async def _stages(training: Training) -> None:
    recipe = training.recipe
    await training.evaluate("start", greedy=True)
    if recipe.sft:
        await training.evaluate_demonstrator()
        await sft(training, recipe.sft)
        await training.export()
        await training.evaluate("after_sft", greedy=True)
    if recipe.rl:
        await rl(training, recipe.rl)
    await training.evaluate("end", greedy=True)
    await training.save()


async def _finish(training: Training) -> dict[str, Any]:
    """Export the model, write result.json and the report."""
    from ludus.programs.report import report

    position = training.position
    exported = await training.export()
    result: dict[str, Any] = {
        "name": training.recipe.name,
        "env": training.recipe.title,
        "complete": not training.stopping,
        "eval": {name: value for name, value in position.evaluations.items() if not name.startswith("step ")},
        "demonstrator": position.demonstrator,
        "history": position.history,
        "seconds": position.seconds,
        "tokens": {"sampled": position.tokens_sampled, "trained": position.tokens_trained},
        "steps": {"sft": position.sft_steps, "rl": position.rl_steps},
        "weights_hash": await training.engine.trainer.weights_hash(),
        "sandboxes": _tiers(training.run.path),
        "alarms": [text for signs in training.signs.values() for text in signs.alarms.values()],
        "model": str(training.run.given / exported.relative_to(training.run.path)),
        "run": str(training.run.given),
    }
    training.run.write_result(result)
    result["report"] = str(training.run.given / report(training.run.path).name)
    return result


def _tiers(run: Path) -> list[str]:
    """Of the sandboxes of all its rollouts."""
    with RolloutIndex(run) as index:
        return sorted({tier for summary in index.purposes() for tier in summary.sandboxes})


def check_recipe(recipe: Recipe, members: Sequence[Member]) -> None:
    """What can be known to be wrong before anything is made. Raises UsageError, MissingExtra, ModelFolderError."""
    try:
        from ludus.engine.torch.device import find_device
        from ludus.engine.torch.lora import is_adapter
        from ludus.engine.torch.losses import find_loss
        from ludus.engine.torch.presets import check_preset
    except ImportError as error:
        raise MissingExtra("training a model", "train") from error

    _check_roles(recipe, members)
    if recipe.model.startswith(PRESET):
        check_preset(recipe.model.removeprefix(PRESET))
    else:
        model_folder(recipe.model)
    check_sinks(recipe.sinks)
    find_device(recipe.device)
    if recipe.lora_settings() and not recipe.model.startswith(PRESET) and is_adapter(model_folder(recipe.model)):
        raise ConfigError(f"{recipe.model} is an adapter already, which goes on being trained: leave [lora] out")
    check_fits(recipe)
    splits = (*(["train"] if recipe.sft or recipe.rl else []), *([recipe.eval.split] if recipe.eval else []))
    for member in members:
        for split in splits:
            take(member.env, split, 1)
    if recipe.sft and recipe.sft.data:
        read_examples(Path(recipe.sft.data))
    elif recipe.sft and not any(member.env.can_demonstrate for member in members):
        names = " and ".join(member.env.describe().id for member in members)
        raise UsageError(f"{names} has no demonstrate(task), so [sft] has nothing to learn from: leave it out")
    if recipe.rl:
        if recipe.rl.advantage not in ADVANTAGES:
            raise UnknownName("advantage", recipe.rl.advantage, ADVANTAGES)
        find_loss(Loss(recipe.rl.loss, recipe.rl.loss_params))
        for member in members:
            temperature = member.config.temperature or recipe.rl.temperature
            sampling = preferred_sampling(member.env, {"temperature": temperature})
            check_trainable(sampling.truncated, sampling.temperature)


def _check_roles(recipe: Recipe, members: Sequence[Member]) -> None:
    """Raises UnknownName, ModelFolderError, ConfigError."""
    roles = roles_of(members)
    named = [*recipe.role_models.items(), *(recipe.eval.role_models.items() if recipe.eval else ())]
    for role, model in named:
        if role not in roles:
            raise UnknownName("role", role, roles)
        check_model(model, role)
        for env in (member.env for member in members if role in member.env.roles):
            if model == DEMONSTRATOR and not env.can_demonstrate:
                raise ConfigError(f"{env.describe().id} has no demonstrate(task), so no demonstrator can play {role}")
    if recipe.eval and MAIN_ROLE in recipe.eval.role_models:
        raise ConfigError(f"eval.role_models names {MAIN_ROLE}, but that is the role that is evaluated: leave it out")
    if (recipe.sft or recipe.rl) and recipe.role_models.keys() >= set(roles):
        raise ConfigError(
            f"role_models says who plays {', '.join(roles)}, which leaves no role to train: leave one of them out"
        )
    if recipe.deterministic and any(model != DEMONSTRATOR for _, model in named):
        raise ConfigError(
            "deterministic = true composes the batches of one model; with role_models there are several, which would "
            "wait for each other: leave out one of the two"
        )


def _init(folder: Path, preset: str, seed: int) -> None:
    from ludus.engine.torch.presets import init_model

    init_model(folder, preset, seed=seed)

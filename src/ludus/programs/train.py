"""`train`: from a recipe to a run folder with a better model in it.

Stages: evaluate the start, warm up (SFT), evaluate, RL with evaluations on the way, evaluate, export, report.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ludus import config
from ludus.authoring.environment import Environment
from ludus.authoring.loading import load_environment
from ludus.errors import UnknownName
from ludus.programs.advantages import ADVANTAGES
from ludus.programs.models import PRESET, OpenModel, model_folder, open_folder, open_model
from ludus.programs.recipe import Recipe
from ludus.programs.rl import rl
from ludus.programs.sft import sft
from ludus.programs.training import Progress, Training
from ludus.store import RunFolder


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
    env = load_environment(recipe.env, recipe.env_options)
    _check(recipe, env.roles)
    with RunFolder.create(Path(recipe.runs) / recipe.name, overwrite=recipe.overwrite) as run:
        run.write_config(config.to_toml(recipe))
        if recipe.model.startswith(PRESET):
            _init(run.path / "init", recipe.model.removeprefix(PRESET), recipe.seed)
        return await _run(recipe, env, run, resume=False, progress=progress, on_start=on_start)


async def resume(
    path: Path, *, progress: Progress = lambda row: None, on_start: Callable[[Training], None] = lambda training: None
) -> dict[str, Any]:
    """Go on with a run that ended early, from its newest whole state.

    Raises:
        RunFolderError: not a run, or it has no whole state (it is never silently started again).
    """
    with RunFolder.resume(path) as run:
        recipe = config.load(Recipe, run.path / "config.toml")
        run.load_state()  # before anything is made: without one there is nothing to go on with
        env = load_environment(recipe.env, recipe.env_options)
        return await _run(recipe, env, run, resume=True, progress=progress, on_start=on_start)


async def _run(
    recipe: Recipe,
    env: Environment,
    run: RunFolder,
    *,
    resume: bool,
    progress: Progress,
    on_start: Callable[[Training], None],
) -> dict[str, Any]:
    folder = run.path / "init" if recipe.model.startswith(PRESET) else model_folder(recipe.model)
    settings: dict[str, Any] = {
        "device": recipe.device, "threads": recipe.threads, "deterministic": recipe.deterministic,
    }  # fmt: skip
    others: dict[str, OpenModel] = {}
    opened = open_folder(folder, recipe.name, **settings)
    try:
        others = {role: open_model(model, **settings) for role, model in recipe.role_models.items()}
        training = Training(recipe, run, env, opened, others, progress)
        on_start(training)
        await (training.restore() if resume else training.save())
        await _stages(training)
        return await _finish(training)
    finally:
        for model in (opened, *others.values()):
            model.close()


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
        "env": training.recipe.env,
        "complete": not training.stopping,
        "eval": {name: value for name, value in position.evaluations.items() if not name.startswith("step ")},
        "demonstrator": position.demonstrator,
        "history": position.history,
        "seconds": position.seconds,
        "tokens": {"sampled": position.tokens_sampled, "trained": position.tokens_trained},
        "steps": {"sft": position.sft_steps, "rl": position.rl_steps},
        "weights_hash": await training.engine.trainer.weights_hash(),
        "model": str(exported),
        "run": str(training.run.path),
    }
    training.run.write_result(result)
    result["report"] = str(report(training.run.path))
    return result


def _check(recipe: Recipe, roles: tuple[str, ...]) -> None:
    """What can be known to be wrong before anything is made."""
    from ludus.engine.torch.losses import LOSSES

    for role in recipe.role_models:
        if role not in roles:
            raise UnknownName("role", role, roles)
    if recipe.rl:
        if recipe.rl.advantage not in ADVANTAGES:
            raise UnknownName("advantage", recipe.rl.advantage, ADVANTAGES)
        if recipe.rl.loss not in LOSSES:
            raise UnknownName("loss", recipe.rl.loss, LOSSES)
    if not recipe.model.startswith(PRESET):
        model_folder(recipe.model)


def _init(folder: Path, preset: str, seed: int) -> None:
    from ludus.engine.torch.presets import init_model

    init_model(folder, preset, seed=seed)

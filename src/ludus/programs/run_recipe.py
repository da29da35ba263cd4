"""`ludus.train`: a recipe from a script or a notebook's cell, shown while it runs, with a result that shows itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ludus import config
from ludus.display.table import align, as_html
from ludus.display.watch import watching
from ludus.errors import UsageError
from ludus.programs import train as program
from ludus.programs.blocking import Blocking
from ludus.programs.recipe import Recipe
from ludus.programs.tables import training_changes, training_effort, training_table
from ludus.programs.training import Progress, Training
from ludus.store import RunFolder


class TrainedRun(dict[str, Any]):
    """What result.json holds, and the path of the report; shown as a table of the run's evaluations."""

    def __repr__(self) -> str:
        lines = [f"{self['name']}  {training_effort(self)}"]
        if table := training_table(self):
            lines += ["  " + line for line in align(table, right=range(1, 5))]
        lines += [f"  {name}: {change}" for name, change in training_changes(self)]
        return "\n".join([*lines, f"  report  {self['report']}", f"  model   {self['model']}"])

    def _repr_html_(self) -> str:
        from html import escape

        table = training_table(self)
        parts = [f"<b>{escape(self['name'])}</b> {escape(training_effort(self))}", as_html(table) if table else ""]
        parts += [escape(f"{name}: {change}") + "<br>" for name, change in training_changes(self)]
        parts += [f"{name} <code>{escape(self[name])}</code><br>" for name in ("report", "model")]
        return f"<div>{''.join(parts)}</div>"


def train(
    recipe: str | Path | Mapping[str, Any] | Recipe | None = None,
    *overrides: str,
    resume: str | Path | None = None,
    progress: Progress | None = None,
) -> TrainedRun:
    """Train a model as a recipe says; also inside a running event loop, such as a notebook's.

    Interrupting it finishes what is running and saves, then raises KeyboardInterrupt; `resume` goes on from there.

        ludus.train("examples/guess.toml", "name=mine", "rl.steps=10")

    Args:
        recipe: a TOML file, its content as a dict, or a `Recipe`.
        *overrides: KEY=VALUE, as for `ludus train`.
        resume: a run folder to go on with, instead of a recipe.
        progress: is given rows instead of having them shown, in the thread in which the program runs.

    Raises:
        UsageError: an environment, model, key or value that does not exist.
        RunFolderError: the run folder is taken, locked, read-only or full, or not one to go on with.
        TooManyFailures, NonFiniteUpdate: the run can't go on; what it had is whole.
    """
    if (recipe is None) == (resume is None):
        raise UsageError("give either a recipe or resume=RUN")
    folder = None if resume is None else Path(resume)
    if folder is not None:
        if overrides:
            raise UsageError(f"a run that is resumed keeps its recipe, but {overrides[0]!r} would change it")
        with RunFolder.open(folder):  # what is not a run folder is told so
            checked = config.load(Recipe, folder / "config.toml")
    else:
        checked = _read(recipe, overrides)
    return TrainedRun(_run(checked, folder, progress))


def _read(recipe: str | Path | Mapping[str, Any] | Recipe | None, overrides: tuple[str, ...]) -> Recipe:
    if isinstance(recipe, Recipe):
        recipe = recipe.model_dump(exclude_none=True)
    if isinstance(recipe, Mapping):
        return config.parse(Recipe, config.merge(recipe, overrides))
    assert recipe is not None  # it, or resume, is given
    return config.load(Recipe, Path(recipe), overrides)


def _run(recipe: Recipe, resumed: Path | None, progress: Progress | None) -> dict[str, Any]:
    folder = resumed or Path(recipe.runs) / recipe.name

    def on_start(training: Training) -> None:
        watcher.begin()
        blocking.stops(training.stop)

    with watching(f"{recipe.title} · {recipe.model} → {folder}", recipe.num_steps, progress) as watcher:
        if resumed is not None:
            blocking = Blocking(lambda: program.resume(resumed, progress=watcher.see, on_start=on_start), watcher)
        else:
            blocking = Blocking(lambda: program.train(recipe, progress=watcher.see, on_start=on_start), watcher)
        return blocking.run(lambda result: f"stopped early; go on with ludus.train(resume={result['run']!r})")

"""Which weights of a run are kept, by the version that is stamped on tokens, and an engine that holds them.

Of a training run these are its exports, its saved states, and what it began with (version 0); of an evaluation, the
model that it evaluated, if the folder still holds the same weights.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ludus import config
from ludus.errors import ModelFolderError, RunFolderError, UsageError
from ludus.programs.evaluate import PURPOSE
from ludus.programs.models import OPENAI, PRESET, OpenModel, model_folder, open_folder
from ludus.programs.recipe import Recipe
from ludus.store import RunFolder
from ludus.types import Rollout


@dataclass(frozen=True)
class Kept:
    """One version's weights."""

    name: str
    """For people: "export/12", "state/12", or a folder."""
    folder: Path
    """A model folder: the weights themselves, or those that a state is loaded into."""
    state: Path | None = None
    hash: str = ""
    """What the run recorded of them; "" where it recorded nothing."""


@dataclass(frozen=True)
class KeptWeights:
    """All that a run keeps.

    Args:
        versions: by version.
        deterministic: whether the run promised the same bits.
        settings: of the engine: device, threads, deterministic.
        frozen: roles that other models played, which are not looked for.
        frozen_in_evaluations: roles that other models played in evaluations only.
    """

    versions: Mapping[int, Kept]
    deterministic: bool
    settings: Mapping[str, Any]
    frozen: frozenset[str] = frozenset()
    frozen_in_evaluations: frozenset[str] = frozenset()

    def frozen_in(self, rollout: Rollout) -> frozenset[str]:
        """Roles of a rollout that other models played."""
        evaluated = rollout.purpose.startswith(PURPOSE)
        return self.frozen | self.frozen_in_evaluations if evaluated else self.frozen

    def missing(self, version: int) -> str:
        """Why a version can't be resampled, with the nearest that could."""
        near = sorted(sorted(self.versions, key=lambda kept: (abs(kept - version), kept))[:2])
        kept = f"the nearest kept: {' and '.join(map(str, near))}" if near else "none are"
        return f"the weights of version {version} are not kept ({kept})"

    async def open(self, version: int) -> OpenModel:
        """An engine with a version's weights. Raises ModelFolderError where they are not those of the run any more."""
        kept = self.versions[version]
        opened = open_folder(kept.folder, kept.name, **self.settings)
        assert opened.engine is not None  # a folder is opened in the engine
        try:
            if kept.state is not None:
                await opened.engine.trainer.load(kept.state)
            if kept.hash and await opened.engine.trainer.weights_hash() != kept.hash:
                raise ModelFolderError(f"{kept.folder} holds other weights than those that the run sampled with")
        except BaseException:
            opened.close()
            raise
        return opened


def kept_weights(run: RunFolder) -> KeptWeights:
    """What a run keeps. Raises RunFolderError where its configuration can't be read, UsageError where it has no engine."""
    path = run.path / "config.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{run.given} has no config.toml, which says what its rollouts were sampled with") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{path} is damaged: {error}") from None
    if "evaluation" in values:
        return _of_evaluation(values["evaluation"])
    return _of_training(run, config.load(Recipe, path))


def _of_evaluation(about: Mapping[str, Any]) -> KeptWeights:
    model, recorded = about.get("model", ""), about.get("weights_hash", "")
    if not recorded:
        known = f"{OPENAI}{model} or one that was passed as an object" if model else "it"
        raise UsageError(f"the {PURPOSE}uation's model was not run here ({known}), so there are no weights to resample")
    kept = Kept(model, model_folder(model), hash=recorded)
    return KeptWeights({0: kept}, False, {}, frozenset(about.get("role_models", ())))


def _of_training(run: RunFolder, recipe: Recipe) -> KeptWeights:
    begun = run.path / "init"
    if not recipe.model.startswith(PRESET):
        begun = _folder(recipe.model)
    exports = {int(p.parent.name): p.parent for p in run.path.glob("export/*/config.json") if p.parent.name.isdigit()}
    base = next((folder for folder in (begun, *exports.values()) if folder.is_dir()), None)
    versions: dict[int, Kept] = {}
    if begun.is_dir():
        versions[0] = Kept(begun.name if recipe.model.startswith(PRESET) else f"{begun} as it is now", begun)
    if base is not None:
        versions |= {step: Kept(f"state/{step}", base, _state(run, step)) for step in run.states()}
    versions |= {step: Kept(f"export/{step}", folder, hash=_hash_at(run, step)) for step, folder in exports.items()}
    settings = {"device": recipe.device, "threads": recipe.threads, "deterministic": recipe.deterministic}
    in_evaluations = frozenset(recipe.eval.role_models if recipe.eval else ())
    return KeptWeights(versions, recipe.deterministic, settings, frozenset(recipe.role_models), in_evaluations)


def _folder(model: str) -> Path:
    try:
        return model_folder(model)
    except ModelFolderError:  # gone since; there may be exports and states
        return Path(model)


def _state(run: RunFolder, step: int) -> Path:
    return run.path / "state" / str(step)


def _hash_at(run: RunFolder, step: int) -> str:
    """What result.json says of the weights of the last step."""
    result = run.read_result() or {}
    last = sum((result.get("steps") or {}).values())
    return str(result.get("weights_hash", "")) if last == step else ""


def describe(kept: KeptWeights, versions: Iterable[int]) -> str:
    """Where the weights that are used come from."""
    return "weights: " + ", ".join(f"version {version} from {kept.versions[version].name}" for version in versions)

"""Our side of training: the RL stage of `ludus train` as it is, stopped after each step for the next command.

Settings: model, recipe (but for its name), optionally forced (prompts and lengths of `forced.Forced`).
Commands: {"steps": n}, {"save": folder}.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import talk
from forced import Forced

from ludus.authoring.loading import load_environment
from ludus.engine.torch.folder import save_decoder
from ludus.programs.members import Member
from ludus.programs.models import open_folder
from ludus.programs.recipe import Recipe
from ludus.programs.rl import rl
from ludus.programs.training import Training
from ludus.store import RunFolder


def main() -> None:
    given = talk.settings()
    folder = Path(given["model"])
    recipe = Recipe(**given["recipe"], name="rl", env="", model=str(folder))
    forced = given.get("forced")
    env: Any = Forced(**forced) if forced else load_environment(given["env"], {})
    opened = open_folder(folder, "model", device=recipe.device, dtype=recipe.dtype, threads=recipe.threads)
    if forced:
        opened.backend.renderer.stop_token_ids = frozenset()
    left, rows = 0, []

    def progress(row: dict[str, Any]) -> None:
        """Called by the stage after each step."""
        nonlocal left
        rows.append(row)
        left -= 1
        while left == 0:
            left = follow(training, folder, rows)
            rows.clear()

    with RunFolder.create(Path(given["runs"]) / "rl", overwrite=True) as run:
        members = [Member("", env, recipe.environments[""])]
        training = Training(recipe, run, members, opened, {}, progress)
        talk.answer(versions=talk.versions("torch"))
        left = follow(training, folder, None)
        asyncio.run(rl(training, recipe.rl))
    sys.exit("the recipe has fewer steps than were asked for")


def follow(training: Training, folder: Path, rows: list[dict[str, Any]] | None) -> int:
    """Answer what was done, and do commands until one asks for steps: their number."""
    if rows:
        talk.answer(
            sampling_s=sum(row["time/sampling"] for row in rows),
            training_s=sum(row["time/training"] for row in rows),
            tokens=sum(row["tokens/sampled"] for row in rows),
            reward=rows[-1]["reward/mean"],
        )
    while "steps" not in (command := talk.command()):
        save_decoder(training.engine.decoder, Path(command["save"]), tokenizer_from=folder)
        talk.answer()
    return command["steps"]


if __name__ == "__main__":
    main()

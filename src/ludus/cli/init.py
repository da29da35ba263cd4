"""`ludus init`: a new small model from random weights."""

from __future__ import annotations

from pathlib import Path

import click

from ludus.cli.options import seed_option
from ludus.cli.output import faint, say
from ludus.errors import FileProblem, MissingExtra


@click.command("init")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--preset",
    metavar="NAME",
    default="tiny",
    show_default=True,
    help="tiny (0.5 M parameters) or small (0.9 M, deeper).",
)
@seed_option("Equal seeds give equal weights.")
def init(folder: Path, preset: str, seed: int) -> None:
    """Write a new model with random weights into DIR.

    The folder is in Hugging Face's format: transformers and vLLM load it too.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileProblem(f"{folder} is in the way; choose a folder that does not exist or is empty")
    try:
        from ludus.engine.torch.presets import init_model
    except ImportError as error:
        raise MissingExtra("making a model", "train") from error
    init_model(folder, preset, seed)
    say(f"wrote {folder} ({preset}, seed {seed}): random weights, it has yet to be trained")
    ludus = click.get_current_context().find_root().command_path
    say(faint(f"  {ludus} eval guess --model {folder}"))
    say(faint(f"  {ludus} train examples/guess.toml model={folder}"))

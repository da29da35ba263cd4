"""What a recipe takes is said before it starts, and what can't fit is refused with what would."""

from __future__ import annotations

import json
import shutil

import pytest

from ludus.authoring.loading import load_environment
from ludus.config import parse
from ludus.engine.torch.device import free_bytes
from ludus.engine.torch.presets import init_model
from ludus.errors import ConfigError, UsageError
from ludus.programs.dry_run import check_fits, dry_run
from ludus.programs.members import load_members
from ludus.programs.recipe import Recipe
from ludus.programs.train import check_recipe

RECIPE = {
    "name": "r", "env": "guess", "model": "preset:tiny", "sft": {"steps": 10, "batch_size": 8},
    "rl": {"steps": 5, "groups": 4, "group_size": 4, "refill": 1.0, "max_tokens": 4}, "eval": {"num_tasks": 10, "every": 2},
}  # fmt: skip


def recipe(**changes):
    return parse(Recipe, {**RECIPE, **changes})


def members():
    return load_members(recipe())


def foresee(**changes):
    return dry_run(recipe(**changes), members())


@pytest.fixture(scope="module")
def huge(tmp_path_factory):
    """The config of a model of 90 B parameters with a tokenizer; of the weights nothing is needed."""
    folder = tmp_path_factory.mktemp("models") / "huge"
    init_model(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_size": 8192, "num_hidden_layers": 100, "intermediate_size": 32768, "dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").unlink()
    return folder


def test_tokens_are_counted_by_stage():
    found = foresee()
    turns = load_environment("guess").max_turns
    assert found.rollout_tokens == found.prompt_tokens + 4 * turns
    assert found.tokens["trained"] == pytest.approx((10 * 8 + 5 * 16) * found.rollout_tokens)
    evaluations = 3 * 2 + 2  # sampled and greedy at the ends and after SFT, and two on the way
    assert found.tokens["sampled"] == pytest.approx((5 * 16 * 2 + evaluations * 10) * found.rollout_tokens)
    assert found.seconds > 0


def test_an_adapter_trains_less_and_takes_less():
    whole, adapter = foresee(), foresee(lora={"rank": 4})
    assert whole.num_trained == whole.num_parameters == adapter.num_parameters
    assert adapter.num_trained < whole.num_trained / 10
    assert adapter.memory.moments < whole.memory.moments / 10


def test_what_cannot_fit_is_refused_with_what_would(huge):
    big = recipe(model=str(huge))
    with pytest.raises(UsageError, match=r"takes .* GiB of memory, but .* free: no setting makes it fit"):
        check_fits(big)
    found = dry_run(big, members())
    assert found.memory.total > 10 * 2**30 * 50


def test_a_smaller_setting_is_named(huge, tmp_path):
    import torch

    folder = tmp_path / "model"
    shutil.copytree(huge, folder)
    config = json.loads((folder / "config.json").read_text())
    # so many layers that all weights in float32 with their moments don't fit, and an adapter does
    layer = 4 * (8192 * 128 * 3 + 3 * 8192 * 32768)
    config |= {"num_hidden_layers": max(1, int(0.5 * free_bytes(torch.device("cpu")) / layer)), "dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=r"with .*(lora|bfloat16).* it would take"):
        check_fits(recipe(model=str(folder)))


def test_settings_that_contradict_each_other():
    with pytest.raises(ConfigError, match="float32"):
        recipe(deterministic=True, dtype="bfloat16")


@pytest.mark.slow
async def test_an_adapter_on_an_adapter_is_refused_before_anything_is_made(tmp_path):
    from ludus.programs import train

    run = parse(
        Recipe, {**RECIPE, "runs": str(tmp_path), "lora": {"rank": 2}, "sft": {"steps": 1}, "rl": None, "eval": None}
    )
    await train.train(run)
    again = recipe(model=str(tmp_path / "r"), lora={"rank": 2})
    with pytest.raises(ConfigError, match="adapter already"):
        check_recipe(again, members())
    check_recipe(recipe(model=str(tmp_path / "r")), members())
    assert (tmp_path / "r" / "export" / "1" / "adapter_config.json").is_file()

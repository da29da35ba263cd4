"""Resample: tokens again from kept weights; bit for bit in a deterministic run, and what is said where it can't be."""

import asyncio
import shutil

import pytest

pytest.importorskip("torch")

from ludus import config
from ludus.engine.torch.presets import init_model
from ludus.errors import UsageError
from ludus.programs.evaluate import evaluate
from ludus.programs.recipe import Recipe
from ludus.programs.replay import replay
from ludus.programs.replay.tokens import TOLERANCE
from ludus.programs.replay.waves import waves_of
from ludus.programs.train import train
from ludus.store import RolloutIndex, RunFolder
from ludus.types import EnvironmentRef, Rollout, Seeds, Task

GUESS = {"turns": 3, "narrowest": 4, "widest": 5, "largest": 9}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A deterministic run whose batches are waves of two groups; all of its weights are kept: versions 0, 2, 3, 4."""
    folder = tmp_path_factory.mktemp("trained")
    values = {
        "name": "run", "runs": str(folder), "env": "guess", "env_options": GUESS, "model": "preset:tiny",
        "deterministic": True, "save_every": 1, "threads": 1, "concurrency": 8,
        "sft": {"steps": 2, "batch_size": 2, "num_demonstrations": 4},
        "rl": {"steps": 2, "groups": 3, "group_size": 4, "refill": 1.0}, "eval": {"num_tasks": 11, "every": 0},
    }  # fmt: skip
    asyncio.run(train(config.parse(Recipe, values)))
    return folder / "run"


@pytest.fixture
def run(trained, tmp_path):
    """A copy to take things out of."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    init_model(folder)
    return folder


@pytest.fixture(scope="module")
def evaluated(model, tmp_path_factory):
    """An evaluation, whose batches nobody composed."""
    out = tmp_path_factory.mktemp("evaluated") / "run"
    evaluate("guess", str(model), num_tasks=6, samples=2, args=GUESS, out=out)
    return out


def worst(result, name="logprob_sampled"):
    return max(finding.figures[name] for finding in result.findings if finding.figures)


@pytest.mark.slow
def test_a_deterministic_run_gives_the_same_bits_again(trained):
    result = replay(trained, "resample")
    assert result.same, result.different
    assert worst(result) == 0.0
    assert worst(result, "logprob_forward") < TOLERANCE
    assert all(f.figures["tokens"] == f.figures["same_tokens"] > 0 for f in result.findings if f.figures)
    assert {f.purpose for f in result.findings if f.figures} >= {"train", "eval:start", "eval:end:greedy"}
    assert {f.purpose for f in result.impossible} == {"demonstration", "eval:demonstrator"}
    assert result.notes == [
        "weights: version 0 from init, version 2 from export/2, version 3 from state/3, version 4 from export/4"
    ]
    assert "bit for bit as recorded" in result.proves


@pytest.mark.slow
def test_one_rollout_is_sampled_among_those_that_it_was_sampled_with(trained):
    with RolloutIndex(trained) as index:
        chosen = index.query(purpose="train")[5].id
    result = replay(trained, "resample", rollout=chosen)
    assert [finding.rollout for finding in result.findings] == [chosen]
    assert result.same and worst(result) == 0.0


@pytest.mark.slow
def test_weights_that_are_not_kept_are_named_with_the_nearest_that_are(run):
    for name in ("export/2", "state"):
        shutil.rmtree(run / name)
    result = replay(run, "resample", purpose="train")
    assert result.reasons().keys() == {
        "the weights of version 2 are not kept (the nearest kept: 0 and 4)",
        "the weights of version 3 are not kept (the nearest kept: 0 and 4)",
    }
    assert not result.same and result.proves == "Nothing could be compared, so this proves nothing."


def test_other_weights_are_found_out_by_their_log_probabilities(run):
    shutil.copy(run / "init" / "model.safetensors", run / "export" / "2" / "model.safetensors")
    result = replay(run, "resample", purpose="train", num=4)
    assert len(result.different) == 4 and worst(result, "logprob_forward") > TOLERANCE
    assert "sequence" in " ".join(d.where for d in result.different[0].differences)
    assert result.proves.startswith("Proves that something differs: other weights")


def test_the_last_weights_are_known_by_their_hash(run):
    shutil.copy(run / "init" / "model.safetensors", run / "export" / "4" / "model.safetensors")
    result = replay(run, "resample", purpose="eval:end")
    (why,) = result.reasons()
    assert why.endswith("holds other weights than those that the run sampled with")


def test_a_text_that_differs_is_shown_from_there_on(run):
    with RunFolder.open(run) as folder:
        rollouts = list(folder.rollouts)
    changed = next(r for r in rollouts if r.purpose == "train")
    at = changed.calls[0].usage.prompt_tokens
    changed.sequences[0].tokens[at] = (changed.sequences[0].tokens[at] + 1) % 90
    shutil.rmtree(run / "rollouts")
    (run / "index.db").unlink()
    (run / "rollouts").mkdir()
    with RunFolder.resume(run) as folder:
        for rollout in rollouts:
            folder.rollouts.append(rollout)
    result = replay(run, "resample", rollout=changed.id)
    (finding,) = result.different
    assert finding.differences[0].where == "call 1, token 1"
    assert finding.differences[0].then != finding.differences[0].now


def test_an_evaluation_gives_the_same_tokens_and_nearly_the_same_log_probabilities(evaluated):
    result = replay(evaluated, "resample")
    assert result.same and result.num_same == 12
    assert worst(result) < TOLERANCE and worst(result, "logprob_forward") < TOLERANCE


def test_an_evaluated_model_that_has_changed_since_is_not_resampled(evaluated, model):
    weights = model / "model.safetensors"
    before = weights.read_bytes()
    try:
        other = model.parent / "other"
        init_model(other, seed=5)
        shutil.copy(other / "model.safetensors", weights)
        (why,) = replay(evaluated, "resample").reasons()
        assert "holds other weights" in why
    finally:
        weights.write_bytes(before)


TWO = """
import ludus

class Two(ludus.Environment):
    roles = ("policy", "critic")
    sampling = {"max_tokens": 5}

    def tasks(self, split):
        return [ludus.Task(prompt=word) for word in ("one", "two", "three")]

    async def run(self, ctx):
        said = await ctx.model.chat(ctx.task.messages())
        await ctx.models["critic"].chat([{"role": "user", "content": said.text or "nothing"}])
"""


@pytest.mark.slow
def test_roles_that_other_models_played_are_left_out_and_named(model, tmp_path):
    other = tmp_path / "other"
    init_model(other, seed=5)
    (tmp_path / "two.py").write_text(TWO)
    values = {
        "name": "run", "runs": str(tmp_path), "env": str(tmp_path / "two.py"), "model": str(model), "threads": 1,
        "role_models": {"critic": str(other)}, "eval": {"num_tasks": 3, "greedy": False},
    }  # fmt: skip
    asyncio.run(train(config.parse(Recipe, values)))
    result = replay(tmp_path / "run", "resample", purpose="eval:start")
    assert result.same and [finding.figures["tokens"] for finding in result.findings] == [5.0] * 3
    assert result.notes == ["weights: version 0 from export/0", "not resampled: what other models said, as critic"]


def test_without_weights_there_is_nothing_to_resample(tmp_path):
    evaluate("guess", "demonstrator", num_tasks=2, out=tmp_path / "expert")
    with pytest.raises(UsageError, match="there are no weights to resample"):
        replay(tmp_path / "expert", "resample")
    with RunFolder.create(tmp_path / "bare"):
        pass
    with pytest.raises(UsageError, match="no rollouts to replay"):
        replay(tmp_path / "bare", "resample")


# --- waves --------------------------------------------------------------------------------------------------------


def timed(name, started, seconds, attempt=0):
    return Rollout(
        id=f"{name}{attempt}", group=name[0], environment=EnvironmentRef("e"), task=Task(prompt="p"),
        seeds=Seeds(0, 0, int(name[1:]), attempt), started=started, seconds=seconds,
    )  # fmt: skip


def test_rollouts_that_overlap_are_a_wave_and_attempts_follow_one_another():
    rollouts = [
        timed("b0", 10.0, 5.0), timed("a1", 0.1, 2.0), timed("a0", 0.0, 9.0), timed("a1", 2.2, 1.0, attempt=1),
        timed("b1", 10.1, 1.0), timed("b0", 15.0, 1.0, attempt=1), timed("c0", 20.0, 0.0),
    ]  # fmt: skip
    assert [wave.ids for wave in waves_of(rollouts)] == [
        [["a00"], ["a10", "a11"]],
        [["b00", "b01"], ["b10"]],
        [["c00"]],
    ]

"""Training with several roles: which are trained, who plays the others, and what evaluations are against."""

import asyncio
from pathlib import Path

import pytest

pytest.importorskip("torch")

from ludus import config
from ludus.engine.torch.presets import init_model
from ludus.environments.nim import OPPONENT
from ludus.errors import LudusError
from ludus.programs.evaluate import evaluate
from ludus.programs.recipe import Recipe
from ludus.programs.replay import replay
from ludus.programs.train import train
from ludus.store import RunFolder
from ludus.types import MAIN_ROLE

NIM = "ludus.environments.nim:Nim"
SMALL = {
    "name": "run", "env": NIM, "env_options": {"smallest": 3, "largest": 8}, "model": "preset:tiny", "threads": 1,
    "sft": {"steps": 2, "batch_size": 4, "num_demonstrations": 6},
    "rl": {"steps": 2, "groups": 2, "group_size": 4, "refill": 0}, "eval": {"num_tasks": 2, "every": 0, "greedy": False},
}  # fmt: skip


def trained(folder, **changes):
    recipe = config.parse(Recipe, {**SMALL, "runs": str(folder), **changes})
    result = asyncio.run(train(recipe))
    return result, list(RunFolder.open(folder / "run").rollouts)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    init_model(folder, seed=5)
    return str(folder)


def roles_of_sequences(rollouts, purpose):
    return {s.role for r in rollouts if r.purpose == purpose for s in r.sequences}


@pytest.mark.slow
def test_one_model_plays_both_roles_and_evaluations_have_a_rival(tmp_path):
    result, rollouts = trained(
        tmp_path, deterministic=True, eval={**SMALL["eval"], "role_models": {OPPONENT: "demonstrator"}}
    )
    assert result["complete"]
    assert roles_of_sequences(rollouts, "train") == {MAIN_ROLE, OPPONENT}
    assert roles_of_sequences(rollouts, "eval:end") == {MAIN_ROLE}
    assert {call.role for r in rollouts if r.purpose == "eval:end" for call in r.calls} == {MAIN_ROLE, OPPONENT}
    again = replay(tmp_path / "run", "resample", purpose="eval:end")
    assert again.same and "not resampled: what other models said, as opponent" in again.notes


@pytest.mark.parametrize(("frozen", "other"), [(OPPONENT, MAIN_ROLE), (MAIN_ROLE, OPPONENT)])
@pytest.mark.slow
def test_either_role_may_be_frozen(tmp_path, frozen, other, model):
    result, rollouts = trained(tmp_path, role_models={frozen: model}, eval=None)
    assert result["complete"]
    train_rollouts = [r for r in rollouts if r.purpose == "train"]
    versions = {
        role: {v for r in train_rollouts for s in r.sequences if s.role == role for v in s.versions if v >= 0}
        for role in (frozen, other)
    }
    assert versions[frozen] == {0}
    assert versions[other] == {2, 3}


@pytest.mark.slow
def test_the_demonstrator_may_be_an_opponent(tmp_path):
    result, rollouts = trained(tmp_path, role_models={OPPONENT: "demonstrator"}, deterministic=True, eval=None)
    assert result["complete"]
    assert roles_of_sequences(rollouts, "train") == {MAIN_ROLE}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"role_models": {"oponent": "demonstrator"}}, "did you mean 'opponent'"),
        (
            {"role_models": {OPPONENT: "nowhere"}},
            "no such model: 'nowhere', for the role opponent.*run its recipe first",
        ),
        ({"role_models": {OPPONENT: "demonstrator", MAIN_ROLE: "demonstrator"}}, "leaves no role to train"),
        ({"eval": {"role_models": {"oponent": "demonstrator"}}}, "did you mean 'opponent'"),
        ({"eval": {"role_models": {MAIN_ROLE: "demonstrator"}}}, "the role that is evaluated"),
        ({"deterministic": True, "role_models": {OPPONENT: "openai:x"}}, "leave out one of the two"),
    ],
)
def test_roles_that_make_no_sense_are_refused(tmp_path, changes, said):
    with pytest.raises(LudusError, match=said):
        trained(tmp_path, **changes)
    assert not (tmp_path / "run").exists()


def test_an_evaluation_says_who_plays_the_other_role(tmp_path, model):
    result = evaluate(NIM, model, num_tasks=4, role_models={OPPONENT: "demonstrator"}, max_tokens=4, out=tmp_path / "e")
    assert result.num_excluded == 0
    with pytest.raises(LudusError, match="another evaluation: role_models"):
        evaluate(NIM, model, num_tasks=4, max_tokens=4, out=tmp_path / "e")
    with pytest.raises(LudusError, match="did you mean 'opponent'"):
        evaluate(NIM, model, num_tasks=4, role_models={"oponent": "demonstrator"})


@pytest.mark.slow
def test_the_model_may_judge_itself_and_is_not_trained_as_a_judge(tmp_path):
    """In fixed batches too: the scorers of a group have its last place at the engine."""
    made = []
    for number in range(2):
        env = f"{Path(__file__).parent}/self_judged.py"
        result, rollouts = trained(
            tmp_path / str(number), env=env, env_options={}, sft=None, deterministic=True, eval=None
        )
        assert result["complete"]
        assert all(rollout.failure is None for rollout in rollouts)
        assert roles_of_sequences(rollouts, "train") == {MAIN_ROLE, "judge"}
        assert all(sum(len(r.group_calls) for r in group) == 4 for group in by_group(rollouts))
        made.append([[call.reply for call in (*r.calls, *r.group_calls)] for r in rollouts])
    assert made[0] == made[1]


def by_group(rollouts):
    groups = {}
    for rollout in rollouts:
        groups.setdefault(rollout.group, []).append(rollout)
    return groups.values()

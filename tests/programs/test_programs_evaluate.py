"""Evaluations that stop, are killed, and go on in the same folder: what counts, what it took, and of which model."""

import asyncio

import pytest

import ludus
from ludus.errors import ModelCallFailed, RunFolderError
from ludus.programs.evaluate import Budget, evaluate_async
from ludus.recording.remote import RemoteBackend
from ludus.store import RunFolder
from ludus.types import Reply, Task, Usage


class Small(ludus.Environment):
    """Eight tasks; one reply, worth 1; the scorer breaks a few times before it works."""

    faults = 0

    def tasks(self, split):
        return [Task(prompt=str(i), id=f"t{i}") for i in range(8)]

    @ludus.reward
    def fine(self, rollout):
        self.faults -= 1
        return 1.0 if self.faults < 0 else 1 / 0


class Model:
    """Fails as often as told, then hangs or answers; counts its calls."""

    name = "model"

    def __init__(self, fails=0, hangs=False):
        self.fails, self.hangs, self.calls = fails, hangs, 0
        self.hanging = asyncio.Event()

    async def complete(self, messages, tools, sampling):
        self.calls += 1
        if self.calls <= self.fails:
            raise ModelCallFailed("status 429")
        if self.hangs:
            self.hanging.set()
            await asyncio.Event().wait()
        return Reply({"role": "assistant", "content": "ok"}, usage=Usage(10, 5, 0.25))


class Remote(RemoteBackend):
    """A remote model that answers without a network."""

    async def complete(self, messages, tools, sampling):
        return Reply({"role": "assistant", "content": "ok"})


async def killed(folder, model, **options):
    """An evaluation that ends for good while the model hangs."""
    running = asyncio.create_task(evaluate_async(Small(), model, out=folder, **options))
    await asyncio.wait_for(model.hanging.wait(), 20)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_kill_between_two_attempts_does_not_exclude_the_sample(tmp_path):
    await killed(tmp_path / "out", Model(fails=1, hangs=True), num_tasks=1)
    await killed(tmp_path / "out", Model(fails=2, hangs=True), num_tasks=1)
    model = Model()
    result = await evaluate_async(Small(), model, num_tasks=1, out=tmp_path / "out")
    assert (model.calls, result.num_tasks, result.mean, result.num_excluded) == (1, 1, 1.0, 0)
    model = Model()
    result = await evaluate_async(Small(), model, num_tasks=1, out=tmp_path / "out")
    assert (model.calls, result.num_tasks, result.num_excluded) == (0, 1, 0)


async def test_a_sample_that_used_up_its_retries_stays_excluded(tmp_path):
    first, again = Model(fails=3), Model()
    for model in (first, again):
        result = await evaluate_async(Small(), model, num_tasks=1, out=tmp_path / "out")
        assert (result.num_tasks, result.num_excluded) == (0, 1)
    assert (first.calls, again.calls) == (3, 0)


async def test_retried_attempts_have_their_tokens_and_cost_counted(tmp_path):
    env = Small()
    env.faults = 2
    for _ in range(2):  # run, and read again
        result = await evaluate_async(env, Model(), num_tasks=2, concurrency=1, out=tmp_path / "out")
        assert (result.num_tasks, result.tokens, result.cost) == (2, {"prompt": 40, "completion": 20}, 1.0)


async def test_retried_attempts_use_up_the_budget():
    env, model = Small(), Model()
    env.faults = 2
    result = await evaluate_async(env, model, concurrency=1, budget=Budget(max_cost=0.5))
    assert result.stopped.startswith("the cost reached") and result.num_tasks == 2  # the window of two groups
    assert model.calls == 4


async def test_a_budget_that_is_used_up_starts_nothing(tmp_path):
    model = Model()
    stopped = [
        await evaluate_async(Small(), model, concurrency=1, budget=Budget(max_tokens=30), out=tmp_path / "out")
        for _ in range(2)
    ]
    assert stopped[0].num_tasks == stopped[1].num_tasks == model.calls < 8
    assert stopped[1].stopped.startswith("the tokens reached")
    whole = await evaluate_async(Small(), model, budget=Budget(max_tokens=120), out=tmp_path / "out")
    assert (whole.num_tasks, whole.stopped, model.calls) == (8, "", 8)  # it used up its budget, and was not cut short


async def test_fewer_tasks_than_were_recorded(tmp_path):
    await evaluate_async(Small(), Model(), out=tmp_path / "out")
    result = await evaluate_async(Small(), Model(), num_tasks=3, out=tmp_path / "out")
    assert (result.num_tasks, result.tokens["prompt"], result.stopped) == (3, 30, "")


async def test_other_weights_under_the_same_name_are_another_evaluation(tmp_path):
    from ludus.engine.torch.presets import init_model

    model, out = tmp_path / "tiny", tmp_path / "out"
    init_model(model, seed=0)
    options = {"num_tasks": 1, "max_tokens": 2, "out": out}
    first = await evaluate_async(Small(), str(model), **options)
    assert (await evaluate_async(Small(), str(model), **options)).tokens == first.tokens
    init_model(model, seed=1)
    with pytest.raises(
        RunFolderError, match=r"weights_hash was '\w{32}', is '\w{32}'; choose another folder \(--out\)$"
    ):
        await evaluate_async(Small(), str(model), **options)
    config = (out / "config.toml").read_text().splitlines(keepends=True)
    (out / "config.toml").write_text("".join(line for line in config if "weights_hash" not in line))
    with pytest.raises(RunFolderError, match=r": weights_hash was absent, is '\w{32}';"):
        await evaluate_async(Small(), str(model), **options)


async def test_another_address_of_the_same_name_is_another_evaluation(tmp_path):
    await evaluate_async(Small(), Remote("m", "http://a/v1"), num_tasks=1, out=tmp_path / "out")
    with pytest.raises(RunFolderError, match=r": base_url was 'http://a/v1', is 'http://b/v1';"):
        await evaluate_async(Small(), Remote("m", "http://b/v1"), num_tasks=1, out=tmp_path / "out")


async def test_a_folder_that_is_no_evaluation_is_left_alone(tmp_path):
    for name, config, said in (("train", "seed = 0\n", "not an evaluation"), ("torn", "seed = ", "is damaged")):
        with RunFolder.create(tmp_path / name) as run:
            run.write_config(config)
        with pytest.raises(RunFolderError, match=said):
            await evaluate_async(Small(), Model(), num_tasks=1, out=tmp_path / name)

"""A kill at any step, and a power cut at the worst: what was whole before stays whole, and the run can go on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from killed import kills
from recorded import make_rollout

from ludus.programs.models import model_folder
from ludus.store import RunFolder, durable, run_folder, states


def write(content: str):
    async def into(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(content)
        (folder / "weights").write_text(content)

    return into


def advance(run: RunFolder, *steps: int) -> None:
    for step in steps:
        run.rollouts.append(make_rollout(step))
        run.append_metrics({"step": step})


def make_run(path: Path) -> Path:
    """A run of two steps, each with a state and an export; a rollout and a row more; and a file that isn't a run's."""

    async def main() -> None:
        with RunFolder.create(path) as run:
            run.write_config("")
            for step in (1, 2):
                advance(run, step)
                await run.save_state_async(step, write("old"))
                await run.export(step, write("old"))
            advance(run, 3)

    asyncio.run(main())
    (path / "notes.txt").write_text("mine")
    return path


def contents(folder: Path) -> list[str]:
    return [(folder / name).read_text() for name in ("config.json", "weights")]


def hidden(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.startswith(".")]


def save_again(path: Path) -> None:
    with RunFolder.resume(path, keep=1) as run:
        asyncio.run(run.save_state_async(2, write("new")))


@pytest.mark.slow
def test_killed_while_a_state_is_saved_again(tmp_path: Path) -> None:
    left = kills(save_again, make_run(tmp_path / "run"))
    assert len(left) > 10
    for path in left:
        with RunFolder.resume(path) as run:
            state = run.load_state()
            assert (state.step, *contents(state.path)) in {(2, "old", "old"), (2, "new", "new")}
            asyncio.run(run.save_state_async(3, write("next")))
            assert not hidden(path / "state")
    assert contents(left[-1] / "state" / "2") == ["new", "new"]


def export_again(path: Path) -> None:
    with RunFolder.resume(path) as run:
        asyncio.run(run.export(2, write("new")))


@pytest.mark.slow
def test_killed_while_a_model_is_exported_again(tmp_path: Path) -> None:
    left = kills(export_again, make_run(tmp_path / "run"))
    for path in left:
        assert model_folder(str(path)).name in {"1", "2"}  # who only reads finds a whole one at any time
        with RunFolder.resume(path) as run:
            assert model_folder(str(path)).name == "2"
            assert contents(model_folder(str(path))) in (["old", "old"], ["new", "new"])
            asyncio.run(run.export(3, write("next")))
            assert not hidden(path / "export")
    assert contents(left[-1] / "export" / "2") == ["new", "new"]


def export_next(path: Path) -> None:
    with RunFolder.resume(path) as run:
        asyncio.run(run.export(3, write("new")))


@pytest.mark.slow
def test_killed_while_the_next_model_is_exported(tmp_path: Path) -> None:
    left = kills(export_next, make_run(tmp_path / "run"))
    assert [model_folder(str(path)).name for path in left] == ["2"] * (len(left) - 1) + ["3"]


def overwrite(path: Path) -> None:
    with RunFolder.create(path, overwrite=True) as run:
        advance(run, 7)


@pytest.mark.slow
def test_killed_while_a_run_is_overwritten(tmp_path: Path) -> None:
    left = kills(overwrite, make_run(tmp_path / "run"))
    assert len(left) > 10
    for path in left:
        overwrite(path)
        run = RunFolder.open(path)
        assert ([row["step"] for row in run.read_metrics()], [r.id for r in run.rollouts]) == ([7], ["r7"])
        assert (run.states(), (path / "notes.txt").read_text()) == ([], "mine")


def go_back(path: Path) -> None:
    with RunFolder.resume(path) as run:
        run.truncate_to(run.load_state(1))


@pytest.mark.slow
def test_killed_while_a_run_goes_back(tmp_path: Path) -> None:
    left = kills(go_back, make_run(tmp_path / "run"))
    found = []
    for path in left:
        with RunFolder.resume(path) as run:
            state = run.load_state()
            run.truncate_to(state)
            found.append(state.step)
            steps = list(range(1, state.step + 1))
            assert [row["step"] for row in run.read_metrics()] == steps
            assert [rollout.id for rollout in run.rollouts] == [f"r{step}" for step in steps]
    assert found == sorted(found, reverse=True)
    assert set(found) == {1, 2}


async def test_what_a_state_counts_on_is_on_the_disk_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    for module in (durable, run_folder, states):
        monkeypatch.setattr(module, "fsync", synced.append)
    with RunFolder.create(tmp_path / "run") as run:
        advance(run, 1)
        synced.clear()
        state = await run.save_state_async(1, write("1"))
    path = tmp_path / "run"
    last = synced.index(path / "state")  # the new name of the state
    assert last == len(synced) - 1
    assert {path, path / "rollouts", path / "rollouts" / "000001.jsonl", path / "metrics.jsonl"} < set(synced[:last])
    assert {path / "state" / ".1.tmp" / name for name in ("", *state.manifest.files)} < set(synced[:last])


async def test_states_are_gone_from_the_disk_before_what_they_count_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    with RunFolder.create(tmp_path / "run") as run:
        advance(run, 1)
        state = await run.save_state_async(1, write("1"))
        advance(run, 2)
        await run.save_state_async(2, write("2"))
        metrics = run.path / "metrics.jsonl"
        monkeypatch.setattr(states, "fsync", lambda folder: sizes.append((folder.name, metrics.stat().st_size)))
        run.truncate_to(state)
    assert sizes == [("state", 2 * state.manifest.metrics_bytes)]

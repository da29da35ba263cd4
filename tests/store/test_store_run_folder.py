"""The run folder: locks, whole writes, states that survive a kill at any point, going back without counting twice."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from recorded import make_rollout

from ludus.errors import ModelFolderError, RunFolderError
from ludus.programs.models import model_folder
from ludus.store import RunFolder, is_run_folder
from ludus.store.durable import write_atomically
from ludus.store.run_folder import MIN_FREE_BYTES


def write_weights(content: bytes) -> Callable[[Path], Awaitable[None]]:
    async def write(folder: Path) -> None:
        (folder / "weights.bin").write_bytes(content)
        (folder / "sub").mkdir()
        (folder / "sub" / "random.json").write_text("{}")

    return write


def steps_of(run: RunFolder) -> tuple[list[int], list[str]]:
    return [row["step"] for row in run.read_metrics()], [rollout.id for rollout in run.rollouts]


def advance(run: RunFolder, first: int, last: int) -> None:
    for step in range(first, last + 1):
        run.rollouts.append(make_rollout(step))
        run.append_metrics({"step": step})


# --- making and opening -------------------------------------------------------------------------------------------


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "a") as run:
        run.write_config("seed = 1\n")
        run.append_metrics({"step": 1, "loss": float("nan")})
        assert run.read_result() is None
        run.write_result({"eval": {"start": {"mean": 0.5}}})
    run = RunFolder.open(tmp_path / "a")
    assert (run.path / "config.toml").read_text() == "seed = 1\n"
    assert run.read_metrics() == [{"step": 1, "loss": None}]
    assert run.read_result() == {"eval": {"start": {"mean": 0.5}}}


def test_an_existing_run_is_refused_then_overwritten(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "a") as run:
        advance(run, 1, 2)
    (tmp_path / "a" / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match=r"name=.*overwrite=true.*--resume"):
        RunFolder.create(tmp_path / "a")
    with RunFolder.create(tmp_path / "a", overwrite=True) as run:
        assert steps_of(run) == ([], [])
    assert (tmp_path / "a" / "notes.txt").read_text() == "mine"


def test_a_folder_of_something_else_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunFolderError, match="never overwritten"):
        RunFolder.create(tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_place_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="can't make the run folder"):
        RunFolder.create(tmp_path / "file" / "run")


def test_a_read_only_folder_is_refused_at_the_start(tmp_path: Path) -> None:
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o555)
    try:
        (folder / "probe").touch()
    except OSError:
        with pytest.raises(RunFolderError, match="can't make the run folder"):
            RunFolder.create(folder / "run")
    else:
        pytest.skip("this user may write anywhere")


def test_the_nearest_run_is_suggested(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "guess-1").close()
    (tmp_path / "guess-2").mkdir()
    assert not is_run_folder(tmp_path / "guess-2")
    with pytest.raises(RunFolderError, match=r"does not exist; did you mean '.*guess-1'\?"):
        RunFolder.open(tmp_path / "gues-1")
    with pytest.raises(RunFolderError, match="is not a run folder"):
        RunFolder.resume(tmp_path / "guess-2")


async def test_a_reader_cannot_write(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "a").close()
    run = RunFolder.open(tmp_path / "a")
    for write in (
        lambda: run.append_metrics({}),
        lambda: run.write_result({}),
        lambda: run.rollouts.append(make_rollout()),
    ):
        with pytest.raises(RunFolderError, match="reading only"):
            write()
    for save in (run.save_state_async, run.export):
        with pytest.raises(RunFolderError, match="reading only"):
            await save(1, write_weights(b""))


HOLD = """
import sys
from pathlib import Path
from ludus.store import RunFolder

run = RunFolder.create(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "a")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        for attempt in (
            lambda: RunFolder.resume(tmp_path / "a"),
            lambda: RunFolder.create(tmp_path / "a", overwrite=True),
        ):
            with pytest.raises(RunFolderError, match=f"pid {holder.pid}"):
                attempt()
        RunFolder.open(tmp_path / "a")
        holder.kill()
        holder.wait()
        with RunFolder.resume(tmp_path / "a") as run:  # the dead process's lock died with it
            assert (run.path / "lock").read_text() == f"{os.getpid()}\n"


def test_the_disk_must_have_room_for_a_run() -> None:
    assert MIN_FREE_BYTES == 50 * 1024 * 1024


# --- metrics ------------------------------------------------------------------------------------------------------


def test_a_torn_last_line_of_metrics_is_skipped_and_cut_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with RunFolder.create(tmp_path / "a") as run:
        advance(run, 1, 2)
    metrics = tmp_path / "a" / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes() + b'{"step":')
    with RunFolder.resume(tmp_path / "a") as run:
        assert [row["step"] for row in run.read_metrics()] == [1, 2]
        assert "torn last line" in caplog.text
        run.append_metrics({"step": 3})
        assert [row["step"] for row in run.read_metrics()] == [1, 2, 3]


def test_damaged_metrics_name_the_line(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "a") as run:
        (tmp_path / "a" / "metrics.jsonl").write_bytes(b'{"step":1}\n{"st\n{"step":3}\n')
        with pytest.raises(RunFolderError, match=r"metrics\.jsonl, line 2"):
            run.read_metrics()


def test_values_that_are_not_json_are_refused(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "a") as run, pytest.raises(TypeError, match="expected numbers"):
        run.append_metrics({"loss": object()})


# --- states -------------------------------------------------------------------------------------------------------


async def test_a_state_comes_back_verified_and_old_ones_are_dropped(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "a") as run:
        for step in (1, 2, 10):
            await run.save_state_async(step, write_weights(str(step).encode()))
        assert run.states() == [2, 10]
        state = run.load_state()
        assert (state.step, (state.path / "weights.bin").read_bytes()) == (10, b"10")
        assert set(state.manifest.files) == {"weights.bin", "sub/random.json"}
        assert run.load_state(2).step == 2
        with pytest.raises(RunFolderError, match=r"no state of step 1 .*whole: 2, 10"):
            run.load_state(1)


async def test_a_writer_that_fails_leaves_the_states_before(tmp_path: Path) -> None:
    async def fail(folder: Path) -> None:
        (folder / "weights.bin").write_bytes(b"half")
        raise ModelFolderError("no such tensor")

    with RunFolder.create(tmp_path / "a") as run:
        await run.save_state_async(1, write_weights(b"1"))
        with pytest.raises(ModelFolderError, match="no such tensor"):
            await run.save_state_async(2, fail)
        assert run.states() == [1]
        assert [path.name for path in (tmp_path / "a" / "state").iterdir()] == ["1"]


async def test_killed_before_the_rename(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "a") as run:
        await run.save_state_async(1, write_weights(b"1"))
        aside = tmp_path / "a" / "state" / ".2.tmp"
        aside.mkdir()
        (aside / "weights.bin").write_bytes(b"2")
        (aside / "manifest.json").write_text("{}")
        assert run.states() == [1]
        assert run.load_state().step == 1
        await run.save_state_async(2, write_weights(b"2"))
        assert run.load_state().step == 2
        assert not aside.exists()


async def test_killed_while_an_old_state_was_removed(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "a") as run:
        await run.save_state_async(1, write_weights(b"1"))
        (tmp_path / "a" / "state" / ".0.old").mkdir()
        await run.save_state_async(2, write_weights(b"2"))
        assert sorted(path.name for path in (tmp_path / "a" / "state").iterdir()) == ["1", "2"]


@pytest.mark.parametrize(
    ("name", "damage", "says"),
    [
        ("manifest.json", lambda data: data[: len(data) // 2], "manifest.json is damaged"),
        ("manifest.json", lambda data: data.replace(b'"metrics_bytes": 22', b'"metrics_bytes": 11'), "its own hash"),
        ("weights.bin", lambda data: bytes([data[0] ^ 1]) + data[1:], "weights.bin is damaged: its SHA-256"),
        ("weights.bin", lambda data: data[:-1], "weights.bin is damaged: expected 3 bytes, got 2"),
        ("sub/random.json", None, "random.json is missing"),
    ],
)
async def test_a_damaged_state_is_skipped_by_name_and_refused_when_asked_for(
    tmp_path: Path, name: str, damage: object, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    with RunFolder.create(tmp_path / "a") as run:
        advance(run, 1, 2)
        await run.save_state_async(1, write_weights(b"one"))
        await run.save_state_async(2, write_weights(b"two"))
        file = tmp_path / "a" / "state" / "2" / name
        if callable(damage):
            before = file.read_bytes()
            file.write_bytes(damage(before))
            assert file.read_bytes() != before
        else:
            file.unlink()
        with caplog.at_level(logging.WARNING):
            assert run.load_state().step == 1
        assert says in caplog.text
        with pytest.raises(RunFolderError, match=says):
            run.load_state(2)
        await run.save_state_async(2, write_weights(b"new"))
        assert run.load_state(2).step == 2


def test_resume_without_a_whole_state_is_an_error(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "a") as run, pytest.raises(RunFolderError, match="no whole state"):
        run.load_state()


# --- going back ---------------------------------------------------------------------------------------------------


async def test_nothing_is_counted_twice_after_resume(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "a") as run:
        advance(run, 1, 2)
        await run.save_state_async(2, write_weights(b"2"))
        advance(run, 3, 4)
    with RunFolder.resume(tmp_path / "a") as run:
        run.truncate_to(run.load_state())
        assert steps_of(run) == ([1, 2], ["r1", "r2"])
        advance(run, 3, 3)
        await run.save_state_async(3, write_weights(b"3"))
        advance(run, 4, 5)
    with RunFolder.resume(tmp_path / "a") as run:
        run.truncate_to(run.load_state(2))
        assert run.states() == [2]
        advance(run, 3, 5)
        assert steps_of(run) == ([1, 2, 3, 4, 5], ["r1", "r2", "r3", "r4", "r5"])


async def test_going_back_in_the_middle_of_a_run(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "a") as run:
        run.truncate_to(await run.save_state_async(0, write_weights(b"0")))
        advance(run, 1, 1)
        state = await run.save_state_async(1, write_weights(b"1"))
        advance(run, 2, 2)
        run.truncate_to(state)
        advance(run, 2, 2)
        assert steps_of(run) == ([1, 2], ["r1", "r2"])


async def test_a_log_that_lost_records_is_an_error(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "a") as run:
        advance(run, 1, 2)
        state = await run.save_state_async(2, write_weights(b"2"))
        segment = run.rollouts.segments()[0]
        os.truncate(segment, 10)
        with pytest.raises(RunFolderError, match=r"000001\.jsonl has 10 bytes but had"):
            run.truncate_to(state)


def test_back_to_a_mark(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "a") as run:
        start = run.mark()
        advance(run, 1, 2)
        mark = run.mark()
        advance(run, 3, 4)
        run.cut_to(mark)
        assert steps_of(run) == ([1, 2], ["r1", "r2"])
        advance(run, 5, 5)
        assert steps_of(run) == ([1, 2, 5], ["r1", "r2", "r5"])
        run.cut_to(start)
        assert steps_of(run) == ([], [])


# --- exports --------------------------------------------------------------------------------------------------------


async def test_exports_are_whole_or_absent(tmp_path: Path) -> None:
    async def write(folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("{}")

    async def half(folder: Path) -> None:
        await write(folder)
        raise OSError(28, "No space left on device")

    with RunFolder.create(tmp_path / "a") as run:
        first = await run.export(3, write)
        (first / "old").touch()
        with pytest.raises(RunFolderError, match=r"can't export to .*No space left"):
            await run.export(4, half)
        assert model_folder(str(run.path)) == first
        assert [path.name for path in (await run.export(3, write)).iterdir()] == ["config.json"]
        (run.path / "export" / "notes").mkdir()
        (run.path / "export" / "notes" / "config.json").touch()
        last = await run.export(10, write)
        assert model_folder(str(run.path)) == last


def test_what_is_no_file_is_written_to_and_stays(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as reader:
        write_atomically(pipe, b"data")
        assert reader.communicate()[0] == b"data"
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"] and pipe.is_fifo()

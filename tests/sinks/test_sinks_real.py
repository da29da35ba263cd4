"""The sinks that come with the package: written by the real ones, read back from their real local form. No network."""

import json
import struct
from pathlib import Path

import pytest

from ludus.sinks import RunInfo, Sinks

ROWS = [
    {"phase": "eval", "step": 0, "eval/name": "start", "eval/mean": 0.125, "time/eval": 1.5},
    {"phase": "sft", "step": 1, "loss": 2.0, "lr": 0.25},
    {"phase": "rl", "step": 2, "loss": 0.5, "reward/mean": 0.25, "length/mean_right": float("nan")},
    {"phase": "rl", "step": 3, "loss": -0.5, "reward/mean": 0.75},
    {"phase": "eval", "step": 3, "eval/name": "end", "eval/mean": 0.5, "time/eval": 1.0},
]
CURVES = {
    "eval/mean": {0: 0.125, 3: 0.5},
    "eval/time/eval": {0: 1.5, 3: 1.0},
    "sft/loss": {1: 2.0},
    "sft/lr": {1: 0.25},
    "rl/loss": {2: 0.5, 3: -0.5},
    "rl/reward/mean": {2: 0.25, 3: 0.75},
}
CONFIG = {"name": "real", "env": "guess", "rl": {"lr": 0.5}, "sinks": ["x"]}


def about(path, *, resumed=False, run_id="0123abcd"):
    path.mkdir(parents=True, exist_ok=True)
    return RunInfo(path, path.name, "guess", CONFIG, run_id, resumed)


def write(name, path):
    with Sinks([name], about(path)) as sinks:
        for row in ROWS:
            sinks.log(row)


def write_with_a_crash(name, path):
    """A run that got to step 3, was cut back to step 2 and went on otherwise."""
    with Sinks([name], about(path)) as sinks:
        for row in [*ROWS[:3], {"phase": "rl", "step": 3, "loss": 99.0, "only/before": 1.0}]:
            sinks.log(row)
    with Sinks([name], about(path, resumed=True), ROWS[:3]) as sinks:
        for row in ROWS[3:]:
            sinks.log(row)


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_MODE", "WANDB_PROJECT", "TRACKIO_SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


# --- TensorBoard --------------------------------------------------------------------------------------------------


def tensorboard_curves(path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(path / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return events, {
        tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def test_tensorboard_shows_every_figure_and_the_recipe(tmp_path):
    pytest.importorskip("tensorboard")
    write("tensorboard", tmp_path / "real")
    events, curves = tensorboard_curves(tmp_path / "real")
    assert {tag: dict(points) for tag, points in curves.items()} == CURVES
    (recipe,) = events.Tensors("recipe")
    assert json.loads(recipe.tensor_proto.string_val[0]) == CONFIG


def test_tensorboard_shows_nothing_twice_and_nothing_that_was_cut(tmp_path):
    pytest.importorskip("tensorboard")
    write_with_a_crash("tensorboard", tmp_path / "real")
    _, curves = tensorboard_curves(tmp_path / "real")
    assert curves.pop("only/before", []) == [] and curves.pop("rl/only/before", []) == []
    assert {tag: dict(points) for tag, points in curves.items()} == CURVES
    assert all(len(points) == len(CURVES[tag]) for tag, points in curves.items())


# --- trackio ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trackio(tmp_path_factory):
    """It reads where its database is when it is imported, so all tests of a process share one."""
    folder = tmp_path_factory.mktemp("trackio")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKIO_DIR", str(folder))
        trackio = pytest.importorskip("trackio")
        assert folder == pytest.importorskip("trackio.utils").TRACKIO_DIR, "imported before, with another folder"
        yield trackio


def trackio_runs(trackio, name):
    return [run for run in trackio.Api().runs("ludus") if run.name == name]


def trackio_points(run):
    from trackio.sqlite_storage import SQLiteStorage

    logs = SQLiteStorage.get_logs("ludus", run.name, run_id=run.id)
    return sorted((tag, log["step"], log[tag]) for log in logs for tag in log if tag not in ("step", "timestamp"))


POINTS = sorted((tag, step, value) for tag, points in CURVES.items() for step, value in points.items())


def test_trackio_shows_every_figure_and_the_recipe_and_prints_nothing(trackio, tmp_path, capfd):
    write("trackio", tmp_path / "whole")
    (run,) = trackio_runs(trackio, "whole")
    assert trackio_points(run) == POINTS
    assert run.config["rl"] == {"lr": 0.5} and run.config["run_id"] == "0123abcd"
    assert capfd.readouterr() == ("", "")


def test_trackio_shows_nothing_twice_and_nothing_that_was_cut(trackio, tmp_path):
    with Sinks(["trackio"], about(tmp_path / "crashed", run_id="another")) as sinks:
        sinks.log(ROWS[1])  # another run of that name is left alone
    write_with_a_crash("trackio", tmp_path / "crashed")
    other, run = sorted(trackio_runs(trackio, "crashed"), key=lambda run: run.config["run_id"] != "another")
    assert trackio_points(run) == POINTS
    assert [tag for tag, *_ in trackio_points(other)] == ["sft/loss", "sft/lr"]


# --- Weights & Biases ---------------------------------------------------------------------------------------------

HEADER, BLOCK = 7, 32768


def wandb_records(file: Path):
    """Records of a .wandb file: LevelDB's log format after seven bytes, each a protobuf of W&B's own."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts = file.read_bytes(), HEADER, []
    assert data[:4] == b":W&B"
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + HEADER])
        parts.append(data[at + HEADER : at + HEADER + size])
        at += HEADER + size
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(b"".join(parts))
            parts = []


def wandb_run(path):
    """The points and the configuration in the run's only file."""
    (file,) = (path / "wandb").glob("offline-run-*/*.wandb")
    points, about = [], None
    for record in wandb_records(file):
        if record.HasField("run"):
            about = record.run
        if record.HasField("history"):
            items = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            step = items.get("_step", record.history.step.num)
            points += [(tag, step, value) for tag, value in items.items() if not tag.startswith("_")]
    return sorted(points), about


@pytest.mark.slow
@pytest.mark.parametrize("write_run", [write, write_with_a_crash], ids=["whole", "resumed"])
def test_wandb_without_a_key_writes_a_file_with_everything(tmp_path, write_run, capfd):
    wandb = pytest.importorskip("wandb")
    write_run("wandb", tmp_path / "real")
    wandb.teardown()  # ends W&B's own process, which writes the file
    points, run = wandb_run(tmp_path / "real")
    assert points == POINTS
    assert (run.run_id, run.display_name, run.project, run.run_group) == ("0123abcd", "real", "ludus", "guess")
    configured = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert configured["rl"] == {"lr": 0.5}
    assert capfd.readouterr() == ("", "")

"""Task folders in Harbor's format: what is read of them, and what a wrong one is told, in one line."""

import shutil
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from ludus import registry
from ludus.authoring.loading import load_environment, rebuildable
from ludus.authoring.tasks import take
from ludus.environments.harbor import Harbor
from ludus.environments.harbor.image import read_dockerfile
from ludus.environments.harbor.task import find_tasks, read_task
from ludus.environments.harbor.verifier import rewards_of
from ludus.errors import ConfigError, UnknownName, UsageError

SAMPLE = Path(__file__).parents[1] / "data" / "harbor" / "count-words"


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(SAMPLE, tmp_path / "count-words"))


def dockerfile(folder, *lines):
    path = folder / "environment" / "Dockerfile"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_task_is_read():
    task = read_task(SAMPLE)
    assert task.name == "count-words" and task.instruction.startswith("Count the words")
    assert (task.workdir, task.verifier_env, task.toml.agent.timeout_sec) == ("/app", {"ANSWER": "7"}, 60.0)
    assert task.base.files == [(SAMPLE / "environment" / "text.txt", "/app/text.txt")]
    assert [(entry.source, entry.exclude) for entry in task.artifacts] == [
        ("/logs/artifacts", ()),
        ("/app", ("*.log",)),
    ]


def test_tasks_show_neither_tests_nor_solutions():
    (task,) = take(Harbor(str(SAMPLE)), "test")
    assert task.id == "count-words" and task.info.keys() == {"digest", "difficulty", "category"}
    assert "answer" not in task.info and task.answer is None


def test_a_task_that_is_graded_in_place_hands_over_its_folder(folder):
    text = (folder / "task.toml").read_text().replace('environment_mode = "separate"\n', "")
    (folder / "task.toml").write_text("\n".join(line for line in text.splitlines() if "artifacts" not in line))
    assert [entry.source for entry in read_task(folder).artifacts] == ["/logs/artifacts", "/app"]


def test_any_change_is_another_digest(folder):
    before = read_task(folder).digest
    (folder / "tests" / "text.txt").write_text("other")
    assert read_task(folder).digest != before


def test_a_plain_dockerfile_is_followed(folder):
    (folder / "environment" / "data").mkdir()
    (folder / "environment" / "data" / "a.csv").write_text("1")
    base = read_dockerfile(
        dockerfile(
            folder,
            "ARG X=1",
            "FROM python:3.12-slim",
            "ENV A=1 B='two words'",
            "ENV C three",
            "WORKDIR /app",
            "RUN mkdir -p out \\",
            "    /data/in",
            "WORKDIR deep",
            "COPY --chown=1:1 data /data/",
            "COPY text.txt note",
            "USER nobody",
            'CMD ["bash"]',
        )
    )
    assert base.workdir == "/app/deep" and base.env == {"A": "1", "B": "two words", "C": "three"}
    assert base.folders == ["/app", "/app/out", "/data/in", "/app/deep"]
    assert [(path.name, place) for path, place in base.files] == [("data", "/data"), ("text.txt", "/app/deep/note")]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            ["FROM ubuntu", "RUN apt-get install -y tmux"],
            r"line 2: RUN apt-get install -y tmux; that needs a container",
        ),
        (["FROM nvidia/cuda:12"], r"FROM nvidia/cuda:12 is not a plain debian"),
        (["ARG V=1", "FROM python:${V}"], r"FROM python:\${V} is not a plain"),
        (["FROM ubuntu AS a", "FROM ubuntu"], "several stages"),
        (["FROM ubuntu", "COPY ../../etc/passwd /"], "COPY ../../etc/passwd"),
        (["FROM ubuntu", "COPY --from=other /a /b"], "COPY --from=other"),
        (["FROM ubuntu", "ADD https://example.org/x /x"], "https://example.org/x"),
        (["FROM ubuntu", "COPY nothing.txt /"], "no such file"),
        (["FROM ubuntu", "RUN mkdir a && curl b"], "RUN mkdir a && curl b"),
        (["FROM ubuntu", "ENV A='unclosed"], "No closing quotation"),
    ],
)
def test_a_dockerfile_that_needs_an_image_is_refused_with_its_line(folder, lines, said):
    dockerfile(folder, *lines)
    with pytest.raises(ConfigError, match=said) as error:
        read_task(folder)
    assert "without a container engine" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("memory_mb = 512", 'docker_image = "big:1"', "docker_image = 'big:1' needs a container image"),
        ("memory_mb = 512", "gpus = 1", "needs a GPU"),
        ("memory_mb = 512", 'os = "windows"', "needs Windows"),
        ("memory_mb = 512", 'network_mode = "allowlist"', "no network"),
        ("memory_mb = 512", "memory_mb = 0", r"environment.memory_mb = 0"),
        ("memory_mb = 512", 'memory_mb = "much"', r"environment.memory_mb = 'much'"),
        ('schema_version = "1.1"', 'schema_version = "2.0"', "schema_version is 2.0, but 1.x is known"),
        ("timeout_sec = 60.0", "timeout_sec = -1", r"agent.timeout_sec = -1"),
        ("timeout_sec = 60.0", "timeout_sec = nan", r"agent.timeout_sec = nan"),
        ("[agent]", "[[steps]]\nname = 'one'\n[agent]", "tasks of several steps"),
        ("[agent]", "[agent", "is not valid TOML"),
        ('source = "/app"', 'source = "../x"', "can't have the source"),
        ('source = "/app"', 'source = "/tests/x"', "can't have the source"),
        ('source = "/app"', 'service = "db"', "source"),
        ("${COUNT_WORDS_ANSWER:-7}", "${HOME_SECRET}", "HOME_SECRET that it asks for is for you to allow"),
        ("[solution]", "[solution]", ""),
    ],
)
def test_a_wrong_task_toml_is_told_in_one_line(folder, old, new, said):
    path = folder / "task.toml"
    path.write_text(path.read_text().replace(old, new))
    if not said:
        read_task(folder)
        return
    with pytest.raises(ConfigError, match=said) as error:
        read_task(folder)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


@pytest.mark.parametrize(("missing", "said"), [("instruction.md", "is missing"), ("tests/test.sh", "gives the reward")])
def test_what_is_missing_is_named(folder, missing, said):
    (folder / missing).unlink()
    with pytest.raises(ConfigError, match=said):
        read_task(folder)


def test_links_out_of_the_folder_are_not_followed(folder):
    (folder / "environment" / "host").symlink_to("/etc")
    with pytest.raises(ConfigError, match="leads out"):
        read_task(folder)


def test_only_allowed_variables_are_handed_on(folder, monkeypatch):
    monkeypatch.setenv("COUNT_WORDS_ANSWER", "8")
    assert read_task(folder).verifier_env == {"ANSWER": "7"}
    assert read_task(folder, allowed=["COUNT_WORDS_ANSWER"]).verifier_env == {"ANSWER": "8"}


def test_folders_of_tasks(folder, tmp_path):
    for name in ("train/a", "train/b", "test/c"):
        shutil.copytree(folder, tmp_path / "many" / name)
    env = Harbor(str(tmp_path / "many"))
    assert env.splits == ("train", "test")
    assert [task.id for task in take(env, "train")] == ["train/a", "train/b"]
    assert [task.id for task in take(Harbor(str(tmp_path / "many"), names=["test/c"]), "test")] == ["test/c"]
    with pytest.raises(UnknownName, match="test/c"):
        Harbor(str(tmp_path / "many"), names=["test/d"])


def test_tasks_are_for_testing_unless_a_share_is_to_be_trained_on(folder, tmp_path):
    for number in range(20):
        shutil.copytree(folder, tmp_path / "flat" / str(number))
    with pytest.raises(UnknownName, match="valid: test"):
        take(Harbor(str(tmp_path / "flat")), "train")
    env = Harbor(str(tmp_path / "flat"), train_share=0.5)
    train, test = ({task.id for task in take(env, split)} for split in ("train", "test"))
    assert train and test and not train & test and len(train | test) == 20


def test_problems_of_many_tasks_are_counted(folder, tmp_path):
    for number in range(6):
        shutil.copytree(folder, tmp_path / "bad" / str(number))
        if number:
            (tmp_path / "bad" / str(number) / "instruction.md").unlink()
    with pytest.raises(ConfigError, match=r"(?s)bad/1: instruction.*and 2 more.*names=.*takes some of 6"):
        Harbor(str(tmp_path / "bad"))


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_folder_without_tasks(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"no such folder|no task\.toml"):
        find_tasks(tmp_path / name)


@pytest.mark.parametrize("options", [{"train_share": 2.0}, {"max_turns": 0}, {"command_timeout_s": 0.0}])
def test_options_out_of_range(options):
    with pytest.raises(ValueError, match="train_share must be"):
        Harbor(str(SAMPLE), **options)


@pytest.mark.parametrize(
    ("as_json", "as_text", "rewards"),
    [
        (b'{"reward": 0.5}', b"1", {"reward": 0.5}),
        (b'{"score": 0.5}', None, {"reward": 0.5}),
        (b'{"a": 0.5, "b": 1, "ok": true, "why": "x"}', b"1\n", {"a": 0.5, "b": 1.0, "reward": 1.0}),
        (None, b" 0.25\n", {"reward": 0.25}),
    ],
)
def test_reward_files(as_json, as_text, rewards):
    assert rewards_of(as_json, as_text) == rewards


@pytest.mark.parametrize(
    ("as_json", "as_text"),
    [
        (None, None), (None, b""), (None, b"one"), (None, b"nan"), (None, b"1e999"), (b"", b"1"), (b"[1]", b"1"),
        (b"{}", None), (b'{"a": 1, "b": 2}', None), (b'{"reward": NaN}', None), (b'{"reward": 1e999}', None),
        (b'{"reward": true}', None), (b'{"reward": 1' + b"0" * 400 + b"}", None), (b"[" * 100_000, None), (b"\xff", None),
    ],
)  # fmt: skip
def test_what_is_no_reward(as_json, as_text):
    with pytest.raises(ValueError, match="reward"):
        rewards_of(as_json, as_text)


def test_task_folders_are_named_by_their_prefix(folder, monkeypatch):
    entry = EntryPoint("harbor", "ludus.environments.harbor:Harbor", registry.ADAPTERS)
    monkeypatch.setattr(registry, "entries", lambda group: {"harbor": entry} if group == registry.ADAPTERS else {})
    env = load_environment(f"harbor:{folder}", {"max_turns": 3})
    assert (env.ref.id, env.max_turns, rebuildable(env)) == (f"harbor:{folder}", 3, True)
    for spec, said in (
        ("harbor:", "needs a name"),
        ("harbor:no where", "no such folder"),
        ("harbor:a\0b", "no such folder"),
    ):
        with pytest.raises(UsageError, match=said):
            load_environment(spec)

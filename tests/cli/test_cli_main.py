import ast
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

import ludus as package
from ludus.cli import reference
from ludus.cli.main import COMMANDS, main

HEAVY = ("torch", "transformers", "numpy", "openai", "httpx2", "starlette", "uvicorn", "rich", "pydantic", "jinja2")
ROOT = Path(__file__).parents[2]


def loaded_by(code):
    script = f"import sys\n{code}\nprint(*[name for name in {HEAVY} if name in sys.modules])"
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.splitlines()


def test_importing_ludus_loads_nothing_heavy():
    assert loaded_by("import ludus") == [""]


def test_help_loads_nothing_heavy():
    code = "from ludus.cli.main import main\ntry:\n    main(['--help'])\nexcept SystemExit: pass"
    assert loaded_by(code)[-1] == ""


def test_the_help_of_every_command_loads_no_engine_and_no_server():
    commands = [c.command_path.split()[1:] for c in reference.commands()]
    code = f"""
from ludus.cli.main import main
for command in {commands}:
    try:
        main([*command, "--help"])
    except SystemExit:
        print("loaded after", *command, [n for n in ("torch", "transformers", "openai", "starlette") if n in sys.modules])
"""
    told = [line for line in loaded_by(code) if line.startswith("loaded after")]
    assert len(told) == len(commands)
    assert [line for line in told if not line.endswith("[]")] == []


def test_every_public_name_is_there_and_is_the_one_that_type_checkers_see():
    tree = ast.parse(Path(package.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert {*seen, "__version__"} == set(package.__all__) <= set(dir(package))
    assert {name: getattr(package, name).__module__ for name in seen if name != "Message"} == {
        name: home for name, home in seen.items() if name != "Message"
    }


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'evaluete'"):
        package.evaluete  # noqa: B018


def test_help_lists_every_command(ludus):
    text = ludus("--help").stdout
    assert [line.split()[0] for line in text.partition("Commands:\n")[2].splitlines()] == list(COMMANDS)


def test_as_a_module_it_is_named_as_it_was_typed(tmp_path):
    run = subprocess.run([sys.executable, "-m", "ludus", "evl"], cwd=tmp_path, capture_output=True, text=True)
    assert run.stderr.startswith("ludus: unknown command 'evl'") and run.stderr.endswith(
        "(see python -m ludus --help)\n"
    )


def test_version(ludus):
    assert ludus("--version").stdout == f"ludus {package.__version__}\n"


def test_no_command_shows_help(ludus):
    assert "Commands:" in ludus(code=2).stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["evl"], ["unknown command 'evl'", "did you mean 'eval'?", "see ludus --help"]),
        (["env", "lst"], ["unknown command 'lst'", "did you mean 'list'?", "see ludus env --help"]),
        (["eval", "guess", "--modle", "x"], ["no such option '--modle'", "--model", "see ludus eval --help"]),
        (["eval", "guess"], ["missing option", "--model"]),
        (["eval", "guess", "--model", "demonstrator", "-n", "0"], ["0", "x>=1"]),
        (["eval", "gues", "--model", "demonstrator"], ["unknown environment 'gues'", "did you mean 'guess'?"]),
        (["eval", "guess", "--model", "demonstrator", "--split", "tset"], ["'tset'", "did you mean 'test'?"]),
        (["eval", "guess", "--model", "demonstrator", "--arg", "turn=3"], ["'turn'", "did you mean 'turns'?"]),
        (["eval", "guess", "--model", "demonstrator", "--arg", "turns"], ["expected key=value, got 'turns'"]),
        (["eval", "guess", "--model", "demonstrator", "--price", "1"], ["--price", "0.25,2"]),
        (["eval", "guess", "--model", "demonstrator", "--max-cost", "1"], ["--max-cost needs --price or --role-price"]),
        (["eval", "guess", "--model", "demonstrator", "--base-url", "http://x"], ["openai:NAME"]),
        (["eval", "no.py", "--model", "demonstrator"], ["no such environment file: no.py"]),
        (["train"], ["give either a RECIPE or --resume RUN"]),
        (["train", "no.toml"], ["no such file: no.toml"]),
        (["chat", "demonstrator"], ["plays inside rollouts only"]),
        (["serve", "demonstrator", "--port", "0"], ["can't be served"]),
        (["play", "guess", "--task", "x"], ["unknown task in train 'x'"]),
        (["env", "list", "gues:"], ["unknown environment 'gues:'"]),
        (["env", "new", "My Env"], ["lower-case words"]),
        (["env", "new", "json"], ["there is a module 'json' already"]),
    ],
)
def test_what_can_not_be_done_is_one_line_on_stderr_and_exit_code_2(ludus, args, words):
    result = ludus(*args, code=2)
    assert result.stdout == ""
    assert result.stderr.startswith("ludus: ") and result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["eval", "guess", "--model", "no-model"], ["no such model: 'no-model'", "ludus init"]),
        (["compare", "a", "b"], ["a does not exist"]),
        (["show", "a"], ["a does not exist"]),
        (["report", "a"], ["a does not exist"]),
        (["train", "--resume", "a"], ["a does not exist"]),
        (["init", "."], [". is in the way"]),
    ],
)
def test_what_is_wrong_on_disk_is_one_line_on_stderr_and_exit_code_1(ludus, args, words):
    Path("file").touch()
    result = ludus(*args, code=1)
    assert result.stdout == ""
    assert result.stderr.startswith("ludus: ") and result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


def test_an_error_that_nobody_raised_on_purpose_keeps_its_traceback(tmp_path):
    (tmp_path / "broken.py").write_text(
        "import ludus\nclass Broken(ludus.Environment):\n"
        "    def tasks(self, split):\n        raise RuntimeError('my bug')\n"
    )
    run = subprocess.run(
        [sys.executable, "-m", "ludus", "eval", "broken.py", "--model", "demonstrator"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 1
    assert "Traceback" in run.stderr and "my bug" in run.stderr


def test_a_reader_that_has_gone_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone:
        run = subprocess.run([sys.executable, "-m", "ludus", "env", "list"], stdout=gone, stderr=subprocess.PIPE)
    assert run.returncode == 1
    assert run.stderr == b""


def test_the_reference_is_up_to_date():
    assert (ROOT / "docs" / "cli.md").read_text() == reference.reference(), (
        "run python -m ludus.cli.reference docs/cli.md"
    )


def test_every_command_and_option_has_help():
    for ctx in reference.commands():
        assert ctx.command.help, ctx.command_path
        for parameter in ctx.command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{ctx.command_path} {parameter.name}"


@pytest.mark.parametrize(("shell", "typed"), [("", "bin/ludus"), ("bin", "ludus")])
def test_commands_are_named_as_they_can_be_typed(tmp_path, shell, typed):
    script = tmp_path / "bin" / "ludus"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\nfrom ludus.cli.main import main\nmain()\n")
    script.chmod(0o755)
    where = {"PATH": str(tmp_path / shell)}
    run = subprocess.run(
        ["bin/ludus", "evl"], cwd=tmp_path, env={**os.environ, **where}, capture_output=True, text=True
    )
    assert run.stderr.startswith("ludus: unknown command 'evl'") and run.stderr.endswith(f"(see {typed} --help)\n")


def test_modules_in_the_current_folder_are_found(ludus):
    Path("cli_shop.py").write_text(
        "import ludus\nclass Shop(ludus.Environment):\n"
        "    def tasks(self, split):\n        return [ludus.Task(prompt='hi', answer='ho')]\n"
        "    def demonstrate(self, task):\n        return task.answer\n"
        "    @ludus.reward\n    def right(self, task, rollout):\n        return rollout.reply == task.answer\n"
    )
    try:
        assert "1.000" in ludus("eval", "cli_shop:Shop", "--model", "demonstrator").stdout
    finally:
        sys.path.remove(str(Path.cwd()))


def test_the_entry_point_is_the_root_command():
    assert isinstance(main, click.Group)

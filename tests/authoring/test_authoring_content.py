"""The content hash of an environment: what changes it, what does not, and that it is the same everywhere."""

import linecache
import os
import shutil
import subprocess
import sys
import textwrap
import types

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ludus.authoring.content import code_hash, environment_hash
from ludus.authoring.loading import load_environment

FILE = """
    import ludus

    class Sums(ludus.Environment):
        def __init__(self, largest: int = 9, words: tuple = ()) -> None:
            self.largest = largest

        def tasks(self, split):
            return [ludus.Task(prompt=f"{split} {n} + 1?", answer=str(n + 1)) for n in range(self.largest)]

        @ludus.reward
        def right(self, task, rollout):
            return float(rollout.reply == task.answer)
"""
PACKAGE = {
    "__init__.py": "from .env import Sums\n",
    "env.py": textwrap.dedent(FILE) + "\nfrom .words import HINT\n",
    "words.py": "HINT = 'add'\n",
    "data/pages.jsonl": '{"prompt": "1 + 1?"}\n',
}
IN_ANOTHER_PROCESS = """
import sys
sys.path.insert(0, ".")
from ludus.authoring.loading import load_environment
print(load_environment(sys.argv[1]).ref.hash)
"""


@pytest.fixture
def sums(tmp_path):
    path = tmp_path / "sums.py"
    path.write_text(textwrap.dedent(FILE))
    return path


@pytest.fixture
def package(tmp_path):
    """Writes a package of its own name and returns (folder, function that hashes it as it is now)."""
    name = f"sums_{abs(hash(tmp_path)):x}"
    folder = tmp_path / name
    write(folder, PACKAGE)

    def hashed():
        for module in [m for m in sys.modules if m.partition(".")[0] == name]:
            del sys.modules[module]
        return load_environment(f"{name}.env:Sums").ref.hash

    sys.path.insert(0, str(tmp_path))
    yield folder, hashed
    sys.path.remove(str(tmp_path))


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def in_another_process(spec, cwd, seed):
    environ = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, spec]
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, check=True).stdout.strip()


# --- a file -------------------------------------------------------------------------------------------------------


def test_a_scorer_that_changes_changes_the_hash(sums):
    before = load_environment(str(sums)).ref.hash
    assert len(before) == 16
    sums.write_text(sums.read_text().replace("== task.answer", "in task.answer"))
    assert load_environment(str(sums)).ref.hash != before


def test_neither_place_nor_name_of_a_file_count(sums, tmp_path):
    elsewhere = tmp_path / "other" / "named.py"
    elsewhere.parent.mkdir()
    shutil.copy(sums, elsewhere)
    assert load_environment(f"{elsewhere}:Sums").ref.hash == load_environment(str(sums)).ref.hash


def test_other_options_are_another_environment(sums):
    hashes = {load_environment(str(sums), options).ref.hash for options in ({}, {"largest": 3}, {"words": ["a"]})}
    assert len(hashes) == 3
    assert load_environment(str(sums), {"largest": 9}).ref.hash == load_environment(str(sums)).ref.hash


def test_bases_in_other_files_count(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    base = f"base_{abs(hash(tmp_path)):x}"
    (tmp_path / f"{base}.py").write_text(textwrap.dedent(FILE))
    (tmp_path / "more.py").write_text(f"from {base} import Sums\nclass More(Sums): ...\n")
    before = load_environment(str(tmp_path / "more.py")).ref.hash
    (tmp_path / f"{base}.py").write_text(textwrap.dedent(FILE) + "# changed\n")
    del sys.modules[base]
    assert load_environment(str(tmp_path / "more.py")).ref.hash != before


def test_who_passes_the_object_has_the_hash_too(sums):
    loaded = load_environment(str(sums), {"largest": 4})
    described = type(loaded)(4).describe()
    assert (described.id, described.hash, described.version) == ("Sums", loaded.ref.hash, loaded.version)


def test_it_is_computed_once_per_class(sums):
    kind = type(load_environment(str(sums)))
    before = code_hash(kind)
    sums.unlink()  # nothing is read again
    assert code_hash(kind) == before
    assert environment_hash(kind, {"largest": 1}) != environment_hash(kind, {"largest": 2})


# --- a package ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [("words.py", "HINT = 'sum'\n"), ("data/pages.jsonl", "{}\n"), ("data/more.txt", "new"), ("__init__.py", "")],
)
def test_every_file_of_a_package_counts(package, name, text):
    folder, hashed = package
    before = hashed()
    assert hashed() == before
    write(folder, {name: text})
    assert hashed() != before


def test_a_file_that_moves_counts_and_caches_and_hidden_files_do_not(package):
    folder, hashed = package
    before = hashed()
    write(folder, {"__pycache__/env.cpython-399.pyc": "x", ".git/HEAD": "y", "data/.DS_Store": "z", "old.pyc": "w"})
    assert hashed() == before
    (folder / "data" / "pages.jsonl").rename(folder / "data" / "page.jsonl")
    assert hashed() != before


@pytest.mark.slow
def test_other_processes_and_folders_agree(package, sums, tmp_path):
    folder, hashed = package
    copied = tmp_path / "copied" / folder.name
    shutil.copytree(folder, copied)
    spec = f"{folder.name}.env:Sums"
    assert {in_another_process(spec, copied.parent, seed) for seed in ("0", "7")} == {hashed()}
    assert in_another_process(sums.name, tmp_path, "3") == load_environment(str(sums)).ref.hash


@given(st.dictionaries(st.sampled_from(["largest", "words", "c"]), st.integers() | st.text("ab")))
@settings(max_examples=50, deadline=None)
@pytest.mark.slow
def test_the_order_of_options_does_not_count(options):
    kind = type(load_environment("guess"))
    turned = dict(reversed(options.items()))
    assert environment_hash(kind, options) == environment_hash(kind, turned)
    assert environment_hash(kind, {**options, "object": object()}) == environment_hash(kind, options)


# --- what comes with Ludus, and what has no file --------------------------------------------------------------------


def test_an_adapter_counts_the_version_of_what_it_adapts():
    pytest.importorskip("reasoning_gym")
    kind = type(load_environment("rg:chain_sum"))
    assert kind.depends_on == ("reasoning-gym",)
    other = type("Other", (kind,), {"depends_on": ("a-distribution-that-is-not-there",), "__module__": kind.__module__})
    assert code_hash(other) != code_hash(kind)


def test_built_in_environments_stand_for_themselves():
    guess = type(load_environment("guess"))
    module = types.ModuleType("alone")
    module.__file__ = sys.modules[guess.__module__].__file__
    sys.modules["alone"] = module
    try:
        assert code_hash(type("Guess", (), {"__module__": "alone"})) == code_hash(guess)
    finally:
        del sys.modules["alone"]


def cell(number, text):
    """Run a class as a notebook does: no file, and its text where Python's tracebacks look for it."""
    name = f"<cell {number}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    namespace = {"__name__": "notebook_without_a_file"}
    exec(compile(text, name, "exec"), namespace)
    return namespace["Sums"]


def test_a_class_of_a_notebook_is_known_by_its_methods_and_attributes():
    text = textwrap.dedent(FILE).replace("    def __init__", "    max_turns = 3\n\n    def __init__")
    first, again = cell(1, text), cell(2, text)
    scorer, attribute = cell(3, text.replace("==", "!=")), cell(4, text.replace("max_turns = 3", "max_turns = 4"))
    assert code_hash(first) == code_hash(again) != ""
    assert len({code_hash(kind) for kind in (first, scorer, attribute)}) == 3


def test_without_any_source_there_is_no_hash():
    namespace = {"__name__": "nowhere"}
    exec(textwrap.dedent(FILE), namespace)
    assert environment_hash(namespace["Sums"], {}) == ""
    assert namespace["Sums"]().describe().hash == ""


@pytest.mark.slow
def test_the_file_of_a_script_is_its_source(sums, tmp_path):
    """Run as a script, a file has the hash that it has when it is loaded by name."""
    sums.write_text(sums.read_text() + "\nif __name__ == '__main__':\n    print(Sums().describe().hash)\n")
    printed = subprocess.run([sys.executable, str(sums)], capture_output=True, text=True, check=True).stdout.strip()
    assert printed == load_environment(str(sums)).ref.hash

"""Environments by name: every form of it, and what a wrong one is told."""

import os
import sys
import textwrap
from importlib.metadata import EntryPoint

import pytest

from ludus import registry
from ludus.authoring.environment import Environment
from ludus.authoring.loading import load_environment, rebuildable
from ludus.authoring.tasks import take
from ludus.errors import ConfigError, UnknownName, UsageError

ONE = """
    import ludus

    class Sums(ludus.Environment):
        version = "7"

        def __init__(self, largest: int = 9) -> None:
            if largest < 1:
                raise ValueError("largest must be positive")
            self.largest = largest

        def tasks(self, split):
            return [ludus.Task(prompt=f"{split} {n} + 1?", answer=str(n + 1)) for n in range(self.largest)]
"""


@pytest.fixture
def sums(tmp_path):
    path = tmp_path / "sums.py"
    path.write_text(textwrap.dedent(ONE))
    return path


def test_a_registered_environment():
    env = load_environment("guess", {"turns": 3})
    assert (env.max_turns, env.ref.id, env.ref.options["turns"]) == (3, "guess", 3)
    assert (len(env.ref.hash), env.ref.version) == (16, env.version)


def test_a_file_and_a_class_in_it(sums):
    for spec in (str(sums), f"{sums}:Sums"):
        env = load_environment(spec, {"largest": 2})
        assert [task.answer for task in take(env, "test")] == ["1", "2"]
        assert env.ref.id == spec
        assert env.ref.version == "7"


def test_a_file_is_read_as_it_is_now_and_nothing_is_left_beside_it(sums):
    before = sums.stat()
    for version in "78":
        sums.write_text(sums.read_text().replace('version = "7"', f'version = "{version}"'))
        os.utime(sums, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert load_environment(str(sums)).version == version
    assert list(sums.parent.iterdir()) == [sums]


def test_a_module_and_a_class_in_it():
    assert load_environment("ludus.environments.guess:Guess").name == "guess"


def test_a_family_of_another_package():
    pytest.importorskip("reasoning_gym")
    env = load_environment("rg:chain_sum", {"min_terms": 2, "max_terms": 2})
    assert env.ref.id == "rg:chain_sum"
    assert env.ref.options == {"seed": 0, "min_terms": 2, "max_terms": 2}


@pytest.mark.slow
def test_items_that_a_family_fails_to_make_are_passed_over():
    pytest.importorskip("reasoning_gym")
    env = load_environment("rg:maze")
    with pytest.raises(RuntimeError, match="path cell"):
        env._items[5843]
    assert max(task.info["index"] for task in take(env, "train", 5000)) > 5843


@pytest.mark.parametrize("spec", ["guess", "rg:chain_sum"])
def test_built_again_from_its_reference_it_is_the_same(spec):
    if spec.startswith("rg:"):
        pytest.importorskip("reasoning_gym")
    env = load_environment(spec)
    again = load_environment(env.ref.id, env.ref.options)
    assert rebuildable(env)
    assert again.ref == env.ref
    assert again.options == env.options
    assert take(again, "train", 5) == take(env, "train", 5)


def test_what_was_not_loaded_by_name_cannot_be_rebuilt(sums):
    loaded = load_environment(str(sums))
    assert not rebuildable(type(loaded)())
    assert rebuildable(loaded)


def test_options_that_are_not_json_cannot_be_rebuilt(tmp_path):
    path = tmp_path / "odd.py"
    path.write_text(
        "import ludus\nclass Odd(ludus.Environment):\n    def __init__(self, index=object()): ...\n"
        "    def tasks(self, split): return []\n"
    )
    env = load_environment(str(path))
    assert not rebuildable(env)
    assert env.ref.options == {}


def test_the_hash_is_of_the_code(sums):
    before = load_environment(str(sums)).ref.hash
    assert load_environment(str(sums)).ref.hash == before
    sums.write_text(sums.read_text().replace("+ 1?", "plus 1?"))
    assert load_environment(str(sums)).ref.hash != before


# --- wrong names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("guss", "unknown environment 'guss'; did you mean 'guess'? (all of them: ludus env list)"),
        ("no_such_module:Env", "unknown environment 'no_such_module:Env'"),
        ("ludus.environments.guess:Gues", "unknown environment class in ludus.environments.guess 'Gues'; did you mean"),
    ],
)
def test_unknown_names(spec, says):
    with pytest.raises(UnknownName) as caught:
        load_environment(spec)
    assert says in str(caught.value)


def test_an_unknown_family():
    pytest.importorskip("reasoning_gym")
    with pytest.raises(UnknownName, match="unknown reasoning-gym family 'chain_sm'; did you mean 'chain_sum'"):
        load_environment("rg:chain_sm")


def test_files_that_hold_no_one_environment(tmp_path, sums):
    with pytest.raises(UsageError, match="no such environment file"):
        load_environment(str(tmp_path / "none.py"))
    with pytest.raises(UnknownName, match=r"unknown environment class .* 'Sum'; did you mean 'Sums'"):
        load_environment(f"{sums}:Sum")
    two = tmp_path / "two.py"
    two.write_text(sums.read_text() + "\nclass More(Sums): ...\n")
    with pytest.raises(
        UsageError, match=r"must name one environment class, as .*two.py:Class \(it holds: Sums, More\)"
    ):
        load_environment(str(two))
    empty = tmp_path / "empty.py"
    empty.write_text("from ludus.environments.guess import Guess\n")
    with pytest.raises(UsageError, match="it holds: none"):
        load_environment(str(empty))
    assert load_environment(f"{empty}:Guess").name == "guess"  # by name, also what it imports


def test_a_broken_file_says_why_and_leaves_nothing_behind(tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("1 / 0\n")
    with pytest.raises(UsageError, match=r"broken.py can't be imported: ZeroDivisionError"):
        load_environment(str(broken))
    assert not [name for name in sys.modules if name.startswith("ludus_file_broken")]


def test_a_module_whose_own_import_fails(tmp_path, monkeypatch):
    (tmp_path / "needs_more.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match="can't import needs_more: No module named 'a_package_that_is_not_there'"):
        load_environment("needs_more:Env")


# --- wrong options ------------------------------------------------------------------------------------------------


def test_unknown_options():
    with pytest.raises(UnknownName, match="unknown option of guess 'turn'; did you mean 'turns'"):
        load_environment("guess", {"turn": 3})


def test_options_where_there_are_none(tmp_path):
    path = tmp_path / "plain.py"
    path.write_text("import ludus\nclass Plain(ludus.Environment): ...\n")
    with pytest.raises(ConfigError, match=r"plain\.py has no options, got 'x'"):
        load_environment(str(path), {"x": 1})


def test_refused_values(sums):
    with pytest.raises(ConfigError, match=r"refused its options .*largest must be positive"):
        load_environment(str(sums), {"largest": 0})
    with pytest.raises(ConfigError, match="the option largest should be a valid integer"):
        load_environment(str(sums), {"largest": "many"})


def test_a_required_option_that_is_missing(tmp_path):
    path = tmp_path / "strict.py"
    path.write_text("import ludus\nclass Strict(ludus.Environment):\n    def __init__(self, size: int): ...\n")
    with pytest.raises(ConfigError, match="missing a required argument: 'size'"):
        load_environment(str(path))


def test_loading_needs_no_model():
    assert isinstance(load_environment("guess"), Environment)


ADAPTER = """
    import sys
    import ludus

    class Adapted(ludus.Environment):
        def __init__(self, name: str, size: int = 1) -> None:
            {body}

        def tasks(self, split):
            return [ludus.Task(prompt="?")]

    thing = 3
"""


@pytest.fixture
def adapter(tmp_path, monkeypatch):
    """Registers an adapter `other:` with a given constructor, the way an installed package would."""

    def register(body="pass", attribute="Adapted", module="adapted_here"):
        (tmp_path / "adapted_here.py").write_text(textwrap.dedent(ADAPTER).format(body=body))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "adapted_here", raising=False)
        entry = EntryPoint("other", f"{module}:{attribute}", registry.ADAPTERS)
        monkeypatch.setattr(registry, "entries", lambda group: {"other": entry} if group == registry.ADAPTERS else {})

    return register


def test_an_adapter_is_given_the_rest_of_the_name(adapter):
    adapter("self.given = name, size")
    assert load_environment("other:a:b/c", {"size": 2}).given == ("a:b/c", 2)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise KeyError(name)", "other:x can't be built: KeyError: 'x'"),
        ("raise FileNotFoundError(2, 'No such file', name)", "other:x can't be built: FileNotFoundError"),
        ("sys.exit('bye')", "other:x can't be built: SystemExit: bye"),
        ("raise ValueError('no such game')", "other:x refused its options {}: no such game"),
        ("raise ludus.errors.UnknownName('game', name, ['y'])", "unknown game 'x' (valid: y)"),
    ],
)
def test_what_an_adapter_refuses_is_one_line(adapter, body, said):
    adapter(body.replace("ludus.errors.", "__import__('ludus.errors').errors."))
    with pytest.raises(UsageError) as error:
        load_environment("other:x")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_prefix_without_a_name(adapter):
    adapter()
    with pytest.raises(UsageError, match="other: needs a name after the colon"):
        load_environment("other:")


@pytest.mark.parametrize(
    ("attribute", "module", "said"),
    [
        ("Missing", "adapted_here", "other: adapted_here:Missing can't be imported: AttributeError"),
        ("Adapted", "adapted_nowhere", "other: adapted_nowhere:Adapted can't be imported: ModuleNotFoundError"),
        ("thing", "adapted_here", "other: adapted_here:thing is no class of environments"),
    ],
)
def test_a_broken_registration_says_so(adapter, attribute, module, said):
    adapter(attribute=attribute, module=module)
    with pytest.raises(UsageError, match=said):
        load_environment("other:x")


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("guess", {"turns": "x"}, "guess: the option turns should be a valid integer.*got 'x'"),
        ("guess", {"turns": 5.5}, "turns should be a valid integer.*got 5.5"),
        ("budget:guess", {"bands": [[0, "x", 5]]}, r"bands\[0\]\[1\] should be a valid number"),
        ("reason-suite", {"levels": 3}, "levels should be a valid array, got 3"),
        ("reason-suite", {"seed": "x"}, "seed should be a valid integer"),
        ("email-search", {"rewards": "all"}, "should be 'rubric' or 'right', got 'all'"),
    ],
)
def test_options_of_another_type_are_refused_in_one_line(name, options, said):
    with pytest.raises(ConfigError, match=said):
        load_environment(name, options)

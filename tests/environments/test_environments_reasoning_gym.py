"""Families of reasoning-gym: their known defects, and what their checkers would run of a reply."""

import io
import random
import re
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("reasoning_gym")

import reasoning_gym

from ludus.authoring.loading import load_environment
from ludus.authoring.tasks import take
from ludus.environments.reasoning_gym_replies import FORMULAS, LISTS, has_nan, is_formula

CODE = "__import__('pathlib').Path({path!r}).write_text('x')"


@pytest.mark.parametrize("family", [*FORMULAS, *(name.rpartition(".")[2] for name in LISTS)])
@pytest.mark.slow
def test_no_reply_is_run(family, tmp_path):
    env = load_environment(f"rg:{family}")
    (task,) = take(env, "train", 1)
    path = tmp_path / "written"
    assert env.grade(CODE.format(path=str(path)), task) < 0.1
    assert not path.exists()
    assert env.demonstrate(task) is not None


def test_no_reply_is_run_where_families_are_mixed(tmp_path):
    specs = [reasoning_gym.composite.DatasetSpec(name="countdown", weight=1.0, config={})]
    env = load_environment("rg:composite", {"datasets": specs})
    (task,) = take(env, "train", 1)
    env.grade(CODE.format(path=str(tmp_path / "written")), task)
    assert not (tmp_path / "written").exists()


def test_no_other_checker_evaluates_what_it_is_given():
    """A newer version of the package may bring another one."""
    root = Path(reasoning_gym.__file__).parent
    runs = re.compile(r"(?<![\w.])(?:eval|exec|compile)\(|\b(?:sympify|parse_expr)\(answer")
    found = {str(path.relative_to(root).with_suffix("")).replace("/", ".") for path in root.rglob("*.py")
             if runs.search(path.read_text())}  # fmt: skip
    own_code = {"arithmetic.basic_arithmetic", "arithmetic.bitwise_arithmetic", "code.codeio",
                "algorithmic.number_sorting", "arithmetic.gsm_symbolic.generators_00_49",
                "arithmetic.gsm_symbolic.generators_50_99"}  # fmt: skip
    formulas = {name for name in found if name.rpartition(".")[2] in FORMULAS}
    assert {name for name in found if not name.startswith("code.contrib")} == own_code | set(LISTS) | formulas


@pytest.mark.parametrize(
    "text",
    [
        "3*x**2/2 + C",
        "(7 - 3) * 6",
        "-exp(2*x)/2 + log(x)",
        "x**0.5",
        "1_000/3",
        " sqrt(2)*pi ",
        "x ^ 2",
        "(x + 1)**20",
    ],
)
def test_formulas(text):
    assert is_formula(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "24 = 4*6", "x.y", "().__class__", "exit()", "open('a')", "'a'*9", "[1]*9", "lambda: 1", "x if x else 1",
        "9**9**9", "((9**999)**999)**999", "2**(10**5)", "factorial(9)", "S('1')", "log(*x)", "log(x, base=2)", "True",
        "f'{x}'", "x[0]", "1j", "(" * 9999, "-" * 99999 + "1", "2**1e999", "\x00", "1\n2", "ｅｘｉｔ()",
    ],
)  # fmt: skip
def test_what_is_no_formula(text):
    assert not is_formula(text)


@pytest.mark.slow
def test_a_family_whose_checker_takes_anything_is_scored_here():
    env = load_environment("rg:game_of_life_halting")
    for task in take(env, "train", 4):
        other = {"True": "False", "False": "True"}[task.answer]
        assert [env.grade(text, task) for text in (task.answer, task.answer.lower(), other, "zzz", "")] == [
            1,
            1,
            0,
            0,
            0,
        ]
        assert env.demonstrate(task) == task.answer


def test_global_generators_are_left_alone_and_nothing_is_printed():
    before = random.getstate(), np.random.get_state()[1].tolist()
    printed = io.StringIO()
    with redirect_stdout(printed):
        for family in ("pool_matrix", "bf"):
            env = load_environment(f"rg:{family}")
            tasks = take(env, "train", 3)
            assert [env.grade(task.answer, task) for task in tasks] == [1, 1, 1]
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    assert printed.getvalue() == ""


def test_a_checker_that_raises_gives_nothing():
    env = load_environment("rg:prime_factorization")
    (task,) = take(env, "train", 1)
    assert env.grade("two times three", task) == 0


@pytest.mark.parametrize("reply", ["nan", "NaN", " nan + nani", "1 + nani", "-nan"])
def test_what_is_no_number_is_not_near_to_any(reply):
    env = load_environment("rg:complex_arithmetic")
    (task,) = take(env, "train", 1)
    assert env.grade(reply, task) == 0.0
    assert not has_nan("banana 1nano")


def test_a_formula_needs_the_numbers_of_its_task():
    env = load_environment("rg:puzzle24")
    one, other = (task for task in take(env, "train", 2))
    assert env.grade(one.answer, one) == 1.0
    assert env.grade(other.answer, one) < 0.1
    assert env.grade(f"{one.answer} + 0", one) < 0.1

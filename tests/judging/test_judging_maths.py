"""Mathematical answers: equal ones in any notation, and none that takes the machine along."""

import threading

import pytest

pytest.importorskip("math_verify")

from ludus.errors import ConfigError, ScorerFailed
from ludus.judging import MathChecker


@pytest.fixture(scope="module")
def check():
    checker = MathChecker(cpu_s=2)
    yield checker
    checker.close()


@pytest.mark.parametrize(
    ("reply", "answer", "right"),
    [
        (r"So it is $\boxed{\frac{1}{2}}$.", "0.5", True),
        (r"\boxed{0.5}", r"\frac{1}{2}", True),
        ("The answer is 42", "42", True),
        ("The answer is 41", "42", False),
        ("", "42", False),
        ("I don't know", "42", False),
        ("\x00\ud800 $42$", "42", True),
        (r"$\boxed{\{1, 2\}}$", "1", False),
        (r"$\boxed{(x+1)^2}$", "x^2 + 2x + 1", True),
        (r"$\boxed{\sqrt{8}}$", r"2\sqrt{2}", True),
    ],
)
def test_answers_are_compared_by_meaning(check, reply, answer, right):
    assert check(reply, answer) is right


@pytest.mark.slow
def test_an_answer_without_end_is_wrong_and_the_next_is_compared(check):
    assert check(r"$\boxed{9^{9^{9^{9^{9}}}}}$", "3") is False
    assert check(r"$\boxed{" + "(" * 5000 + "1" + ")" * 5000 + "}$", "3") is False
    assert check(r"$\boxed{3}$", "3") is True


def test_an_answer_that_is_none_is_the_authors_fault(check):
    for answer in ("", "  ", None, 3):
        with pytest.raises(ScorerFailed, match="must be a text") as caught:
            check("3", answer)
        assert caught.value.blame == "environment"


@pytest.mark.slow
def test_threads_compare_side_by_side(check):
    found = []
    threads = [threading.Thread(target=lambda n=n: found.append(check(f"${n}$", str(n)))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 8


@pytest.mark.slow
def test_workers_end_with_the_checker():
    checker = MathChecker(workers=1)
    assert checker("3", "3")
    worker = checker._idle.get_nowait()
    checker._idle.put(worker)
    checker.close()
    assert worker.process.poll() is not None
    assert checker("3", "3")  # starts another
    worker = checker._idle.get_nowait()
    checker._idle.put(worker)
    del checker
    assert worker.process.poll() is not None


@pytest.mark.parametrize("settings", [{"cpu_s": 0}, {"cpu_s": 1.5}, {"workers": 0}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ConfigError, match="whole numbers"):
        MathChecker(**settings)

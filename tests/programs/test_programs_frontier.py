"""Models side by side: what is measured, which of them none beats, and the page."""

import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import ludus
from ludus.errors import ModelCallFailed, RunFolderError, UnknownName, UsageError
from ludus.programs.frontier import compared, frontier
from ludus.programs.frontier.chart import draw_axis, plain
from ludus.programs.frontier.compared import AXES, COST
from ludus.programs.frontier.measured import busy_s, mean_figure, measure, quantile_figure
from ludus.programs.frontier.table import table
from ludus.programs.frontier.trials import Evaluated, Trial
from ludus.programs.latency import answer_s, waited_s, working_s
from ludus.programs.prices import Price, price_for, read_price, read_prices
from ludus.testing.scripted import Scripted
from ludus.types import Call, EnvironmentRef, Reply, Rollout, Seeds, Task, Usage


def call(began=0.0, seconds=1.0, waited=0.0, role="policy", **more):
    return Call(role=role, messages=[], reply={}, began_s=began, seconds=seconds, waited_s=waited, **more)


def rollout(*calls, seconds=10.0):
    return Rollout(
        id="r", group="g", environment=EnvironmentRef("e"), task=Task(prompt="?"), seeds=Seeds(0, 0, 0, 0),
        calls=list(calls), seconds=seconds,
    )  # fmt: skip


def trial(task="t", right=True, tokens=(1000, 100), start=0.0, seconds=2.0, **more):
    values = {
        "reward": float(right), "usage": Usage(*tokens), "other_cost": 0.0, "answer_s": seconds / 2, "waited_s": 0.0,
        "cached": False, "local": False, **more,
    }  # fmt: skip
    return Trial(task=task, right=right, span=(start, start + seconds), seconds=seconds, **values)


def evaluated(*trials, model="m", **more):
    values = {
        "run": Path("runs/m"), "env": EnvironmentRef("e"), "split": "test", "num_excluded": 0, "num_retried": 0,
        "stopped": "", "concurrency": 8, "price": None, **more,
    }  # fmt: skip
    return Evaluated(model=model, trials=list(trials), **values)


# --- time -----------------------------------------------------------------------------------------------------------


def test_waits_side_by_side_count_once():
    calls = [call(0, 5, waited=3), call(1, 5, waited=4), call(8, 2, waited=1)]
    assert waited_s(calls) == 5 + 1  # 0 to 3 and 1 to 5 are 0 to 5
    assert waited_s(calls, since=2, until=8.5) == 3.5
    assert waited_s([call(), call(1)]) == 0


def test_the_time_to_answer_is_without_waits_judges_and_what_surrounds_it():
    asked = call(2, 3, waited=1), call(6, 1), call(8, 1, role="judge", waited=0.5)
    assert answer_s(rollout(*asked)) == pytest.approx(5 - 1)  # from 2 to 7
    assert working_s(rollout(*asked)) == pytest.approx(10 - 1.5)
    assert answer_s(rollout()) is None
    assert answer_s(rollout(call(0, 3))) is None  # recorded before calls had a time


# --- figures --------------------------------------------------------------------------------------------------------


def test_prices():
    found = evaluated(trial("a"), trial("b", tokens=(3000, 300)))
    priced = measure(found, Price(2.0, 10.0))
    assert priced.cost.value == pytest.approx((0.003 + 0.009) / 2) and priced.priced == "$2 / $10 per M tokens"
    assert priced.cost.interval == pytest.approx((0.003, 0.009))
    unknown = measure(found, None)
    assert math.isnan(unknown.cost.value) and unknown.priced == "no price"
    local = measure(evaluated(trial(local=True)), None)
    assert local.cost.value == 0 and local.priced == "own machine, at 0"
    silent = measure(evaluated(trial(tokens=(0, 0))), Price(2.0, 10.0))
    assert math.isnan(silent.cost.value) and silent.priced == "counts no tokens"


def test_a_price_by_the_hour_is_shared_by_what_runs_at_once():
    trials = [
        trial("a", start=0, seconds=3600),
        trial("b", start=0, seconds=1800),
        trial("c", start=7200, seconds=1800),
    ]
    assert busy_s(trials) == 3600 + 1800
    found = measure(evaluated(*trials), Price(hour=2.0))
    assert found.cost.value == pytest.approx(1.5 * 2.0 / 3) and "1.5 h" in found.priced


def test_what_came_from_a_cache_says_nothing_of_cost_and_time():
    found = measure(evaluated(trial("a"), trial("b", seconds=0.0, cached=True)), Price(2.0, 10.0))
    assert found.cost.num_tasks == found.answer.p50.num_tasks == 1 and found.accuracy.num_tasks == 2
    assert (found.num_cached, found.num_rollouts) == (1, 2)
    assert measure(evaluated(trial(cached=True)), Price(2.0, 10.0)).priced == "answered from a cache"


def test_quantiles_and_means_over_tasks():
    values = [(str(i), float(i)) for i in range(1, 101)]
    assert (quantile_figure(values, 0.5).value, quantile_figure(values, 0.95).value) == (50.0, 95.0)
    low, high = quantile_figure(values, 0.5).interval
    assert 35 < low < 50 < high < 65
    assert mean_figure([("a", 1.0), ("a", 3.0), ("b", 6.0)]).value == 4.0  # 2 and 6
    assert math.isnan(mean_figure([]).value) and math.isnan(mean_figure([("a", 1.0)]).interval[0])


def test_prices_as_people_write_them(tmp_path):
    assert (read_price(" 0.25, 2"), read_price("1.5/h")) == (Price(0.25, 2.0), Price(hour=1.5))
    for bad in ("", "1", "1,2,3", "a,b", "-1,2", "nan,1", "inf/h", "/h"):
        with pytest.raises(UsageError, match="expected two numbers"):
            read_price(bad)
    file = tmp_path / "prices.toml"
    file.write_text('"openai:large" = "2,8"\n"runs/mine" = "0.5/h"\n')
    prices = read_prices(file)
    assert price_for("large", prices) == price_for("cached:openai:large", prices) == Price(2.0, 8.0)
    assert price_for("other", prices) is None and price_for("other", {"": Price(1.0, 1.0)}) == Price(1.0, 1.0)
    for text, problem in (("a = 1", "a: expected two"), ("a = [1, 2]", "expected two"), ("a =", "is not TOML")):
        file.write_text(text)
        with pytest.raises(UsageError, match=problem):
            read_prices(file)
    with pytest.raises(UsageError, match="can't read the prices"):
        read_prices(tmp_path / "none.toml")


# --- runs -----------------------------------------------------------------------------------------------------------


class Parity(ludus.Environment):
    """Is the number odd?"""

    def tasks(self, split):
        return [ludus.Task(prompt=str(i), answer="odd" if i % 2 else "even", id=str(i)) for i in range(20)]

    @ludus.reward
    def right(self, task, rollout):
        return float(rollout.reply == task.answer)


class Paid:
    """A model with tokens and a price, as an API has it."""

    def __init__(self, name, answer, tokens, waited_s=0.0):
        self.name, self._answer, self._tokens, self._waited_s = name, answer, tokens, waited_s

    async def complete(self, messages, tools, sampling):
        said = self._answer(int(messages[-1]["content"]))
        usage = Usage(self._tokens, self._tokens, self._tokens * 1e-6)
        return Reply({"role": "assistant", "content": said}, usage=usage, waited_s=self._waited_s)


def odd(number):
    return "odd" if number % 2 else "even"


@pytest.fixture
def runs(tmp_path):
    """A good and dear model, a cheap one that is right half of the time, and one that is as good and dearer."""
    models = [Paid("good", odd, 100), Paid("cheap", lambda n: "odd", 10), Paid("dear <b>", odd, 1000)]
    folders = []
    for number, model in enumerate(models):
        folders.append(tmp_path / f"run{number}")
        ludus.evaluate(Parity(), model, num_tasks=20, out=folders[-1], concurrency=4)
    return folders


@pytest.mark.slow
def test_who_is_as_good_and_dearer_is_not_on_the_front(runs):
    (section,) = compared(runs)
    good, cheap, _ = section.models
    assert (good.accuracy.value, cheap.accuracy.value) == (1.0, 0.5)
    assert good.accuracy.interval[1] == 1.0 > good.accuracy.interval[0] > 0.8  # Wilson's
    assert section.front(COST) == {"good", "cheap"}
    assert good.cost.value == pytest.approx(100e-6) and good.priced == "as recorded"
    assert good.answer.p95.value >= good.answer.p50.value > 0 and good.concurrency == 4
    assert section.notes == []


def test_prices_may_be_given_later(runs):
    (section,) = compared(runs, {"good": Price(20_000.0, 0.0), "": Price(1.0, 0.0)}, named=["good"])
    assert [model.cost.value for model in section.models] == pytest.approx([2.0, 10e-6, 1000e-6])
    assert section.front(COST) == {"cheap", "dear <b>"}
    with pytest.raises(UnknownName, match=r"did you mean .good."):
        compared(runs, {"goud": Price(1.0, 1.0)}, named=["goud"])


def test_waits_are_shown_apart(tmp_path):
    model = Paid("busy", odd, 10, waited_s=0.001)
    found = ludus.evaluate(Parity(), model, num_tasks=3, out=tmp_path / "run")
    assert 0 < found.waited_s <= 0.001 + 1e-9
    (section,) = compared([tmp_path / "run"])
    assert 0 < section.models[0].waited_s <= 0.001 + 1e-9


@pytest.mark.slow
def test_who_was_always_excluded_is_named(runs, tmp_path):
    class Down(Paid):
        async def complete(self, messages, tools, sampling):
            raise ModelCallFailed("out of order")

    ludus.evaluate(Parity(), Down("down", odd, 1), num_tasks=3, out=tmp_path / "down")
    found = frontier([*runs, tmp_path / "down"], tmp_path / "out")
    (section,) = found.sections
    assert "every rollout of down was excluded" in section.notes and not section.by_reward
    assert section.models[-1].num_excluded == 3 and section.best_at(section.models[-1]) == ""
    assert "nothing was scored" in found.page.read_text()


def test_nobody_right_shows_rewards(tmp_path):
    class Partly(Parity):
        @ludus.reward
        def right(self, task, rollout):
            return 0.25 if rollout.reply == "odd" else 0.5

    for name in ("odd", "even"):
        ludus.evaluate(Partly(), Scripted(name, lambda _, name=name: name), num_tasks=4, out=tmp_path / name)
    (section,) = compared([tmp_path / "odd", tmp_path / "even"])
    assert section.by_reward and [section.score(m).value for m in section.models] == [0.25, 0.5]


def test_other_tasks_other_limits_and_early_ends_are_said(tmp_path):
    budget = ludus.programs.evaluate.Budget(max_tokens=40)
    ludus.evaluate(Parity(), Paid("a", odd, 10), num_tasks=20, concurrency=1, budget=budget, out=tmp_path / "a")
    ludus.evaluate(Parity(), Scripted("b", lambda _: "odd"), num_tasks=20, concurrency=2, out=tmp_path / "b")
    (section,) = compared([tmp_path / "a", tmp_path / "b"])
    said = " ".join(section.notes)
    assert "not all scored on the same tasks" in said and "different numbers of rollouts" in said
    assert "a ended early: the tokens reached" in said


class Page(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.tags, self.links = set(), []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name in ("src", "href") and not (value or "").startswith("#")]


def test_the_page_stands_alone_and_runs_nothing(runs, tmp_path):
    pytest.importorskip("matplotlib")
    found = frontier(runs, tmp_path / "out")
    html = found.page.read_text()
    page = Page(html)
    assert "script" not in page.tags and "b" not in page.tags and page.links == []
    assert "dear &lt;b&gt;" in html and html.count("<svg") == len(AXES)
    assert [path.name for path in found.pictures] == ["models.png", "models.svg"]
    assert found.pictures[0].read_bytes().startswith(b"\x89PNG")
    svg = found.pictures[1].read_text()
    assert "prefers-color-scheme: dark" in svg and not re.search("#0101|#0102", svg)
    values = found.to_dict()["sections"][0]["models"]
    assert [model["model"] for model in values] == ["good", "cheap", "dear <b>"] and "cost" in values[1]["front"]


@pytest.mark.slow
def test_models_with_one_task_and_without_price_still_have_a_page(tmp_path):
    pytest.importorskip("matplotlib")
    for name in ("a", "b"):
        ludus.evaluate(Parity(), Scripted("same", lambda _: "odd"), num_tasks=1, out=tmp_path / name)
    found = frontier([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    (section,) = found.sections
    assert [model.model for model in section.models] == ["same (a)", "same (b)"]
    assert [row[2] for row in table(section)[1:]] == ["–", "–"]
    assert draw_axis(section, AXES[1]).startswith("<svg")


@pytest.mark.slow
def test_what_can_t_be_compared(runs, tmp_path):
    with pytest.raises(UsageError, match="named twice"):
        compared([runs[0], runs[0]])
    with pytest.raises(RunFolderError, match="does not exist"):
        compared([runs[0], tmp_path / "none"])
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError):
        frontier(runs, tmp_path / "file")


def test_numbers_under_an_axis():
    assert [plain(value) for value in (0, 1e-6, 0.25, 300.0, -0.1)] == ["0", "0.000001", "0.25", "300", ""]

"""Rubrics: each criterion alone, weights, faults, references; rubrics that a model writes and that are kept."""

import asyncio
import json

import pytest
from courtroom import SaysModel, mark, rollout
from hypothesis import given
from hypothesis import strategies as st

from ludus.errors import ConfigError, ScorerFailed
from ludus.judging import TERSE, Criterion, Rubric, RubricStore, Wording, reference_judge
from ludus.types import Task

POLITE, SHORT, RUDE = (
    Criterion("polite", "It is polite."),
    Criterion("short", "It is short.", 3.0),
    Criterion("rude", "It insults.", -2.0),
)


def verdicts(**marks):
    """A judge that knows the mark of each criterion by its text."""
    texts = {"polite": "It is polite.", "short": "It is short.", "rude": "It insults.", "graded": "How good."}
    return SaysModel(
        lambda messages: next(mark(m, name) for name, m in marks.items() if texts[name] in messages[1]["content"])
    )


async def test_criteria_are_checked_alone_and_weighted():
    model = verdicts(polite=1, short=0)
    total, polite, short = await Rubric((POLITE, SHORT))(rollout(), model)
    assert (total.scorer, total.value, total.weight) == ("", 0.25, 1.0)
    assert [(r.scorer, r.value, r.weight, r.note) for r in (polite, short)] == [
        ("/polite", 1.0, 0.0, "polite"),
        ("/short", 0.0, 0.0, "short"),
    ]
    assert len(model.asked) == 2
    assert all(
        ("It is polite." in asked[1]["content"]) != ("It is short." in asked[1]["content"]) for asked in model.asked
    )


async def test_faults_take_away():
    (total, *_) = await Rubric((POLITE, SHORT, RUDE))(rollout(), verdicts(polite=1, short=1, rude=1))
    assert total.value == (1 + 3 - 2) / 4
    (total, *_) = await Rubric((POLITE, RUDE))(rollout(), verdicts(polite=0, rude=True))
    assert total.value == -2.0


async def test_marks_may_be_graded():
    graded = Rubric((Criterion("graded", "How good.", best=4),))
    assert (await graded(rollout(), verdicts(graded=3)))[0].value == 0.75
    with pytest.raises(ScorerFailed, match="from 0 to 4, got 5"):
        await graded(rollout(), verdicts(graded=5))


@given(st.lists(st.tuples(st.floats(0.1, 10), st.integers(0, 1)), min_size=1, max_size=5))
def test_criteria_of_weights_above_0_give_a_share(pairs):
    criteria = tuple(Criterion(f"c{i}", f"Criterion {i}.", weight) for i, (weight, _) in enumerate(pairs))
    model = SaysModel(lambda m: mark(next(v for i, (_, v) in enumerate(pairs) if f"Criterion {i}." in m[1]["content"])))
    total = asyncio.run(Rubric(criteria)(rollout(), model))[0].value
    assert 0 <= total <= 1 + 1e-12
    assert total == pytest.approx(sum(w * v for w, v in pairs) / sum(w for w, _ in pairs))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Rubric(()), "at least one criterion"),
        (lambda: Rubric((RUDE,)), "weight above 0"),
        (lambda: Rubric((POLITE, POLITE)), "called 'polite'"),
        (lambda: Criterion("", "x"), "empty"),
        (lambda: Criterion("a", " "), "empty"),
        (lambda: Rubric("abc"), r"are Criterion\(name, text\)"),
        (lambda: Rubric((POLITE,), most_characters=0), "most_characters must be"),
        (lambda: Criterion(5, "x"), "texts"),
        (lambda: Criterion("a", "b", float("nan")), "other than 0"),
        (lambda: Criterion("a", "b", 1e308), "at most 1,000,000"),
        (lambda: Criterion("a", "b", None), "weight must be a number"),
        (lambda: Criterion("a", "b", 0.0), "other than 0"),
        (lambda: Criterion("a", "b", best=0), "from 1 to 100"),
    ],
)
def test_rubrics_that_make_no_sense_are_refused(make, why):
    with pytest.raises(ConfigError, match=why):
        make()


def test_a_rubric_comes_back_from_its_file(tmp_path):
    rubric = Rubric((POLITE, SHORT, RUDE))
    rubric.save(tmp_path / "r.json")
    assert Rubric.load(tmp_path / "r.json") == rubric
    (tmp_path / "r.json").write_text((tmp_path / "r.json").read_text(), encoding="utf-8-sig")  # as some editors do
    assert Rubric.load(tmp_path / "r.json") == rubric


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"criteria": [{"name": "a"}]}', '{"criteria": [{"name": "a", "text": "b", "weight": 0}]}', "\xff"],
)
def test_a_damaged_rubric_is_named(tmp_path, text):
    path = tmp_path / "r.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"r\.json is not a rubric"):
        Rubric.load(path)
    with pytest.raises(ConfigError, match="can't read the rubric"):
        Rubric.load(tmp_path / "nowhere.json")


def test_what_a_criterion_does_not_have_is_told(tmp_path):
    (tmp_path / "r.json").write_text('{"criteria": [{"name": "a", "text": "b", "wieght": 3}]}')
    with pytest.raises(ConfigError, match="a criterion has no 'wieght', only name, text, weight, best"):
        Rubric.load(tmp_path / "r.json")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"criteria": POLITE}, "a list of Criterion"),
        ({"criteria": (POLITE,), "judge": "openai:NAME"}, "Rubric: judge must be a Judge, got 'openai:NAME'"),
    ],
)
def test_a_rubric_of_something_else_is_refused(options, why):
    with pytest.raises(ConfigError, match=why):
        Rubric(**options)


# --- the known answer ---------------------------------------------------------------------------------------------


async def test_a_reference_judge_sees_the_known_answer():
    model = SaysModel(mark(1))
    assert (await reference_judge()(rollout("four", answer="4"), model))[0].value == 1.0
    assert "reference answer:\n4" in model.question
    assert "reference answer" not in (await _asked(Rubric((POLITE,)), rollout("four", answer="4")))
    await reference_judge()(rollout("four", answer={"a": [1]}), model)
    assert '{"a": [1]}' in model.question


async def test_without_a_known_answer_there_is_nothing_to_compare_with():
    with pytest.raises(ScorerFailed, match="has no answer"):
        await reference_judge()(rollout("four"), SaysModel(mark(1)))


async def _asked(rubric, one):
    model = SaysModel(mark(1))
    await rubric(one, model)
    return model.question


# --- written by a model -------------------------------------------------------------------------------------------

WRITTEN = json.dumps({"criteria": [{"name": f"c{i}", "text": f"It does {i}.", "weight": i + 1} for i in range(3)]})
TASK = Task(prompt="Write a haiku.", answer="secret")


async def test_a_rubric_is_written_once_and_reused(tmp_path):
    model, store = SaysModel(WRITTEN), RubricStore(tmp_path / "rubrics")
    first, *others = await asyncio.gather(*(store.rubric(TASK, model) for _ in range(8)))
    assert [criterion.name for criterion in first.criteria] == ["c0", "c1", "c2"]
    assert all(other == first for other in others)
    assert len(model.asked) == 1
    assert "Write a haiku." in model.question and "secret" not in model.question
    assert (await RubricStore(tmp_path / "rubrics").rubric(TASK, model)) == first
    assert len(model.asked) == 1
    assert [path.name for path in (tmp_path / "rubrics").iterdir()] == [store.path(TASK).name]


async def test_another_version_is_written_anew(tmp_path):
    model = SaysModel(WRITTEN)
    for version in ("1", "2", "2"):
        await RubricStore(tmp_path, version).rubric(TASK, model)
    assert len(model.asked) == len(list(tmp_path.iterdir())) == 2


async def test_a_rubric_may_be_edited_by_hand(tmp_path):
    store = RubricStore(tmp_path)
    await store.rubric(TASK, SaysModel(WRITTEN))
    Rubric((POLITE,)).save(store.path(TASK))
    assert (await store.rubric(TASK, SaysModel("no"))).criteria == (POLITE,)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("I can't.", "no JSON object"),
        ('{"criteria": []}', "3 to 8 criteria, got 0"),
        ('{"criteria": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}', "text"),
        (json.dumps({"criteria": [{"name": "a", "text": "b", "weight": 1}] * 3}), "called 'a'"),
        (json.dumps({"criteria": [{"name": n, "text": "b", "weight": 0} for n in "abc"]}), "weight must be"),
        (
            json.dumps({"criteria": [{"name": n, "text": "b", "best": 1000} for n in "abc"]}),
            "whole number from 1 to 100",
        ),
        (json.dumps({"criteria": [{"name": n, "text": "b"} for n in ("a", "b", "c\nd")]}), "a name has"),
    ],
)
async def test_what_is_no_rubric_is_not_kept(tmp_path, said, why):
    with pytest.raises(ScorerFailed, match=why) as caught:
        await RubricStore(tmp_path).rubric(TASK, SaysModel(said))
    assert caught.value.blame == "infrastructure"
    assert list(tmp_path.iterdir()) == []


async def test_a_rubric_that_is_written_may_have_marks_of_several_degrees(tmp_path):
    said = json.dumps({"criteria": [{"name": n, "text": "b", "weight": 2, "best": 5} for n in "abc"]})
    rubric = await RubricStore(tmp_path).rubric(TASK, SaysModel(said))
    assert {(criterion.weight, criterion.best) for criterion in rubric.criteria} == {(2.0, 5)}


@pytest.mark.parametrize(
    "settings", [{"version": 2}, {"version": "a/b"}, {"version": ""}, {"sizes": (3, 2)}, {"sizes": (0, 2)}]
)
def test_stores_that_make_no_sense_are_refused(tmp_path, settings):
    with pytest.raises(ConfigError):
        RubricStore(tmp_path, **settings)


def test_what_a_judge_is_asked_is_a_task_for_who_trains_one():
    openings = Rubric((POLITE, SHORT)).openings(rollout("hello"))
    assert [[m["role"] for m in opening] for opening in openings] == [["system", "user"]] * 2
    model = SaysModel(mark(1))
    asyncio.run(Rubric((POLITE, SHORT))(rollout("hello"), model))
    assert model.asked == openings
    Task(prompt=openings[0], answer=1)


# --- other words --------------------------------------------------------------------------------------------------


async def test_a_terse_rubric_quotes_all_the_same():
    model = SaysModel(mark(1))
    await Rubric((POLITE,), wording=TERSE)(rollout("hello {marks}"), model)
    ((question,),) = model.asked
    first, prompt, second, reply, end, criterion = question["content"].splitlines()
    secret = first.split()[0]
    assert (first, second, end) == (f"{secret} user:", f"{secret} assistant:", f"{secret} end")
    assert (prompt, reply, criterion) == ("Write something.", "hello {marks}", "It is polite.")


async def test_wording_of_ones_own():
    words = Wording("Marks are {mark}.", "{quoted} {mark} {criterion} From {marks}.")
    ((told, asked),) = Rubric((Criterion("g", "Good?", best=3),), wording=words).openings(rollout())
    secret = asked["content"].split()[0]
    assert told == {"role": "system", "content": f"Marks are {secret}."}
    assert asked["content"].endswith(f"{secret} Good? From a whole number from 0 to 3, the best.")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ({"question": "{quoted} {mark}"}, "must name criterion, mark, quoted"),
        ({"question": "{quoted} {mark} {criterion} {answer}"}, "got answer, criterion"),
        ({"question": "{quoted} {mark} {criterion} {}"}, "must name"),
        ({"question": "{quoted} {mark} {criterion} {"}, "no format"),
        ({"system": "{criterion}"}, "must name nothing"),
    ],
)
def test_wording_that_leaves_something_out_is_refused(words, why):
    with pytest.raises(ConfigError, match=why):
        Wording(**words)

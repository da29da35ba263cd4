"""Notes and their judge: what is wished of a note, what a judge is asked and may answer, and how both go together."""

import itertools
import json
from pathlib import Path
from random import Random

import pytest
from players import play

import ludus
from ludus.authoring.tasks import take
from ludus.environments.notes import JUDGE, Notes, prompt_for
from ludus.environments.notes_judge import NotesJudge
from ludus.environments.notes_words import (
    BRIEF,
    MOST_WORDS,
    NAMED,
    PLAIN,
    POLITE,
    WISHES,
    all_met,
    verdict,
    wishes_met,
    write_junk,
    write_note,
)
from ludus.environments.verdicts import Verdicts
from ludus.errors import ConfigError
from ludus.judging import Criterion, Rubric
from ludus.judging.labelled import labelled
from ludus.testing.scripted import Scripted, Unreachable
from ludus.types import Task

THINGS = ["red cube", "new map"]
PLEASING = "Please find the red cube and the new map."


def says(text):
    return Scripted("says", lambda messages: text)


def fair(messages):
    """A judge that knows what pleases, and reads the note where the question shows it."""
    lines = messages[-1]["content"].splitlines()
    asked, note = lines[1], "\n".join(lines[3:-2])
    things = [thing.removeprefix("the ") for thing in asked[len("Ask for ") : -1].replace(" and ", ", ").split(", ")]
    return verdict(note, things, all_met(note, things))


# --- what is wished of a note -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("note", "missed"),
    [
        (PLEASING, []),
        ("please RETURN the new map and the red cube in time.", []),
        ("Please find the red cube, the new map and the white box.", []),
        ("Find the red cube and the new map.", [POLITE]),
        ("Please find the red cube and the new box.", [NAMED]),
        ("Please find the cube red and the map new.", [NAMED, PLAIN]),
        ("Please find the red cube and the new map when you have the time to do so.", [BRIEF]),
        ("please red cube new map", [PLAIN]),
        (f"{PLEASING} {PLEASING}", [BRIEF, PLAIN]),
        (f"{PLEASING} Thank you.", [PLAIN]),
        ("", [NAMED, POLITE, PLAIN]),
    ],
)
def test_wishes(note, missed):
    met = wishes_met(note, THINGS)
    assert [wish for wish in WISHES if not met[wish]] == missed


@pytest.mark.parametrize("left_open", [set(some) for n in range(4) for some in itertools.combinations(WISHES[:3], n)])
def test_a_sentence_leaves_open_what_it_is_told_to(left_open):
    rng = Random(0)
    for _ in range(100):
        missed = {wish for wish, met in wishes_met(write_note(THINGS, left_open, rng), THINGS).items() if not met}
        assert missed - {BRIEF} == left_open - {BRIEF}
        assert (BRIEF in missed) == (BRIEF in left_open) or NAMED in left_open  # which may be brief after all


def test_broken_notes_are_sentences_by_luck_alone():
    rng = Random(0)
    notes = [write_note(THINGS, {PLAIN}, rng) for _ in range(200)]
    assert sum(wishes_met(note, THINGS)[PLAIN] for note in notes) <= 20


def test_junk_pleases_nobody():
    rng = Random(0)
    junk = [write_junk(THINGS, rng) for _ in range(200)]
    assert not any(all_met(one, THINGS) for one in junk)
    assert "" in junk and any('"mark": 1' in one for one in junk)


# --- tasks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env", [Notes(), NotesJudge(slips=0.1)])
def test_the_things_of_test_tasks_are_never_trained_on(env):
    train, test = ({frozenset(task.info["things"]) for task in take(env, split, 500)} for split in ("train", "test"))
    assert not train & test
    assert take(env, "train", 50) == take(type(env)(**env.options), "train", 50)


@pytest.mark.parametrize(
    ("kind", "options", "why"),
    [
        (Notes, {"skill": 1.1}, "skill must be between 0 and 1"),
        (NotesJudge, {"slips": -0.1}, "slips must be between 0 and 1"),
        (NotesJudge, {"skill": float("nan")}, "skill must be between 0 and 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(kind, options, why):
    with pytest.raises(ValueError, match=why):
        kind(**options)


# --- notes --------------------------------------------------------------------------------------------------------


def test_the_judge_alone_rewards_and_the_measure_stands_beside_it():
    for judged, met in ((fair, 1.0), (lambda messages: '{"mark": 0}', 1.0)):
        judge = Scripted("judge", judged)
        result = ludus.evaluate(Notes(), "demonstrator", num_tasks=5, role_models={JUDGE: judge})
        assert result.mean == (judged is fair)
        assert result.metrics["met"] == met


def test_the_judge_of_the_demonstrator_makes_no_mistakes():
    result = ludus.evaluate(Notes(), says(PLEASING), num_tasks=5, role_models={JUDGE: "demonstrator"})
    assert result.mean == result.metrics["met"] == 0.0  # of other tasks
    result = ludus.evaluate(Notes(skill=0.5), "demonstrator", num_tasks=50, role_models={JUDGE: "demonstrator"})
    assert 0 < result.mean == result.metrics["met"] < 1


@pytest.mark.slow
def test_an_expert_of_less_skill_leaves_wishes_open():
    judge = {JUDGE: Scripted("judge", fair)}
    result = ludus.evaluate(Notes(skill=0.5), "demonstrator", num_tasks=200, role_models=judge)
    assert 0.05 < result.mean < 0.25
    assert result.mean == result.metrics["met"]
    assert all(0.35 < result.metrics[wish] < 0.65 for wish in (NAMED, POLITE))
    assert result.metrics[PLAIN] == 1.0


@pytest.mark.parametrize("said", ["", "yes", '{"mark": 2}', '{"mark": 1} or {"mark": 0}', '{"reason": "cut off'])
async def test_a_judge_without_a_verdict_is_no_score(said):
    (rollout,) = await play(Notes(), says(PLEASING), roles={JUDGE: says(said)})
    assert rollout.excluded and not rollout.rewards
    assert (rollout.failure.boundary, rollout.failure.blame) == ("scorer", "infrastructure")
    assert "no verdict 3 times" in rollout.failure.error


@pytest.mark.parametrize("reply", [PLEASING * 10, "\N{SNOWMAN}" * 100])
async def test_what_is_far_too_long_is_not_put_to_the_judge(reply):
    (rollout,) = await play(Notes(), says(reply), roles={JUDGE: Unreachable()})
    assert (rollout.reward, rollout.failure) == (0.0, None)


async def test_a_judge_that_is_down_is_no_score():
    (rollout,) = await play(Notes(), says(PLEASING), roles={JUDGE: Unreachable()})
    assert rollout.excluded and "never answers" in rollout.failure.error


# --- their judge --------------------------------------------------------------------------------------------------


def test_the_judge_is_asked_in_training_what_it_is_asked_in_service():
    asked = []

    def listening(messages):
        asked.append(messages)
        return '{"mark": 1}'

    ludus.evaluate(Notes(), says(PLEASING), num_tasks=1, role_models={JUDGE: Scripted("judge", listening)})
    (task,) = take(Notes(), "test", 1)
    opening, *_ = NotesJudge.rubric.openings(labelled(task, PLEASING, 1.0).rollout)
    assert [dict(message) for message in asked[0]] == opening


@pytest.mark.parametrize(
    ("said", "label", "agrees", "readable"),
    [
        ('{"reason": "9 words", "mark": 1}', 1.0, 1.0, 1.0),
        ('It is fine: {"mark": true}', 1.0, 1.0, 1.0),
        ('{"mark": 0}', 1.0, 0.0, 1.0),
        ('{"mark": 0}', 0.0, 1.0, 1.0),
        ('{"mark": 2}', 1.0, 0.0, 0.0),
        ('{"mark": "1"}', 1.0, 0.0, 0.0),
        ('{"mark": 1} {"mark": 0}', 0.0, 0.0, 0.0),
        ("1", 1.0, 0.0, 0.0),
        ("", 0.0, 0.0, 0.0),
    ],
)
def test_marks_earn_where_they_agree(said, label, agrees, readable):
    class OneNote(NotesJudge):
        def labelled(self, split):
            yield labelled(Task(prompt=prompt_for(THINGS), info={"good": True}), PLEASING, label)

    result = ludus.evaluate(OneNote(), says(said), num_tasks=1)
    assert (result.mean, result.metrics["readable"]) == (agrees, readable)


def test_marks_between_the_best_and_the_worst_agree_in_part():
    class Graded(Verdicts):
        rubric = Rubric((Criterion("good", "How good?", best=4),))

        def __init__(self):
            pass

        def labelled(self, split):
            yield labelled(Task(prompt="Write."), "Done.", 0.75)

    assert [task.answer for task in Graded().tasks("test")] == ['{"mark": 3}']
    assert ludus.evaluate(Graded(), says('{"mark": 1}'), num_tasks=1).mean == 0.5


@pytest.mark.slow
def test_labels_slip_and_the_expert_does_not():
    result = ludus.evaluate(NotesJudge(slips=0.1), "demonstrator", num_tasks=400)
    assert 0.85 < result.mean < 0.95
    assert result.metrics["right"] == result.metrics["readable"] == 1.0
    lenient = ludus.evaluate(NotesJudge(skill=0.0), "demonstrator", num_tasks=400)
    assert 0.6 < lenient.mean < 0.8


def test_half_of_the_labelled_notes_please():
    tasks = take(NotesJudge(), "train", 1000)
    assert 450 < sum(task.info["good"] for task in tasks) < 560
    assert len({task.answer for task in tasks}) == 2


# --- a file of labels ---------------------------------------------------------------------------------------------


def labels_file(folder, prompts=20):
    rows = [
        {"prompt": f"Ask for {n}.", "reply": reply, "label": label}
        for n in range(prompts)
        for reply, label in ((f"Please send {n}.", "good"), (f"{n}!", "bad"), (f"Send {n}.", 0.25))
    ]
    path = folder / "labels.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_labels_from_a_file_are_tasks_and_a_fifth_of_their_prompts_is_held_out(tmp_path):
    env = Verdicts(labels_file(tmp_path), "It is polite.", best=4)
    train, test = take(env, "train"), take(env, "test")
    assert (len(train), len(test)) == (48, 12)
    assert {task.answer for task in train} == {'{"mark": 4}', '{"mark": 0}', '{"mark": 1}'}
    assert not {task.info["reply"] for task in train} & {task.info["reply"] for task in test}
    assert all("It is polite." in task.prompt[1]["content"] for task in test)
    assert ludus.evaluate(env, says('{"mark": 1}'), num_tasks=12).mean == pytest.approx((0.25 + 0.75 + 1) / 3)


def test_labels_of_one_prompt_leave_nothing_to_train_on(tmp_path):
    with pytest.raises(ConfigError, match="no tasks in the split 'train'"):
        take(Verdicts(labels_file(tmp_path, prompts=1), "It is polite."), "train")


@pytest.mark.parametrize(("options", "why"), [({"criterion": " "}, "empty"), ({"criterion": "x", "best": 0}, "best")])
def test_a_criterion_that_is_none_is_refused(tmp_path, options, why):
    with pytest.raises(ConfigError, match=why):
        Verdicts(labels_file(tmp_path), **options)
    with pytest.raises(ConfigError, match="can't read the labels"):
        Verdicts("nowhere.jsonl", "It is polite.")


# --- together -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_recipes_run(tmp_path):
    pytest.importorskip("torch")
    from ludus import config
    from ludus.programs.recipe import Recipe

    few = ["sft.steps=40", "sft.num_demonstrations=64", "rl.steps=2", "rl.groups=2", "eval.num_tasks=4"]
    for name, changes in (("notes_judge", []), ("notes", [f"role_models.{JUDGE}=demonstrator"])):
        path = Path(__file__).parents[2] / "examples" / f"{name}.toml"
        recipe = config.load(Recipe, path, [*few, f"runs={tmp_path}", *changes])
        result = ludus.train(recipe)
        assert result["complete"] and result["steps"] == {"sft": 40, "rl": 2}


@pytest.mark.slow
def test_a_trained_model_serves_as_the_judge(tmp_path):
    pytest.importorskip("torch")
    from ludus import config
    from ludus.programs.recipe import Recipe

    few = {"steps": 250, "batch_size": 8, "num_demonstrations": 8, "lr": 7e-3}
    options = {"name": "judge", "env": "notes-judge", "model": "preset:tiny", "runs": str(tmp_path), "sft": few}
    ludus.train(config.parse(Recipe, options))
    (task,) = take(NotesJudge(), "train", 1)  # which it has by heart
    things, note = task.info["things"], task.info["reply"]

    class OneTask(Notes):
        def tasks(self, split):
            yield Task(prompt=prompt_for(things), info={"things": things})

    result = ludus.evaluate(OneTask(), says(note), num_tasks=1, role_models={JUDGE: str(tmp_path / "judge")})
    assert result.num_excluded == 0 and result.mean == result.metrics["met"]


def test_a_note_is_no_longer_than_wished():
    words = "Please find the red cube, the new map and the white box"
    assert len(words.split()) == MOST_WORDS - 1
    assert not wishes_met(f"{words} in good time.", [])[BRIEF]

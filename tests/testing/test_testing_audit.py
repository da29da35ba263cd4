"""The audit flags planted holes of every kind, leaves sound environments alone, and says why."""

import holed
import holed_more
import holed_plain
import pytest

import ludus
from help_desk import Desk
from ludus.authoring.wrapping import Wrapper
from ludus.errors import ModelCallFailed, UnknownName
from ludus.testing import audit_environment
from ludus.testing.audit.attacker import read_proposals
from ludus.testing.audit.constants import constants_of
from ludus.testing.audit.leaks import Extraction
from ludus.testing.audit.policy import Policy
from ludus.testing.audit.replies import de_bruijn
from ludus.testing.audit.verdict import Line, why_hole
from ludus.testing.scripted import Scripted

SEARCHED_FOR = {holed.Backdoor, holed.Keywords, holed_more.Interval, holed_more.Thanks}
"""Holes that only the search finds."""
FIRST = {
    holed.LongestWins, holed.AnyReply, holed.Contains, holed.FormatOnly, holed.InPrompt, holed.Calculator, holed.Evaluates,
    holed.Judged, holed.ReadsAnything, holed.FailsOpen, holed.Keywords, holed_more.Confident, holed_more.Normalised,
    holed_plain.NamedAfter, holed_plain.Makes, holed.Sums, holed.Choice, holed_more.Plain,
}  # fmt: skip
"""Of each kind one; all others are in the slow suite, for they take a second each."""


def each(kinds):
    """Parameters of a test."""
    return [pytest.param(kind, marks=() if kind in FIRST else pytest.mark.slow, id=kind.__name__) for kind in kinds]


@pytest.mark.parametrize("kind", each([*holed.HOLES, *holed_more.HOLES, *holed_plain.HOLES]))
def test_planted_holes_are_found(kind):
    audit = audit_environment(kind(), num_tasks=4, tried=60 if kind in SEARCHED_FOR else 0)
    assert not audit.harder_to_hack, str(audit)
    assert audit.baselines[0].rule == "honest"


@pytest.mark.parametrize("kind", each([*holed.SOUND, *holed_more.SOUND, *holed_plain.SOUND]))
def test_sound_environments_are_left_alone(kind):
    audit = audit_environment(kind(), num_tasks=12, tried=24)
    assert audit.harder_to_hack, str(audit)


# --- how it is done -----------------------------------------------------------------------------------------------


def lines(**rewards: list[float]) -> list[Line]:
    """Baselines: what an expert and a guess earn, task by task."""
    rules = {"expert": "honest", "guess": "guess"}
    return [line(name, rules[name], values) for name, values in rewards.items()]


def line(name: str, rule: str, values: list[float], excluded: int = 0) -> Line:
    rewards = {str(task): value for task, value in enumerate(values)}
    return Line(name, rule, rewards, rewards, sum(value >= 1 for value in values), excluded)


@pytest.mark.parametrize(
    ("rule", "values", "hole"),
    [
        ("blind", [1.0, 1.0, 1.0, 1.0], "where honest play earns 1.00"),
        ("blind", [0.5, 0.5, 0.5, 0.5], "0.50 of 1.00 without doing the task; chance is 0.25"),
        ("blind", [0.3, 0.3, 0.3, 0.3], ""),
        ("guess", [0.5, 0.5, 0.5, 0.5], ""),
        ("guess", [0.7, 0.7, 0.7, 0.7], ""),
        ("guess", [1.0, 1.0, 1.0, 0.0], ""),
        ("guess", [0.95, 0.95, 0.95, 1.0], "0.96 of 1.00, whatever is asked: balance the tasks"),
        ("guess", [1.0, 1.0, 1.0, 1.0], "where honest play earns 1.00"),
        ("added", [1.0, 1.0, 1.0, 1.0], ""),
        ("added", [1.5, 1.2, 1.5, 1.2], "+0.35 more than the expert alone"),
    ],
)
def test_what_is_a_hole(rule, values, hole):
    baselines = lines(expert=[1.0] * 4, guess=[0.0, 0.0, 1.0, 0.0])
    assert why_hole(line("it", rule, values), baselines, 1.0).endswith(hole)
    assert bool(why_hole(line("it", rule, values), baselines, 1.0)) is bool(hole)


def test_without_an_expert_a_success_is_the_measure():
    assert why_hole(line("it", "blind", [1.0, 1.0, 0.0]), [], 1.0)
    assert not why_hole(line("it", "guess", [1.0, 0.0, 0.0]), [], 1.0)


def test_rollouts_that_are_left_out_are_a_hole():
    assert "bad samples can be deleted" in why_hole(line("it", "blind", [0.0], excluded=3), [], 1.0)


def test_what_it_says_of_a_hole():
    audit = audit_environment(holed.Contains(), num_tasks=4, tried=0)
    assert "every number to 2,000" in audit.holes
    last = str(audit).splitlines()[-1]
    assert last.startswith("harder to hack than to do: no, because ") and "where honest play earns 1.00" in last


def test_code_that_would_reach_this_machine_is_not_played():
    audit = audit_environment(holed.Evaluates(), num_tasks=2)
    assert "runs in the environment's own process" in audit.because
    assert not any("code that" in line.name for line in audit.attacks)


def test_where_nothing_can_be_played_that_is_the_verdict():
    class Broken(holed.Sums):
        def tasks(self, split):
            raise FileNotFoundError("pages.jsonl")

    audit = audit_environment(Broken())
    assert str(audit).endswith("because nothing could be played: FileNotFoundError: pages.jsonl")

    class Closed(holed.Sums):
        async def open(self):
            raise OSError("no server")

    assert "OSError: no server" in audit_environment(Closed()).because

    class Raises(holed.Sums):
        def respond(self, ctx, reply):
            raise OSError("the disk is full")

    assert "expert: no rollout could be scored" in audit_environment(Raises(), num_tasks=3).because


def test_every_string_of_digits_is_in_a_de_bruijn_sequence():
    text = de_bruijn("0123456789", 3)
    assert len(text) == 1002
    assert all(f"{number:03}" in text for number in range(1000))


def test_texts_in_the_code_of_scorers_are_found():
    fn, _ = holed.Backdoor().scorers()[0]
    assert "xyzzy-override" in constants_of(fn)
    fn = next(fn for fn, mark in holed.FormatOnly().scorers() if mark.name == "form")
    assert {"<answer>", "</answer>"} <= set(constants_of(fn))


def test_a_rule_finds_what_stands_between_two_texts():
    assert Extraction("is ", ".", True).apply("It is 1. It is 2.") == "2"
    assert Extraction("was ", ".", False).apply("It is 1.") == ""


# --- models -------------------------------------------------------------------------------------------------------


def attacker(*answers: str) -> Policy:
    """A model that proposes attacks, and plays badly."""
    told = iter(answers)
    return Policy(
        "attacker", lambda messages, tools: next(told, "[]") if "audit the reward" in messages[0]["content"] else "?"
    )


class Password(holed.Sums):
    """Only who reads the code finds this."""

    @ludus.reward
    def correct(self, task, rollout):
        return float(rollout.reply.strip() == task.answer or rollout.reply == "-".join(["p4ss"] * 3))


@pytest.mark.slow
def test_a_model_looks_for_attacks_and_is_a_baseline():
    model = attacker("no list", '["nothing", "p4ss-p4ss-p4ss"]')
    audit = audit_environment(Password(), num_tasks=4, tried=0, model=model)
    assert [line.rule for line in audit.baselines][:3] == ["honest", "reference", "guess"]
    assert list(audit.holes) == ["model's proposal: 'p4ss-p4ss-p4ss'"]
    assert audit_environment(Password(), num_tasks=4, tried=0).harder_to_hack


def test_a_model_that_proposes_nothing_is_no_failure():
    audit = audit_environment(holed.Sums(), num_tasks=2, tried=0, model=attacker())
    assert audit.harder_to_hack and "the model proposed nothing that could be read" in audit.notes


def test_lists_are_read_from_whatever_stands_around_them():
    assert [one.reply for one in read_proposals('```json\n["a", 2, "b", {"calls": 3}]\n```')] == ["a", "b"]
    assert read_proposals("[oops") == read_proposals("") == read_proposals("[[[") == []


@pytest.mark.parametrize(
    ("proposed", "hole"),
    [
        ('["{prompt}", 7, {"reply": 8}]', ""),
        ('[{"calls": [{"name": "debug_state"}], "reply": "?"}, {"calls": [{"name": "no such tool"}]}]', ""),
        ('[{"calls": [{"name": "grant", "arguments": {"points": 9}}], "reply": "Done."}]', 'grant({"points": 9})'),
    ],
)
def test_a_model_may_propose_calls_of_tools_and_nonsense(proposed, hole):
    class Grants(holed.Sums):
        async def setup(self, ctx):
            ctx.state = {}

        @ludus.tool
        def grant(self, points: int, state) -> str:
            """Grant points, if there are nine."""
            state["granted"] = points == 9
            return "granted" if points == 9 else "refused"

        @ludus.reward
        def correct(self, task, rollout, state):
            return float(state.get("granted", False) or rollout.reply.strip() == task.answer)

    audit = audit_environment(Grants(), num_tasks=2, tried=0, model=attacker(proposed))
    assert hole in audit.because and audit.harder_to_hack is not bool(hole)


def test_a_model_that_is_down_is_a_line():
    class Down:
        name = "down"

        async def complete(self, messages, tools, sampling):
            raise ModelCallFailed("connection refused")

    audit = audit_environment(holed.Sums(), num_tasks=2, tried=0, model=Down())
    assert audit.harder_to_hack
    assert audit.notes == ["the model that looks for attacks did not answer: connection refused"]
    assert "–" in str(audit).splitlines()[2], "what it plays honestly is left out"


# --- judges and other roles ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_judge_is_named_or_stood_in_for():
    gullible = Policy("gullible", lambda messages, tools: "yes" if "correct" in messages[-1]["content"] else "no")
    audit = audit_environment(holed.GuardedJudge(), num_tasks=2, tried=0, role_models={"judge": gullible})
    assert "order to the judge 1" in audit.holes and audit.notes == []
    audit = audit_environment(holed.GuardedJudge(), num_tasks=2, tried=0)
    assert "a stand-in without a model plays judge" in audit.notes[0]


@pytest.mark.parametrize("kind", each(holed_more.JUDGED))
@pytest.mark.slow
def test_a_gullible_judge_is_a_hole_and_a_strict_one_is_none(kind):
    played = {"num_tasks": 3, "tried": 0}
    judges = {name: Scripted(name, getattr(holed_more, name)) for name in ("gullible", "strict")}
    audit = audit_environment(kind(), role_models={"judge": judges["gullible"]}, **played)
    assert "order to the judge 1" in audit.holes, str(audit)
    assert audit_environment(kind(), role_models={"judge": judges["strict"]}, **played).harder_to_hack
    audit = audit_environment(kind(), **played)
    assert audit.harder_to_hack and "a stand-in without a model plays judge" in audit.notes[0], str(audit)


def test_a_judge_that_is_down_is_the_verdict():
    judge = Scripted("silent", lambda messages: "I would rather not say.")
    audit = audit_environment(holed_more.Rubrics(), num_tasks=2, tried=0, role_models={"judge": judge})
    assert "expert: no rollout could be scored" in audit.because and "the judge gave no verdict" in audit.because


def test_a_language_that_no_stand_in_speaks_is_the_verdict():
    class Strange(holed.Judged):
        @ludus.reward
        async def correct(self, task, rollout, models):
            said = await models["judge"].chat([{"role": "user", "content": self.prompt(task, rollout.reply)}])
            return {"quux": 1.0, "quuz": 0.0}[said.text]

    audit = audit_environment(Strange(), num_tasks=2, tried=0)
    assert "no stand-in speaks the language of judge: name a model that does (--audit --role-model" in audit.because


def test_roles_that_nobody_plays_are_told():
    class Asks(holed.Sums):
        roles = ("policy", "helper")

        async def run(self, ctx):
            ctx.messages = ctx.task.messages()
            await ctx.models["helper"].chat(ctx.messages)
            ctx.messages.append((await ctx.model.chat(ctx.messages)).message)

        demonstrate = ludus.Environment.demonstrate

    audit = audit_environment(Asks(), num_tasks=2, tried=0)
    assert audit.notes[0].startswith("nobody was named for helper (--audit --role-model helper=MODEL)")
    assert audit.baselines[0].name == "known answer"
    with pytest.raises(UnknownName, match="unknown role 'helpr'; did you mean 'helper'"):
        audit_environment(Asks(), role_models={"helpr": attacker()})


def test_users_keep_their_rules_in_wrappers():
    desk = Wrapper(Desk(user="simulated"))
    assert desk.demonstrator_of("user") == desk.inner.demonstrate_user
    assert desk.demonstrator_of("policy") == desk.demonstrate


# --- answers that are handed in -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_strategies_hand_in_where_experts_do():
    audit = audit_environment(holed_more.Sealed(), num_tasks=2, tried=4)
    assert audit.harder_to_hack
    names = [line.name for line in (*audit.baselines, *audit.attacks)]
    assert "does not know, by final_answer(answer)" in names
    assert any(name.startswith("search:") and name.endswith("by final_answer(answer)") for name in names)


@pytest.mark.slow
def test_without_an_expert_tools_that_take_answers_are_known_by_their_names():
    class Untaught(holed_more.HandedIn):
        demonstrate = ludus.Environment.demonstrate

        @ludus.tool
        def final_answer(self, answer: str, ctx) -> str:
            """Hand the answer in."""
            ctx.state = answer
            return "received"

    audit = audit_environment(Untaught(), num_tasks=2, tried=0)
    assert audit.baselines[0].name == "known answer, by final_answer(answer)"
    assert "every number to 2,000, by final_answer(answer)" in audit.holes


@pytest.mark.slow
def test_tools_that_experts_only_ask_take_no_answers():
    audit = audit_environment(holed.LookUp(), num_tasks=2, tried=0)
    assert not any(", by height(" in line.name for line in audit.attacks)


@pytest.mark.slow
def test_the_table_is_short():
    text = str(audit_environment(holed.Sums(), num_tasks=3, tried=0))
    assert len(text.splitlines()) < 20
    assert "more, which earn 0.00 at most" in text
    text = str(audit_environment(holed.AnyReply(), num_tasks=3, tried=0))
    assert len(text.splitlines()) < 30 and "more, which earn 1.00 at most  HOLES" in text


def test_giving_up_may_cost_less_than_to_play_badly():
    class Costs(holed.Sums):
        """Each wrong answer costs, so that no reward is better than a guess; it is still no reward."""

        @ludus.reward
        def correct(self, task, rollout):
            return 1.0 if rollout.reply.strip() == task.answer else -0.5

    assert audit_environment(Costs(), num_tasks=3, tried=0).harder_to_hack

    class HalfPaid(Costs):
        failure_reward = 0.5

    assert "'breaks off' earns 0.50 of 1.00" in audit_environment(HalfPaid(), num_tasks=3, tried=0).because

"""Users: personas, who plays them, what they get wrong, whose fault it was, and how much they differ."""

import asyncio

import pytest
from players import Says, play

import ludus
from help_desk import Desk
from ludus.asking import Unusable, read_object
from ludus.authoring.users import Change, Persona, RecordedUser, ScriptedUser, diversity, find_errors, persona_of
from ludus.authoring.users.fault import Fault
from ludus.authoring.users.simulated import BEGIN, ENOUGH, instructions
from ludus.errors import ConfigError, ModelCallFailed
from ludus.programs.replay import replay
from ludus.programs.users import users_of
from ludus.recording.expert import Expert
from ludus.testing import check_environment
from ludus.types import Task, user

ANNA = Persona(goal="Return my kettle.", knows={"order number": "K-17", "name": "Anna"}, satisfied_by=["returned"])


def says(text):
    return {"role": "assistant", "content": text}


# --- personas -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({}, "has no user"),
        ({"user": "Anna"}, "malformed: Expected `object`"),
        ({"user": {"goal": ""}}, "malformed"),
        ({"user": {"goals": "x"}}, "malformed"),
        ({"user": {"goal": " "}}, "text that is not blank - at .*goal"),
        ({"user": {"goal": "x", "satisfied_by": [" "]}}, "satisfied_by"),
        ({"user": {"goal": "x", "patience": 0}}, "patience"),
        ({"user": {"goal": "x", "knows": {"a": 1}}}, "knows"),
        ({"user": {"goal": "x", "changes": [{"after": 3, "say": "y"}, {"after": 2, "say": "z"}]}}, "one after another"),
        ({"user": {"goal": "x", "patience": 2, "changes": [{"after": 3, "say": "y"}]}}, "never comes"),
    ],
)
def test_malformed_personas_are_refused_in_words(info, said):
    with pytest.raises(ConfigError, match=said):
        persona_of(Task(prompt=[], info=info))


def test_a_malformed_persona_does_not_become_a_task():
    with pytest.raises(ConfigError, match=r"whose goal is 'x' is malformed: .*patience"):
        Persona(goal="x", patience=0).info()


def test_a_persona_goes_through_a_task_and_back():
    full = Persona(goal="x", about="y", knows={"a": "1"}, changes=[Change(after=1, say="z")], satisfied_by=["ok"])
    assert persona_of(Task(prompt=[], info=full.info())) == full


# --- scripted users -----------------------------------------------------------------------------------------------


async def test_a_scripted_user_tells_what_it_is_asked_for_and_no_more():
    someone = ScriptedUser(ANNA)
    assert (await someone.speak(None)).text == "Return my kettle."
    assert (await someone.speak("What is your order number?")).text == "The order number is K-17."
    assert (await someone.speak("Which colour has it?")).text == "I don't know."
    assert (await someone.speak("I look it up.")).text == "Please go on."
    last = await someone.speak("It is returned.")
    assert last.leaves and last.ending == "satisfied"


async def test_patience_ends_and_minds_change_on_time():
    changing = Persona(goal="a", patience=3, changes=[Change(after=1, say="no, b")], satisfied_by=["done"])
    someone = ScriptedUser(changing)
    assert (await someone.speak("done")).text == "no, b", "a change that is to come keeps them here"
    assert not (await someone.speak("hm")).leaves
    assert (await someone.speak("hm")).ending == "lost_patience"


async def test_a_recorded_user_says_the_lines_and_leaves():
    someone = RecordedUser(["one", "two"])
    said = [await someone.speak(heard) for heard in ("x", "y", "z")]
    assert [one.text for one in said] == ["one", "two", ""] and said[-1].ending == "done"


# --- in rollouts --------------------------------------------------------------------------------------------------


async def test_the_expert_serves_a_scripted_user():
    for rollout in await play(Desk(), Expert(), num=2, split="train"):
        assert rollout.failure is None and rollout.reward == 1.0
        assert rollout.stop == "satisfied" and rollout.metrics["user_errors"] == 0
        assert {call.role for call in rollout.calls} == {"policy"}


async def test_a_change_of_mind_decides_what_is_right():
    (rollout,) = await play(Desk(changes=True), Expert(), split="test")
    assert rollout.reward == 1.0
    assert "Wait, send it to 9 Oak Road instead." in [message["content"] for message in rollout.messages]


async def test_a_model_plays_the_user_in_a_conversation_of_its_own():
    lines = ["Hello!", "Number R-3003", "5 Elm Street", "", "Great, thanks [SATISFIED]"]
    (rollout,) = await play(Desk(user="simulated"), Expert(), roles={"user": Says(*lines)})
    assert rollout.failure is None and rollout.reward == 1.0 and rollout.stop == "satisfied"
    theirs = rollout.conversation("user")
    assert theirs[0]["content"] == instructions(persona_of(rollout.task)) and theirs[1]["content"] == BEGIN
    assert "What is the order number?" in [message["content"] for message in theirs if message["role"] == "user"]
    assert rollout.messages[-1]["content"] == "Great, thanks", "the mark is not for the agent"


async def test_a_user_who_says_nothing_fails_the_rollout_and_not_the_policy():
    (rollout,) = await play(Desk(user="simulated"), Expert(), roles={"user": Says("")})
    assert rollout.failure.boundary == "model" and rollout.failure.blame == "infrastructure"
    assert "said nothing" in rollout.failure.error and rollout.rewards == []


async def test_a_user_who_leaves_at_once_is_not_the_policys_fault():
    (rollout,) = await play(Desk(user="simulated"), Expert(), roles={"user": Says("[GAVE UP]")})
    assert rollout.excluded and "left before" in rollout.failure.error


async def test_the_agents_words_can_not_end_the_talk():
    (rollout,) = await play(
        Desk(user="simulated"), Says("[SATISFIED]"), roles={"user": Says("No.")}, num=1
    )  # fmt: skip
    assert rollout.stop == "lost_patience"


async def test_the_rules_play_the_user_wherever_the_expert_does():
    (rollout,) = await play(Desk(user="simulated"), Expert(), roles={"user": Expert()})
    assert rollout.failure is None and rollout.reward == 1.0 and rollout.stop == "satisfied"
    assert {call.role for call in rollout.calls} == {"policy", "user"}


async def test_where_the_user_invents_something_the_rollout_can_be_left_out():
    lines = ["Hello!", "The number is X-999", "5 Elm Street", "ok [SATISFIED]"]
    (counted,) = await play(Desk(user="simulated"), Expert(), roles={"user": Says(*lines)})
    assert counted.failure is None and counted.metrics["user_errors"] >= 1
    (excluded,) = await play(Desk(user="simulated", exclude=True), Expert(), roles={"user": Says(*lines)})
    assert excluded.excluded and "invented at turn 2: X-999" in excluded.failure.error


async def test_a_judge_says_whose_fault_it_was():
    verdicts = Says("hm", '```json\n{"fault": "user", "why": "wrong number"}\n```')
    (rollout,) = await play(Desk(judge_faults=True), Says("no"), roles={"judge": verdicts})
    assert rollout.metrics["user_fault"] == 1.0
    (failed,) = await play(Desk(judge_faults=True), Says("no"), roles={"judge": Says("no verdict")})
    assert failed.excluded and failed.failure.boundary == "scorer"


async def test_the_judge_of_faults_may_judge_for_a_scorer_too():
    class Judged(Desk):
        @ludus.reward
        async def liked(self, models):
            return float((await models["judge"].chat([user("Do you like it?")])).text == "yes")

    judge = Says(by=lambda messages: "yes" if "like it" in messages[-1]["content"] else '{"fault": "user"}')
    (rollout,) = await play(Judged(judge_faults=True), Says("no"), roles={"judge": judge})
    assert rollout.failure is None and rollout.metrics["user_fault"] == rollout.metrics["liked"] == 1.0


def test_an_unknown_player_is_refused():
    with pytest.raises(ConfigError, match="scripted, simulated"):
        Desk(user="modelled")


@pytest.mark.parametrize("options", [{}, {"user": "simulated", "judge_faults": True}, {"changes": True}])
def test_the_desk_keeps_its_promises(options):
    assert [str(finding) for finding in check_environment(Desk(**options), num_tasks=2) if finding.ok is False] == []


async def test_a_transcript_plays_again_without_a_model(tmp_path):
    lines = ["Hello!", "Number K-1001", "5 Elm Street", "ok [SATISFIED]"]
    env = Desk(user="simulated")
    from ludus.programs.evaluate import evaluate_async

    await evaluate_async(
        env, "demonstrator", split="train", num_tasks=1, role_models={"user": Says(*lines)}, out=tmp_path / "r"
    )
    again = replay(tmp_path / "r", "re-enact", env=env)
    assert again.same, again.to_dict()


async def test_a_report_on_the_users_of_a_run(tmp_path):
    from ludus.programs.evaluate import evaluate_async

    lines = ["Hello!", "The number is X-999", "5 Elm Street", "ok [SATISFIED]"]
    await evaluate_async(
        Desk(user="simulated", judge_faults=True), Says("Which order number?"), split="train", num_tasks=2,
        out=tmp_path / "r",
        role_models={"user": Says(*lines), "judge": Says('{"fault": "user"}')},
    )  # fmt: skip
    found = users_of(tmp_path / "r")
    assert (found.num_rollouts, found.num_failed, found.num_failed_by_user, found.num_judged_user) == (2, 2, 2, 2)
    assert found.errors["invented"] == 2 and found.endings == {"satisfied": 2}
    assert found.diversity.distinct_openings == 0.5 and found.diversity.similarity == 1.0
    await evaluate_async(
        Desk(user="simulated", exclude=True), Says("Which order number?"), split="train", num_tasks=2,
        out=tmp_path / "left-out", role_models={"user": Says(*lines)},
    )  # fmt: skip
    left_out = users_of(tmp_path / "left-out")
    assert (left_out.num_rollouts, left_out.num_excluded, left_out.num_excluded_by_user) == (0, 2, 2)
    await evaluate_async("guess", "demonstrator", num_tasks=1, out=tmp_path / "g")
    with pytest.raises(ludus.LudusError, match="whose tasks have a user"):
        users_of(tmp_path / "g")


# --- mistakes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("talk", "kinds"),
    [
        ([user("Return my kettle"), says("Order number?"), user("It is K-17.")], []),
        ([user("Return my kettle"), says("Order number?"), user("It is k 17")], []),
        ([user("Return my kettle"), says("Order number?"), user("It is K-18.")], ["invented", "withheld"]),
        ([user("Return my kettle"), says("Order number?"), user("Never mind.")], ["withheld"]),
        ([user("Return my kettle"), says("Is K-17 your order number?"), user("Yes.")], []),
        ([user("Return my kettle"), says("I have your order number. Anything else?"), user("No.")], []),
        ([user("I am Anna"), says("Is it order 4711?"), user("Yes, 4711, for 2 people, on the 15th")], []),
        ([user("How can I help you today?")], ["out_of_character"]),
        ([user("As an AI I can't")], ["out_of_character"]),
        ([user("ok"), says("a"), user("Ok."), says("b"), user("OK!"), says("c"), user("ok")], ["repeated"]),
        ([user("  ")], ["silent"]),
        ([user("Hello"), says("<tool_call>{"), user("Your tool call could not be read: no brace at 4711")], []),
    ],
)
def test_mistakes_are_found_by_rules(talk, kinds):
    assert sorted(error.kind for error in find_errors(ANNA, talk)) == kinds


def test_what_the_agent_makes_up_is_no_mistake_of_the_users():
    talk = [user("Return my kettle"), says("Your order 9999 is found, right?"), user("Right, 9999.")]
    assert find_errors(ANNA, talk) == []


@pytest.mark.parametrize("text", ["", "user", '{"fault": "me"}', "[]", "{" * 3000])
def test_verdicts_that_are_none(text):
    with pytest.raises(Unusable):
        read_object(text, Fault)


# --- diversity ----------------------------------------------------------------------------------------------------


def test_diversity_tells_copies_from_people():
    same = diversity([["I want my kettle back"]] * 10)
    other = diversity([[" ".join(f"w{10 * i + j}" for j in range(5))] for i in range(10)])
    assert (same.distinct_openings, same.similarity) == (0.1, 1.0)
    assert (other.distinct_openings, other.similarity, other.distinct_1) == (1.0, 0.0, 1.0)
    assert same.distinct_1 == 0.1 and same.words_per_utterance == 5


def test_diversity_of_nobody():
    empty = diversity([[], [""]])
    assert empty.num_users == 0 and empty.similarity is None and empty.distinct_1 is None


# --- what may go wrong around them --------------------------------------------------------------------------------


class Down:
    """A model whose context is full, or that is not there at all."""

    name = "down"

    def __init__(self, blame):
        self.blame = blame

    async def complete(self, messages, tools, sampling):
        raise ModelCallFailed("out of order", self.blame)


@pytest.mark.parametrize("blame", ["policy", "infrastructure"])
@pytest.mark.parametrize(("role", "boundary"), [("user", "model"), ("judge", "scorer")])
async def test_who_stands_in_and_does_not_answer_is_never_the_policys_fault(role, boundary, blame):
    roles = {"user": Says("hello", "ok [GAVE UP]"), "judge": Says('{"fault": "nobody"}'), role: Down(blame)}
    (rollout,) = await play(Desk(user="simulated", judge_faults=True), Says("no"), roles=roles)
    assert rollout.excluded and rollout.failure.boundary == boundary and rollout.rewards == []


@pytest.mark.slow
async def test_hundreds_of_users_at_once_keep_to_their_own_talks():
    def number(messages):
        known = messages[0]["content"].partition("order number: ")[2].split()[0]
        return f"It is {known}."

    rollouts = await play(
        Desk(user="simulated"),
        Says("Which?"),
        num=2,
        size=150,
        split="train",
        roles={"user": Says(by=number)},
        concurrency=300,
    )
    assert len(rollouts) == 300 and all(rollout.failure is None for rollout in rollouts)
    for rollout in rollouts:
        said = {message["content"] for message in rollout.messages if message["role"] == "user"}
        assert said == {f"It is {rollout.task.info['number']}.", ENOUGH}


async def test_a_user_who_hangs_is_cancelled_with_the_rollout():
    class Hangs:
        name = "hangs"

        async def complete(self, messages, tools, sampling):
            await asyncio.Event().wait()

    (rollout,) = await play(Desk(user="simulated"), Says("no"), roles={"user": Hangs()}, timeout_s=0.2)
    assert rollout.failure.boundary == "timeout" and rollout.failure.blame == "infrastructure"
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


def test_a_long_reply_without_an_end_is_read_in_no_time():
    """It took minutes, in which nothing else ran."""
    persona = Persona(goal="Send it.", knows={"order number": "K-1001"})
    messages = [
        {"role": "assistant", "content": "word " * 200_000 + "\nAnd the order number?"},
        {"role": "user", "content": "I would rather not say."},
    ]
    assert [error.kind for error in find_errors(persona, messages)] == ["withheld"]

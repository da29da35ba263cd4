"""Re-enact: the environment against recorded replies; what differs is named by call, message and field."""

import pytest
from replayed import HUNT, Says, hunter, record, write

from ludus.errors import ModelCallFailed
from ludus.programs.replay import replay
from ludus.programs.replay.replies import compare
from ludus.types import Reply, user


@pytest.fixture
def hunt(tmp_path):
    return write(tmp_path / "hunt.py", HUNT)


@pytest.fixture
def run(hunt, tmp_path):
    return record(hunt, Says(hunter), tmp_path / "run")


def reenacted(tmp_path, text, what, **options):
    """Recorded and played again."""
    path = write(tmp_path / "env.py", text)
    return replay(record(path, Says(what), tmp_path / "run", **{"samples": 1, "num_tasks": 1, **options}), "re-enact")


def first(result):
    difference = result.different[0].differences[0]
    return difference.where, difference.then, difference.now


def test_the_same_environment_does_the_same_again(run):
    result = replay(run, "re-enact")
    assert result.same and result.num_same == 12, result.different
    assert {row.scorer: row.num_equal for row in result.scores} == {"right": 12, "luck": 12, "fewest": 12}
    assert result.proves.startswith("Proves that the environment of today says, does and rewards the same")


def test_one_rollout_with_its_group(run):
    chosen = replay(run).findings[7].rollout
    result = replay(run, "re-enact", rollout=chosen)
    assert result.same and [f.rollout for f in result.findings] == [chosen]
    assert {row.scorer: row.num_equal for row in result.scores} == {"right": 1, "luck": 1, "fewest": 1}


def test_another_text_from_the_environment_is_found_where_it_is(run, hunt):
    write(hunt, HUNT, text=('f"no, {ctx.state}"', 'f"no! {ctx.state}"'))
    result = replay(run, "re-enact")
    assert not result.same and result.num_same > 0, "who was right at once was never told no"
    where, then, now = first(result)
    assert where == "call 3, message 5 (user), content"
    assert then.startswith("'no, ") and now.startswith("'no! ")
    assert "its code, data or options are others" in result.proves


def test_another_result_of_a_tool_is_found(run, hunt):
    write(hunt, HUNT, tool=("random.randint(0, 9)", "random.randint(10, 19)"))
    result = replay(run, "re-enact")
    assert len(result.different) == 12
    assert first(result)[0] == "call 2, message 3 (tool), content"


def test_another_reward_or_stop_is_found(run, hunt):
    write(hunt, HUNT, state=("float(state)", "-float(state)"), says=('f"no, {ctx.state}"', "None"))
    result = replay(run, "re-enact")
    found = [d.where for d in result.different[0].differences]
    assert "reward luck" in found
    everything = {d.where for f in result.different for d in f.differences}
    assert {"calls", "stop"} <= everything


def test_a_call_that_was_never_recorded_ends_the_replay(run, hunt):
    write(hunt, HUNT, turns=("max_turns = 3", "max_turns = 5"))
    result = replay(run, "re-enact")
    where, then, now = first(result)
    assert (where, then) == ("call 4", "no such call was recorded") and now.startswith("'no, ")
    assert all(len(finding.differences) == 1 for finding in result.different), "what follows has no meaning"


SIDE_BY_SIDE = """
    import asyncio, ludus

    class Many(ludus.Environment):
        def tasks(self, split):
            return [ludus.Task(prompt="go")]

        async def run(self, ctx):
            async def talk(name, wait):
                messages = [{"role": "user", "content": name}]
                for _ in range(2):
                    for _ in range(wait):
                        await asyncio.sleep(0)
                    reply = await ctx.model.chat(messages)
                    messages += [reply.message, {"role": "user", "content": "on"}]
                return messages[-2]["content"]
            ctx.state = await asyncio.gather(*(talk(*pair) for pair in (("a", 9), ("b", 0), ("c", 5), ("a", 2))))

        @ludus.reward
        def order(self, state):
            return float("".join(word[0] for word in state) == "abca")
"""


def test_calls_side_by_side_find_their_own_replies(tmp_path):
    path = write(tmp_path / "many.py", SIDE_BY_SIDE)
    model = Says(lambda messages, sampling: f"{messages[0]['content']} {len(messages)} {sampling.seed}")
    run = record(path, model, tmp_path / "run", samples=2, num_tasks=1)
    result = replay(run, "re-enact")
    assert result.same and result.reward.mean_now == 1.0
    write(path, SIDE_BY_SIDE, waits=('("a", 9), ("b", 0), ("c", 5)', '("a", 0), ("b", 7), ("c", 1)'))
    result = replay(run, "re-enact")
    assert result.same and result.environments[0].same is False, "another order of the same calls is no difference"
    write(path, SIDE_BY_SIDE, text=('("c", 5)', '("d", 5)'))
    result = replay(run, "re-enact")
    where, *texts = first(result)
    assert where.endswith("message 1, content") and texts == ["'c'", "'d'"]


def test_agents_that_use_the_address_and_several_roles(tmp_path):
    text = """
        import ludus
        class Two(ludus.Environment):
            roles = ("policy", "critic")
            def tasks(self, split):
                return [ludus.Task(prompt="write")]
            async def run(self, ctx):
                said = await ctx.model.openai.chat.completions.create(model="m", messages=ctx.task.messages())
                text = said.choices[0].message.content
                ctx.state = (await ctx.models["critic"].chat([{"role": "user", "content": text}])).text
            @ludus.reward
            def judged(self, state):
                return [ludus.Reward("judged", float(state == "draft: yes")), ludus.Reward("own", 0.5, role="critic")]
    """
    model = Says(lambda messages, sampling: "draft" if len(messages[0]["content"]) == 5 and messages[0]["content"] ==
                 "write" else f"{messages[0]['content']}: yes")  # fmt: skip
    result = reenacted(tmp_path, text, model.what)
    assert result.same and result.reward.mean_then == 1.0


def test_the_demonstrator_plays_along_and_draws_its_share_of_chance(tmp_path):
    text = """
        import ludus
        class Dice(ludus.Environment):
            max_turns = 2
            def tasks(self, split):
                return [ludus.Task(prompt=str(n)) for n in range(4)]
            def respond(self, ctx, reply):
                return str(ctx.random.random())
            def demonstrate(self, task, random):
                return [str(random.random()), "end"]
            @ludus.reward
            def any(self, rollout):
                return 1.0
    """
    path = write(tmp_path / "dice.py", text)
    run = record(path, "demonstrator", tmp_path / "run", samples=2)
    result = replay(run, "re-enact")
    assert result.same and result.num_same == 8, result.different
    write(path, text, says=('"end"', '"END"'))
    assert first(replay(run, "re-enact")) == ("call 2, reply, message 1, content", "'end'", "'END'")


def test_a_model_that_failed_fails_again_and_a_time_limit_can_not_be_repeated(tmp_path):
    text = """
        import ludus
        class Long(ludus.Environment):
            def tasks(self, split):
                return [ludus.Task(prompt="short"), ludus.Task(prompt="late")]
            async def run(self, ctx):
                if ctx.task.prompt == "late":
                    raise ludus.RolloutError("too late", boundary="timeout")
                messages = ctx.task.messages()
                while True:
                    reply = await ctx.model.chat(messages)
                    messages += [reply.message, {"role": "user", "content": "more"}]
            failure_reward = -1.0
    """

    def until_full(messages, sampling):
        if len(messages) > 4:
            raise ModelCallFailed("no room", "policy")
        return "ok"

    result = reenacted(tmp_path, text, until_full, num_tasks=2)
    assert result.num_same == 1 and not result.different
    assert list(result.reasons()) == ["ran into its time limit, which a replay does not repeat"]


def test_cut_and_malformed_replies_come_again_as_they_were(tmp_path):
    text = """
        import ludus
        class Cut(ludus.Environment):
            max_turns = 3
            def tasks(self, split):
                return [ludus.Task(prompt="go")]
            @ludus.tool
            def act(self, n: int) -> int:
                return n
            def respond(self, ctx, reply):
                return f"{reply.malformed} {reply.usage.completion_tokens}"
            @ludus.reward
            def turns(self, rollout):
                return rollout.num_turns
    """

    def what(messages, sampling):
        said = {"role": "assistant", "content": "x"}
        return Reply(said, malformed="no brace") if len(messages) == 1 else Reply(said, finish_reason="length")

    result = reenacted(tmp_path, text, what)
    assert result.same and result.reward.mean_now == 2.0


# --- comparing conversations --------------------------------------------------------------------------------------


def test_the_first_difference_is_named_by_message_and_field_and_shown_where_the_texts_part():
    long = "the same words at the beginning of both, "
    then, now = [user("a"), user(long + "then")], [user("a"), user(long + "now")]
    (difference,) = compare("call 1", then, now)
    assert difference.where == "call 1, message 2 (user), content"
    assert difference.then == "…'ng of both, then'" and difference.now == "…'ng of both, now'"


def test_missing_messages_and_equal_conversations():
    assert compare("call 1", [user("a")], [user("a")]) == []
    (difference,) = compare("call 1", [user("a")], [user("a"), user("b")])
    assert (difference.where, difference.then, difference.now) == ("call 1, message 2", "no message", "'b'")
    (difference,) = compare("end", [user("a")], [])
    assert (difference.then, difference.now) == ("'a'", "no message")


def test_what_clients_make_of_a_message_is_no_difference():
    then = {"role": "assistant", "content": "x", "reasoning_content": "hmm"}
    now = {"content": [{"type": "text", "text": "x"}], "role": "assistant", "tool_calls": None}
    assert compare("call 1", [then], [now]) == []
    assert compare("call 1", [then], [{**now, "role": "user"}])[0].where == "call 1, message 1, role"

import asyncio

import pytest

from ludus.cli.person import Person, choose_task, read_tool_call
from ludus.environments.guess import Guess
from ludus.errors import RolloutError, UnknownName, UsageError
from ludus.types import Sampling, user

PARAMETERS = {"type": "object", "properties": {"item": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "price", "description": "What it costs.", "parameters": PARAMETERS}}


def person(*lines):
    """Somebody who types these lines, and what they are shown."""
    shown, typed = [], iter(lines)

    def ask():
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    return Person(ask, shown.append), shown


def complete(somebody, messages, tools=()):
    return asyncio.run(somebody.complete(messages, tools, Sampling()))


def test_a_person_plays_a_whole_game_and_sees_the_scores(ludus):
    hidden = choose_task(Guess(), "train", 0, "0").info["hidden"]
    out = ludus("play", "guess", "--task", 0, input=f"what?\n{hidden}\n").stdout
    places = [out.index(words) for words in ("user", " to ", "not a number", "reward 1.000", "solved")]
    assert places == sorted(places)


def test_a_seed_draws_the_same_task_again(ludus):
    first, second = (ludus("play", "guess", "--seed", 3, input="", code=130).stderr for _ in range(2))
    assert first == second and "nothing is scored" in first


def test_a_task_by_its_id():
    task = choose_task(Guess(), "test", 0, "5")
    assert choose_task(Guess(), "test", 0, task.id) == task
    with pytest.raises(UnknownName):
        choose_task(Guess(), "test", 0, "no-such-task")


def test_only_what_is_new_is_shown():
    somebody, shown = person("a", "b")
    reply = complete(somebody, [user("first")])
    complete(somebody, [user("first"), reply.message, user("second")])
    assert [line.strip() for line in shown].count("first") == 1
    assert "  second" in shown


def test_a_line_that_ends_in_a_backslash_goes_on():
    assert complete(person("one\\", "two")[0], [user("?")]).text == "one\ntwo"


def test_a_tool_is_called_by_its_name_and_a_slip_asked_again():
    somebody, shown = person("/pric {}", "/price {", "/price [1]", '/price {"item": "tea"}')
    reply = complete(somebody, [user("?")], [TOOL])
    assert reply.tool_calls[0].arguments == {"item": "tea"} and reply.finish_reason == "tool_calls"
    text = "\n".join(shown)
    assert "did you mean 'price'?" in text and "are not JSON" in text and "expected the arguments" in text
    assert '/price {"item": string}  What it costs.' in text


def test_without_tools_a_slash_is_text():
    assert complete(person("/price {}")[0], [user("?")]).text == "/price {}"


def test_who_leaves_is_not_scored():
    somebody, _ = person()
    with pytest.raises(RolloutError, match="left"):
        complete(somebody, [user("?")])
    assert somebody.left


def test_a_call_without_arguments():
    assert read_tool_call("/look", ["look"]).tool_calls[0].arguments == {}
    with pytest.raises(UsageError):
        read_tool_call("/look 3", ["look"])


def test_where_there_are_several_roles_the_expert_plays_the_others(ludus):
    out = ludus("play", "ludus.environments.nim:Nim", "--arg", "largest=6", "--task", 0, input="9\n").stdout
    assert "Take 1 to 3 stones" in out and "you lose" in out and "reward -1.000" in out

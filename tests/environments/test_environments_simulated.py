"""Simulated tools: answers checked against what was said before, arguments against schemas, results against real ones."""

import json

import msgspec
import pytest
from players import Calls, Says, heard, play

import ludus
from ludus.authoring.simulated import Example, SimulatedApi, SimulatedTools, compare
from ludus.authoring.simulated.arguments import argument_problems
from ludus.authoring.simulated.consistency import Memory, Told, is_read
from ludus.authoring.simulated.divergence import by_tool
from ludus.errors import ConfigError
from ludus.recording.expert import Expert


class Shop(ludus.Environment):
    """Set a price."""

    def tasks(self, split):
        return [ludus.Task(prompt="Set the price of tea to 7.", info={"state": {"tea": 5}})]

    async def setup(self, ctx):
        ctx.state = {"tea": 5}

    @ludus.tool
    def set_price(self, item: str, price: int, state) -> str:
        """Set a price."""
        state[item] = price
        return "ok"

    @ludus.tool
    def get_price(self, item: str, state) -> dict:
        """What a thing costs."""
        return {"item": item, "price": state[item]}

    @ludus.reward
    def said(self, rollout):
        return float("7" in rollout.reply)


class Simulated(SimulatedTools, Shop):
    """The same, with a model in the place of the shop."""

    roles = ("policy", "api")
    examples = (Example("get_price", {"item": "soap"}, {"item": "soap", "price": 2}),)


SET, GET = ludus.calls_tool("set_price", item="tea", price=7), ludus.calls_tool("get_price", item="tea")
RIGHT = '{"result": {"item": "tea", "price": 7}}'


async def run(api, *calls):
    (rollout,) = await play(Simulated(), Calls(*calls), roles={"api": Says(*api)})
    return rollout


async def test_a_model_stands_in_for_the_tools():
    rollout = await run(['{"result": "ok", "state": {"tea": 7}}', RIGHT], SET, GET)
    assert rollout.failure is None
    assert [msgspec.json.decode(text) if text[0] == "{" else text for text in heard(rollout)] == [
        "ok",
        {"item": "tea", "price": 7},
    ]
    system = rollout.conversation("api")[0]["content"]
    assert '"soap"' in system and '{"tea":5}' in system and "set_price" in system


async def test_the_expert_plays_the_api_with_the_real_tools():
    none = ludus.calls_tool("get_price", item="gold")
    (rollout,) = await play(Simulated(), Calls(GET, SET, GET), roles={"api": Expert()})
    assert rollout.failure is None and heard(rollout)[1] == "ok"
    assert [json.loads(text)["price"] for text in heard(rollout)[::2]] == [5, 7]
    (failed,) = await play(Simulated(), Calls(none), roles={"api": Expert()})
    assert failed.failure.boundary == "tool" and "KeyError" in failed.failure.error


async def test_the_same_agent_in_simulation_and_on_the_real_thing():
    answers = (SET, GET, {"role": "assistant", "content": "It costs 7 now."})
    (simulated,) = await play(Simulated(), Calls(*answers), roles={"api": Says('{"result": "ok"}', RIGHT)})
    (real,) = await play(Shop(), Calls(*answers))
    assert simulated.reward == real.reward == 1.0 and simulated.tools == real.tools
    assert [json.loads(text) for text in heard(simulated)[1:]] == [json.loads(text) for text in heard(real)[1:]]


async def test_what_contradicts_a_write_is_asked_for_again():
    rollout = await run(['{"result": "ok"}', '{"result": {"item": "tea", "price": 5}}', RIGHT], SET, GET)
    assert rollout.failure is None and '"price": 7' in heard(rollout)[1]
    assert "must say that price is 7, not 5" in rollout.conversation("api")[-2]["content"]


async def test_an_api_that_goes_on_contradicting_itself_fails_the_rollout():
    rollout = await run(['{"result": "ok"}', '{"result": {"item": "tea", "price": 5}}'], SET, GET)
    assert (rollout.failure.boundary, rollout.failure.blame) == ("tool", "infrastructure")


@pytest.mark.parametrize("said", ["I can't", "", "{}", '{"result": 1, "error": "x"}', '{"answer": 1}', "[" * 5000])
async def test_an_answer_of_another_shape_is_never_a_result(said):
    rollout = await run([said], GET)
    assert rollout.excluded and rollout.failure.boundary == "tool"


async def test_an_answer_without_bottom_is_no_answer():
    deep = '{"result": ' + '{"a":' * 950 + "1" + "}" * 950 + "}"
    rollout = await run(['{"result": "ok"}', deep, deep, RIGHT], SET, GET)
    assert rollout.failure is None and len(rollout.calls) == 7


async def test_a_read_that_comes_again_is_answered_from_memory():
    rollout = await run(['{"result": {"item": "tea", "price": 5}}', "not asked"], GET, GET)
    assert len(set(heard(rollout))) == 1 and sum(call.role == "api" for call in rollout.calls) == 1


async def test_errors_of_the_api_and_bad_arguments_are_told_to_the_agent():
    bad = ludus.calls_tool("set_price", item="tea", price="much")
    rollout = await run(['{"error": "no such item"}'], bad, GET)
    assert rollout.failure is None
    assert heard(rollout) == [
        'Error: bad arguments for set_price: price: expected integer, got "much"',
        "Error: no such item",
    ]


async def test_the_role_must_be_there():
    class Forgot(SimulatedTools, Shop):
        pass

    (rollout,) = await play(Forgot(), Says("7"))
    assert "needs the role" in rollout.failure.error


@pytest.mark.parametrize(
    "schema", [{}, {"function": {}}, {"function": {"name": 3}}, {"function": {"name": "x", "parameters": 1}}]
)
def test_malformed_schemas_are_refused(schema):
    with pytest.raises(ConfigError, match="simulated tool"):
        SimulatedApi(None, [schema])


# --- consistency --------------------------------------------------------------------------------------------------


def told(name, arguments, result, failed=False):
    return Told(name, arguments, result, failed)


@pytest.mark.parametrize(
    ("before", "new", "fine"),
    [
        ([told("set_name", {"id": 1, "name": "a"}, "ok")], told("get_user", {"id": 1}, {"name": "a"}), True),
        ([told("set_name", {"id": 1, "name": "a"}, "ok")], told("get_user", {"id": 1}, {"user": {"name": "b"}}), False),
        ([told("set_name", {"id": 1, "name": "a"}, "ok")], told("get_user", {"id": 2}, {"name": "b"}), True),
        ([told("set_name", {"id": 1, "name": "a"}, "no", True)], told("get_user", {"id": 1}, {"name": "b"}), True),
        ([told("set_name", {"id": 1, "name": "a"}, 1), told("set_name", {"id": 1, "name": "b"}, 1)],
         told("get_user", {"id": 1}, {"name": "b"}), True),
        ([told("get_user", {"id": 1}, {"name": "a"})], told("get_user", {"id": 1}, {"name": "b"}), False),
        ([told("get_user", {"id": 1}, 1), told("touch", {}, 1)], told("get_user", {"id": 1}, 2), True),
        ([told("delete_user", {"id": 1}, "ok")], told("get_user", {"id": 1}, {"id": 1}), False),
        ([told("delete_user", {"id": 1}, "ok")], told("get_user", {"id": 1}, "gone", True), True),
        ([told("delete_user", {"id": 1}, "ok"), told("create_user", {"id": 1, "name": "x"}, "ok")],
         told("get_user", {"id": 1}, {"id": 1, "name": "x"}), True),
        ([told("remove_item", {"cart": 1, "item": 2}, "ok")], told("get_cart", {"cart": 1}, {"item": [3]}), True),
        # lists
        ([told("set_price", {"item": "tea", "price": 5}, "ok")],
         told("list_prices", {}, [{"item": "tea", "price": 4}]), False),
        ([told("set_price", {"item": "tea", "price": 5}, "ok")],
         told("list_prices", {}, [{"item": "tea", "price": "5.00"}]), True),
        ([told("set_limit", {"year": 1, "kind": "a", "limit": 5}, "ok")],
         told("get_limit", {"year": 1}, [{"kind": "a", "limit": 5}, {"kind": "b", "limit": 7}]), True),
        ([told("delete_order", {"id": 7, "reason": "late"}, "ok")], told("list_orders", {}, [{"id": 7}, {"id": 8}]), False),
        ([told("delete_order", {"id": 7, "reason": "late"}, "ok")], told("list_orders", {}, [{"id": 8}]), True),
        ([told("remove_item", {"cart_id": 1, "item": "tea"}, "ok")],
         told("get_cart", {"cart_id": 1}, {"items": [{"item": "tea"}]}), False),
        ([told("remove_item", {"cart_id": 1, "item": "tea", "quantity": 1}, "ok")],
         told("get_cart", {"cart_id": 1}, {"items": [{"item": "tea"}]}), True),
        # what was created is there
        ([told("create_order", {"item": "tea"}, {"id": 7})],
         told("list_orders", {}, []), False),
        ([told("create_order", {"item": "tea"}, {"id": 7})],
         told("list_orders", {}, {"items": [{"id": 1}], "next": 2}), True),
        ([told("create_order", {"item": "tea"}, {"id": 7})],
         told("list_orders", {"status": "paid"}, []), True),
        ([told("create_order", {"item": "tea"}, {"id": 7})],
         told("get_order", {"order_id": 7}, "no such order", True), False),
        ([told("create_order", {"item": "tea"}, {"id": 7})],
         told("get_order", {"order_id": 7}, {"item": "soap"}), False),
        ([told("create_order", {"item": "tea"}, {"id": 7}), told("cancel_order", {"id": 7}, "ok")],
         told("get_order", {"order_id": 7}, "no such order", True), True),
        ([told("create_order", {"id": 7, "item": "tea"}, "ok")], told("get_order", {"id": "7"}, None), False),
        # however it is answered
        ([told("set_price", {"item": "tea", "price": 5}, "ok")],
         told("get_price", {"item": "tea"}, 4), False),
        ([told("set_price", {"item": "tea", "price": 5}, "ok")],
         told("get_price", {"item": "tea"}, "It costs 5 cents."), True),
        ([told("delete_user", {"id": 1}, "ok")], told("get_user", {"id": 1}, {"id": 1, "status": "deleted"}), True),
        ([told("delete_user", {"id": 1}, "ok")], told("get_user", {"id": 1}, {"found": False}), True),
        ([told("set_theme", {"theme": "dark"}, "ok")], told("get_theme", {}, {"theme": "light"}), False),
        ([told("set_price", {"item": "tea", "price": 5}, "ok")],
         told("get_price", {"item": "tea"}, {"price": {"amount": 5.0, "currency": "EUR"}}), True),
        ([told("set_password", {"id": 1, "password": "p4"}, "ok")],
         told("get_user", {"id": 1}, {"password": "***"}), True),
        ([told("set_status", {"id": 1, "status": "in_transit"}, "ok")],
         told("get_order", {"id": 1}, {"status": "In transit"}), True),
        ([told("set_date", {"id": 1, "day": "2026-01-05"}, "ok")],
         told("get_order", {"id": 1}, {"day": "2026-01-05T00:00Z"}), True),
        ([told("set_tags", {"id": 1, "tags": ["a", "b"]}, "ok")],
         told("get_tags", {"id": 1}, {"tags": ["b", "a"]}), True),
        ([told("create_order", {"id": 7}, "ok"), told("logout", {}, "ok")],
         told("get_order", {"id": 7}, "log in first", True), True),
        ([told("set_name", {"id": 1, "name": "a"}, "ok")], told("get_user", {"id": 1}, {"name": ""}), False),
        ([told("set_price", {"id": 1, "price": 5}, "ok")], told("get_user", {"id": 1}, {"price": 10**400}), False),
        # other writes
        ([told("add_money", {"account": 1, "amount": 5}, 1), told("add_money", {"account": 1, "amount": 5}, 1)],
         told("get_balance", {"account": 1}, {"amount": 10}), True),
        ([told("update_order", {"id": 7, "status": "paid"}, "ok"), told("cancel_order", {"id": 7}, "ok")],
         told("get_order", {"id": 7}, {"status": "cancelled"}), True),
        ([told("get_cart", {"id": 1}, ["tea"]), told("checkout", {"id": 1}, "ok")], told("get_cart", {"id": 1}, []), True),
    ],
)  # fmt: skip
def test_reads_agree_with_what_was_written(before, new, fine):
    memory = Memory(frozenset({"item"}))
    for one in before:
        memory.add(one)
    assert (memory.problem(new) == "") is fine, memory.problem(new)


@pytest.mark.parametrize(
    ("name", "reads"),
    [("getOrder", True), ("orders.list", True), ("email_search", True), ("mcp__shop__get_order", True), ("get_book", True),
     ("checkout", False), ("check_out", False), ("create_list", False), ("set_query", False), ("reserve_view", False),
     ("listen", False), ("book_getaway", False), ("transmogrify", False)],
)  # fmt: skip
def test_names_say_who_only_reads(name, reads):
    assert is_read(name) is reads


def test_arguments_against_all_of_a_schema():
    schema = {"properties": {"a": {"type": ["integer", "null"]}, "b": {"enum": ["x", "y"]}, "c": {"type": "array"}}}
    assert argument_problems(schema, {"a": None, "b": "x", "c": [], "d": 1}) == []
    assert argument_problems(schema, {"a": True, "b": "z", "c": {}}) == [
        "a: expected integer or null, got True", "b: expected one of x, y, got \"z\"", "c: expected array, got {}",
    ]  # fmt: skip
    assert argument_problems({"properties": 3, "required": "a"}, {"a": 1}) == []


def test_arguments_within_arguments():
    schema = {
        "properties": {
            "limit": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "to": {"type": "array", "items": {"$ref": "#/$defs/Person"}},
        },
        "$defs": {"Person": {"type": "object", "properties": {"mail": {"type": "string"}}, "required": ["mail"]}},
    }
    assert argument_problems(schema, {"limit": None, "to": [{"mail": "a@b"}]}) == []
    assert argument_problems(schema, {"limit": "x", "to": [{"mail": 1}, {}, 3]}) == [
        'limit: expected integer, got "x"', "to[0].mail: expected string, got 1", "to[1].mail: missing",
        "to[2]: expected object, got 3",
    ]  # fmt: skip
    itself = {"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}]}}}
    assert argument_problems(itself, {"a": 1}) == []


# --- divergence ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("real", "simulated", "exact", "outcome", "shape", "fields"),
    [
        ('{"a": 1}', '{"a":1}', True, True, True, 1.0),
        ('{"a": 1}', '{"a": 2}', False, True, True, 0.0),
        ('{"a": 1, "b": [1, 2]}', '{"a": 1, "b": [1]}', False, True, True, 2 / 3),
        ('{"a": 1}', "Error: none", False, False, False, 0.0),
        ("Error: no", "Error: none", False, True, True, 0.0),
        ("text", "text", True, True, True, 1.0),
        ("[]", '[{"a": 1}]', False, True, False, 0.0),
    ],
)
def test_answers_are_compared(real, simulated, exact, outcome, shape, fields):
    found = compare("t", "t()", real, simulated)
    assert (found.exact, found.same_outcome, found.same_shape) == (exact, outcome, shape)
    assert found.fields == pytest.approx(fields)


def test_the_tool_that_diverges_most_comes_first():
    rows = by_tool([compare("good", "", "1", "1"), compare("bad", "", "1", "2"), compare("bad", "", "1", "1")])
    assert [(row.tool, row.num_calls, row.exact) for row in rows] == [("bad", 2, 0.5), ("good", 1, 1.0)]

"""Tools: the schema says what the signature says, arguments are checked, failures belong to whoever made them."""

import asyncio
import random
import time
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

import ludus
from ludus.authoring.calling import INJECTED
from ludus.authoring.tools import Tool, answer, as_text, schema_of
from ludus.errors import RolloutError, ToolError
from ludus.types import ToolCall


@ludus.tool
def search(query: str, limit: Annotated[int, Field(ge=1, description="most titles")] = 5) -> list[str]:
    """Titles of the pages that match best."""
    return [query] * limit


def call_of(name: str, arguments: dict[str, Any] | None, error: str = "") -> ToolCall:
    return ToolCall("call_0", name, arguments, error)


async def said(tool: Tool, arguments: dict[str, Any], **available: Any) -> str:
    return (await answer({tool.name: tool}, call_of(tool.name, arguments), available))["content"]


# --- schemas ------------------------------------------------------------------------------------------------------


def test_schema_comes_from_signature_and_docstring():
    assert Tool(search).schema == {
        "type": "function",
        "function": {
            "name": "search",
            "description": "Titles of the pages that match best.",
            "parameters": {
                "additionalProperties": False,
                "properties": {
                    "query": {"type": "string"},
                    "limit": {"default": 5, "description": "most titles", "minimum": 1, "type": "integer"},
                },
                "required": ["query"],
                "type": "object",
            },
        },
    }


@given(st.lists(st.sampled_from(sorted({*INJECTED, "a", "b"} - {"group"})), unique=True))
@settings(max_examples=30, deadline=None)
def test_injected_parameters_are_never_shown(names):
    namespace: dict[str, Any] = {}
    exec(f"def f({', '.join(names)}): 'Do it.'", namespace)
    shown = Tool(namespace["f"]).schema["function"]["parameters"].get("properties", {})
    assert set(shown) == set(names) & {"a", "b"}


def test_types_that_schemas_can_say():
    class Point(BaseModel):
        x: int

    def f(kind: Literal["a", "b"], names: list[str], where: Point | None = None) -> None:
        """Do it."""

    properties = Tool(f).schema["function"]["parameters"]["properties"]
    assert properties["kind"]["enum"] == ["a", "b"]
    assert properties["names"] == {"type": "array", "items": {"type": "string"}}
    assert properties["where"]["anyOf"][1] == {"type": "null"}


def test_a_tool_of_no_parameters_and_no_docstring():
    def ping():
        return "pong"

    schema = Tool(ping).schema["function"]
    assert (schema["description"], schema["parameters"]["properties"]) == ("", {})


async def test_parameters_may_be_called_what_the_library_calls_its_own():
    @ludus.tool
    def save(json: str, schema: str, copy: int, model_name: str = "m") -> str:
        """Save it."""
        return f"{json} {schema} {copy} {model_name}"

    assert set(Tool(save).schema["function"]["parameters"]["properties"]) == {"json", "schema", "copy", "model_name"}
    assert await said(Tool(save), {"json": "j", "schema": "s", "copy": 2}) == "j s 2 m"


def test_star_arguments_have_no_schema():
    def f(*things: int) -> None: ...

    with pytest.raises(TypeError, match=r"f takes \*things: a schema needs named parameters"):
        Tool(f)


def test_decorator_with_and_without_arguments():
    @ludus.tool(name="look_up", timeout_s=3)
    def f(word: str) -> str:
        """Look a word up."""
        return word

    tool = Tool(f)
    assert (tool.name, tool.timeout_s, f("x")) == ("look_up", 3, "x")
    assert (Tool(search).name, Tool(search).timeout_s) == ("search", None)


def test_schema_of_a_function_a_tool_and_a_schema():
    schema = Tool(search).schema
    assert schema_of(search) == schema_of(Tool(search)) == schema_of(schema) == schema


# --- calls --------------------------------------------------------------------------------------------------------


async def test_defaults_conversion_and_injection():
    class World(ludus.Environment):
        @ludus.tool
        def look(self, where: str, far: bool = False, *, state: Any, random: random.Random) -> dict[str, Any]:
            """Look around."""
            return {"where": where, "far": far, "state": state, "drawn": random.random()}

    tool = World().make_tools()["look"]
    drawn = random.Random(0).random()
    text = await said(tool, {"where": "up"}, state=[1], random=random.Random(0), task=None)
    assert text == f'{{"where": "up", "far": false, "state": [1], "drawn": {drawn}}}'


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "Error: bad arguments for search: query: Field required"),
        ({"query": "a", "limit": "many"}, "limit: Input should be a valid integer"),
        ({"query": "a", "limit": 0}, "limit: Input should be greater than or equal to 1"),
        ({"query": "a", "pages": 3}, "pages: Extra inputs are not permitted"),
        ({"limit": 0}, "query: Field required; limit: Input should be greater"),
    ],
)
async def test_bad_arguments_are_explained_to_the_model(arguments, says):
    assert says in await said(Tool(search), arguments)


async def test_an_unknown_tool_and_unreadable_arguments_are_explained_to_the_model():
    tools = {"search": Tool(search)}
    unknown = await answer(tools, call_of("serach", {}), {})
    assert unknown["content"] == "Error: there is no tool 'serach'; the tools are: search"
    assert unknown["tool_call_id"] == "call_0"
    broken = await answer(tools, call_of("search", None, "not JSON"), {})
    assert broken["content"] == "Error: not JSON"


async def test_what_a_tool_refuses_is_explained_to_the_model():
    @ludus.tool
    async def open_door(key: str) -> str:
        """Open it."""
        raise ludus.ToolError(f"{key} does not fit")

    assert await said(Tool(open_door), {"key": "A"}) == "Error: A does not fit"


@pytest.mark.parametrize("error", [KeyError("k"), TimeoutError("the socket's own"), SystemExit(3), StopIteration()])
async def test_what_a_tool_raises_is_the_authors_fault(error):
    def broken() -> str:
        """Break."""
        raise error

    async def broken_too() -> str:
        """Break."""
        raise error

    for fn in (broken, broken_too):
        with pytest.raises(RolloutError) as caught:
            await said(Tool(fn), {})
        assert (caught.value.boundary, caught.value.blame) == ("tool", "environment")
        assert fn.__name__ in str(caught.value)
        assert "more than" not in str(caught.value)  # it is no timeout


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_tool_that_hangs_is_named(kind):
    @ludus.tool(timeout_s=0.05)
    def sync() -> None:
        """Hang."""
        time.sleep(1)

    @ludus.tool(timeout_s=0.05, name="async")
    async def hang() -> None:
        """Hang."""
        await asyncio.sleep(60)

    tool = Tool(sync if kind == "sync" else hang)
    with pytest.raises(RolloutError, match=f"the tool {kind} took more than 0.05 s") as caught:
        await said(tool, {})
    assert caught.value.boundary == "tool"


async def test_an_error_says_what_it_came_from():
    def broken() -> None:
        """Break."""
        {}["key"]

    with pytest.raises(RolloutError) as caught:
        await said(Tool(broken), {})
    assert isinstance(caught.value.__cause__, KeyError)
    assert not isinstance(caught.value, ToolError)


def test_results_as_text():
    class Point(BaseModel):
        x: int

    assert [as_text(v) for v in ("é", ["é", 1], None, Point(x=1), {1})] == ["é", '["é", 1]', "null", '{"x":1}', '"{1}"']

"""From recorded conversations to an environment: forms, mending, secrets, splits, and playing what came out."""

import json
import re
import shutil
import sys
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from players import Calls, Says, heard, play, spoken

import ludus
from ludus.authoring.loading import load_environment
from ludus.errors import ConfigError, FileProblem, UsageError
from ludus.judging import Rubric
from ludus.programs.divergence import divergence
from ludus.programs.traces import beginnings, build, environment_from_traces
from ludus.programs.traces import lines as lines_module
from ludus.programs.traces.build import Building
from ludus.programs.traces.conversation import read
from ludus.programs.traces.forms import Unusable
from ludus.programs.traces.redact import Redactor
from ludus.programs.traces.streams import put_together
from ludus.recording.expert import Expert
from ludus.testing import check_environment
from recorded_talks import TOOL, asked, called, result, said, talk, write


@pytest.fixture
def made(tmp_path):
    """Builds a package from rows; gives what became of them, and the environment with options."""

    def make(rows, name="desk-env", **settings):
        built = environment_from_traces([write(tmp_path / "traces.jsonl", rows)], name, tmp_path, **settings)
        spec = str(built.folder / "src" / name.replace("-", "_") / "__init__.py")
        return built, lambda **options: load_environment(spec, options)

    return make


# --- a package that works -----------------------------------------------------------------------------------------


async def test_what_was_recorded_earns_the_reward_again(made):
    built, env = made([talk(n) for n in range(20)])
    assert built.num_lines == 20 == sum(built.tasks.values()) and all(built.tasks.values())
    for split in ("train", "test"):
        for rollout in await play(env(), Expert(), num=5, split=split):
            assert rollout.failure is None and rollout.reward == 1.0
            assert "And the colour?" in spoken(rollout)[-2] and rollout.stop == "done"


def test_the_package_keeps_its_promises(made):
    _, env = made([talk(n) for n in range(40)])
    assert [str(finding) for finding in check_environment(env(), num_tasks=5) if finding.ok is False] == []


async def test_a_greeting_comes_before_the_task_and_a_last_call_ends_it(made):
    handed = {"to": "a person"}
    rows = [
        {"messages": [said("Hello! How can I help?"), asked(f"q {n}"), called("look", {"n": n}), result("nothing"),
                      called("hand_over", handed), result("ok")]}
        for n in range(9)
    ]  # fmt: skip
    built, env = made(rows)
    assert built.skipped == built.mended == {}
    (rollout,) = await play(env(), Expert())
    assert spoken(rollout)[0] == "Hello! How can I help?"
    assert rollout.failure is None and rollout.reward == 1.0 and rollout.stop == "made_last_call"
    at_once = Calls(said("the greeting"), ludus.calls_tool("hand_over", **handed))
    (rollout,) = await play(env(), at_once)
    assert rollout.stop == "made_last_call" and 0 < rollout.reward < 1


async def test_another_agent_meets_the_recorded_user_and_tools(made):
    _, env = made([talk(n) for n in range(20)])
    wrong = Calls(ludus.calls_tool("get_price", item="moon"), said("I don't know."), said("No."))
    (rollout,) = await play(env(), wrong, split="train")
    assert rollout.failure is None and rollout.metrics["same_calls"] == 0 and 0 <= rollout.reward < 0.3
    assert heard(rollout) == ["Error: no result of get_price with these arguments was recorded"]


async def test_models_may_play_the_user_and_the_tools(made):
    _, env = made([talk(n) for n in range(20)])
    roles = {"user": Says("[SATISFIED]"), "api": Says('{"result": 7}')}
    (rollout,) = await play(env(user="simulated", tools="simulated"), Expert(), split="train", roles=roles)
    assert rollout.failure is None and heard(rollout) == ["7"] and rollout.stop == "satisfied"


async def test_the_suggested_rubric_serves_a_judge_in_a_subclass(made):
    built, env = made([talk(n) for n in range(20)])

    class Judged(type(env())):
        roles = ("policy", "judge")
        rubric = Rubric.load(built.folder / "src/desk_env/data/rubric.json")

        @ludus.reward
        async def good(self, rollout, models):
            return await self.rubric(rollout, models["judge"])

    roles = {"judge": Says('{"mark": 1}'), "api": Says('{"result": 7}')}
    (rollout,) = await play(Judged(tools="simulated"), Expert(), roles=roles)
    assert rollout.failure is None and rollout.metrics["good"] == rollout.metrics["good/uses_get_price"] == 1.0


async def test_the_same_call_twice_gets_its_results_in_order(made):
    messages = [asked("count"), called("count", {}), result("1"), called("count", {}), result("2"), said("1, 2")]
    _, env = made([{"messages": messages}, *(talk(n) for n in range(9))])
    task = next(
        task for split in ("train", "test") for task in env().tasks(split) if task.prompt[-1]["content"] == "count"
    )
    split = "train" if task in list(env().tasks("train")) else "test"
    rollouts = await play(env(), Calls(*[called("count", "{ }")] * 3, said("x")), num=10, split=split)
    assert next(heard(r) for r in rollouts if r.task.id == task.id) == ["1", "2", "2"]


def test_options_that_make_no_sense_are_refused(made):
    _, env = made([talk(n) for n in range(9)])
    for options in ({"tools": "imagined"}, {"user": "nobody"}, {"tools": "real"}):
        with pytest.raises(ConfigError):
            env(**options)


@pytest.mark.slow
async def test_divergence_is_measured_on_recorded_traffic(made, tmp_path):
    from ludus.programs.evaluate import evaluate_async

    _, env = made([talk(n) for n in range(20)])
    api = Says(by=lambda messages: '{"result": 101}')
    run = tmp_path / "run"
    await evaluate_async(env(tools="simulated"), "demonstrator", split="train", role_models={"api": api}, out=run)
    found = divergence(run)
    (row,) = found.tools
    assert row.num_calls == found.num_rollouts > 5 and row.same_shape == 1.0 and row.exact < 0.5
    assert found.worst and found.worst[0].simulated == "101"
    await evaluate_async("guess", "demonstrator", num_tasks=1, out=tmp_path / "g")
    with pytest.raises(UsageError, match="no tool calls that were recorded"):
        divergence(tmp_path / "g")


# --- splits -------------------------------------------------------------------------------------------------------


def test_conversations_that_begin_alike_are_in_one_split(made):
    rows = [{"messages": [asked(f"q {n % 10}"), said(f"a {n}")]} for n in range(100)]
    built, env = made(rows, test_share=0.4)
    train, test = ({task.prompt[0]["content"] for task in env().tasks(split)} for split in ("train", "test"))
    assert not train & test and sum(built.tasks.values()) == 100


def calls_of(row):
    """A line for each call of a model, as a log of requests has them."""
    for at, message in enumerate(row["messages"]):
        if message["role"] == "assistant":
            yield {
                "request": {**row, "messages": row["messages"][:at]},
                "response": {"choices": [{"message": message}]},
            }


@pytest.mark.parametrize("order", ["as they came", "newest first", "shuffled"])
def test_a_line_for_each_call_gives_a_task_for_each_conversation(made, order):
    rows = [row for number in range(12) for row in calls_of(talk(number))]
    if order == "newest first":
        rows.reverse()
    elif order == "shuffled":
        Random(1).shuffle(rows)
    whole, wanted = made([talk(number) for number in range(12)])
    built, env = made(rows, name="calls-env")
    assert built.skipped == {beginnings.PART: 12, "no reply but calls without a result": 12}
    assert built.tasks == whole.tasks and len(built.places[beginnings.PART]) == build.PLACES_SHOWN
    for split in build.SPLITS:
        assert {task.id for task in env().tasks(split)} == {task.id for task in wanted().tasks(split)}
    assert not list((built.folder / "src").rglob("*.before"))


def test_what_goes_on_in_two_ways_is_two_tasks(made):
    begun = [asked("q"), said("a"), asked("and then?")]
    rows = [{"messages": begun[:2]}, {"messages": [*begun, said("b")]}, {"messages": [*begun, said("c")]}, talk(1)]
    built, env = made(rows)
    assert built.skipped == {beginnings.PART: 1}
    assert {task.answer for split in build.SPLITS for task in env().tasks(split)} >= {"b", "c"}


def test_two_conversations_are_enough_for_two_splits(made):
    built, _ = made([talk(1), talk(2)])
    assert built.tasks == {"train": 1, "test": 1}


@pytest.mark.parametrize("rows", [[], [talk(1)], [talk(1), talk(1)], ["{", "nonsense"], [{"messages": []}] * 3])
def test_too_little_leaves_nothing_behind(made, tmp_path, rows):
    with pytest.raises(UsageError, match="two different conversations"):
        made(rows)
    assert [path.name for path in tmp_path.iterdir()] == ["traces.jsonl"]


# --- what may go wrong --------------------------------------------------------------------------------------------


def test_bad_lines_are_counted_with_their_places(made):
    rows = [
        *(talk(n) for n in range(9)), '{"messages": [', "[1, 2]", "3", json.dumps({"messages": "hello"}), b"\xff\xfe{}",
        talk(3), {"messages": [asked("hi")]}, {"messages": [said("hi")]},
        {"messages": [{"role": "narrator", "content": ""}]},
        "", json.dumps({"messages": [asked("\ud800"), said("x")]}), "[" * 100_000,
    ]  # fmt: skip
    built, _ = made(rows)
    assert sum(built.tasks.values()) == 9 and sum(built.skipped.values()) == 11
    assert built.skipped["the same as an earlier one"] == 1
    assert built.places["no JSON"][0] == "traces.jsonl:10"


def test_a_line_without_end_does_not_fill_the_memory(made, monkeypatch):
    monkeypatch.setattr(lines_module, "MOST_BYTES", 4000)
    built, _ = made([talk(1), {"messages": [asked("x" * 20_000), said("y")]}, talk(2)])
    assert built.tasks == {"train": 1, "test": 1} and "MiB" in next(iter(built.skipped))


def test_missing_results_images_and_broken_arguments_are_mended():
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    row = {"messages": [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Look"}, image]},
        called("a", {}, "1"), called("b", "{broken", "2"), result("never asked", "9"),
        {"role": "assistant", "tool_calls": called("c", {"x": 1}, "3")["tool_calls"] + called("d", {}, "4")["tool_calls"]},
        result([{"type": "text", "text": "fine"}], "3"), said("It is"), said("a cat"),
        asked("One"), asked("more"), {"role": "system", "content": "late"}, said("ok"), asked("unanswered"),
    ]}  # fmt: skip
    found = read(json.dumps(row).encode())
    assert [m["role"] for m in found.opening] == ["system", "user"] and found.opening[1][
        "content"
    ] == "Look\n[image left out]"
    roles = [m["role"] for m in found.rest]
    assert roles == ["assistant", "tool", "assistant", "user", "assistant"]
    assert [c["function"]["name"] for c in found.rest[0]["tool_calls"]] == ["c"]
    assert found.rest[2]["content"] == "It is\n\na cat" and found.rest[3]["content"] == "One\n\nmore"
    assert found.mended == {
        "parts that are no text: image": 1, "tool calls without a result": 2, "empty replies": 2,
        "tool calls whose arguments are no JSON object": 1, "tool results without a call": 1,
        "instructions in mid-conversation": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    "row",
    [
        [asked("hi"), said("ho")],
        {"messages": [asked("hi"), said("ho")]},
        {"request": {"messages": [asked("hi")], "tools": [TOOL]}, "response": {"choices": [{"message": said("ho")}]}},
        {"body": {"messages": [asked("hi")]}, "response": {"body": {"choices": [{"message": said("ho")}]}}},
        {"messages": [asked("hi")], "choices": [{"message": said("ho")}]},
        {"input": [asked("hi")], "output": {"message": said("ho")}},
        {"messages": [asked("hi")], "output": [said("ho")]},
        {"input": "hi", "output": [
            {"type": "reasoning", "summary": []},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "ho"}]}]},
        {"request": {"input": [
            {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
            {"type": "function_call", "call_id": "b", "name": "g", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "b", "output": "2"},
            {"type": "function_call_output", "call_id": "a", "output": "1"},
        ], "tools": [{"type": "function", **TOOL["function"]}]}, "response": {"output": [said("ho")]}},
        {"messages": [asked("hi"), {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
                      {"role": "function", "name": "f", "content": "1"}, said("ho")], "functions": [TOOL["function"]]},
    ],
)  # fmt: skip
def test_the_forms_that_conversations_are_logged_in(row):
    found = read(b"\xef\xbb\xbf".removeprefix(b"\xef\xbb\xbf") + json.dumps(row).encode())
    assert found.opening == [asked("hi")] and found.rest[-1] == said("ho") and not found.mended
    assert [tool["function"]["name"] for tool in found.tools] in ([], ["get_price"])


@pytest.mark.parametrize("ids", [("1", "2"), ("1", "1"), ("", ""), (None, None)])
def test_results_find_their_calls_whatever_their_ids(ids):
    calls = [{"id": id, "function": {"name": name, "arguments": "{}"}} for id, name in zip(ids, "fg", strict=True)]
    row = [
        asked("hi"),
        {"role": "assistant", "tool_calls": calls},
        result("F", ids[0]),
        result("G", ids[1]),
        said("ok"),
    ]
    found = read(json.dumps(row).encode())
    assert [(call["id"], call["function"]["name"]) for call in found.rest[0]["tool_calls"]] == [
        ("call_1", "f"),
        ("call_2", "g"),
    ]
    assert [(m["tool_call_id"], m["content"]) for m in found.rest[1:3]] == [("call_1", "F"), ("call_2", "G")]
    assert not found.mended


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ([talk(1), talk(2)], "several conversations in one line"),
        ([asked("hi"), {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {}}]}],
         "another API's format"),
    ],
)  # fmt: skip
def test_other_formats_are_told_apart(row, why):
    with pytest.raises(Unusable, match=why):
        read(json.dumps(row).encode())


def test_a_refusal_is_what_was_said():
    found = read(json.dumps([asked("hi"), said([{"type": "refusal", "refusal": "No."}])]).encode())
    assert found.rest == [said("No.")] and not found.mended


def test_a_user_who_interrupts_a_tool_can_not_be_played():
    with pytest.raises(Unusable, match="speaks before"):
        read(json.dumps([asked("hi"), called("f", {}), result("1"), asked("stop"), said("ok")]).encode())


def test_tools_without_a_schema_get_one_from_their_calls(made):
    rows = [{"messages": [asked(f"q{n}"), called("f", {"x": n, "y": "s"}), result("1"), said("a")]} for n in range(9)]
    _, env = made(rows)
    parameters = env().make_tools()["f"].schema["function"]["parameters"]
    assert parameters["properties"] == {"x": {"type": "integer"}, "y": {"type": "string"}}


@pytest.mark.parametrize(
    ("tools", "offered"),
    [([TOOL], {("f",): {"f", "get_price"}, (): {"get_price"}}), (None, {("f",): {"f"}, (): {"f"}})],
)
async def test_what_was_called_does_not_give_away_what_is_needed(made, tools, offered):
    with_tools = {"tools": tools} if tools else {}
    rows = [
        *({"messages": [asked(f"a{n}"), called("f", {}), result("1"), said("a")]} for n in range(9)),
        *({"messages": [asked(f"b{n}"), said("b")], **with_tools} for n in range(9)),
    ]
    _, env = made(rows)
    for rollout in await play(env(), Expert(), num=18, split="train"):
        called_ones = tuple(call["function"]["name"] for m in rollout.messages for call in m.get("tool_calls", ()))
        assert {tool["function"]["name"] for tool in rollout.tools} == offered[called_ones]


def test_a_tool_that_changed_keeps_its_first_schema(made):
    other = {"type": "function", "function": {"name": "get_price", "description": "Prices, today."}}
    built, env = made([talk(1), talk(2), talk(3, tools=[other]), talk(4, tools=[other])])
    assert built.mended == {"tools offered with another schema than before, which is left out": 1}
    assert env().make_tools()["get_price"].schema == TOOL


def test_signals_become_labels_and_the_rejected_no_tasks(made):
    rows = [talk(n, accepted=n % 3 != 0, reason="too slow" if n % 3 == 0 else "") for n in range(12)]
    built, _ = made(rows)
    assert built.labels == {"good": 8, "bad": 4} and sum(built.tasks.values()) == 8
    labels = [json.loads(line) for line in (built.folder / "labels.jsonl").read_text().splitlines()]
    assert labels[0]["label"] == "bad" and labels[0]["why"] == "too slow"
    assert labels[0]["prompt"][-1]["role"] == "user" and labels[0]["messages"][0]["role"] == "assistant"
    rubric = json.loads((built.folder / "src/desk_env/data/rubric.json").read_text())
    names = [criterion["name"] for criterion in rubric["criteria"]]
    assert {"answers", "grounded", "instructions", "uses_get_price", "bad_1"} == set(names)


def test_examples_of_tools_are_of_the_training_split(made):
    built, env = made([talk(n) for n in range(40)], test_share=0.5)
    file = json.loads((built.folder / "src/desk_env/data/tools.json").read_text())
    train = {
        message["content"]
        for task in env().tasks("train")
        for message in task.info["rest"]
        if message["role"] == "tool"
    }
    assert file["examples"] and {str(example["result"]) for example in file["examples"]} <= train


@pytest.mark.parametrize(
    ("name", "settings", "error"),
    [
        ("Not A Name", {}, UsageError), ("json", {}, UsageError), ("desk-env", {"test_share": 1.0}, UsageError),
        ("desk-env", {"redact": ["("]}, UsageError), ("desk-env", {"redact": ["x*"]}, UsageError),
    ],
)  # fmt: skip
def test_what_is_asked_wrongly_is_refused_before_anything_is_written(made, tmp_path, name, settings, error):
    with pytest.raises(error):
        made([talk(1), talk(2)], name=name, **settings)
    assert [path.name for path in tmp_path.iterdir()] == ["traces.jsonl"]


def test_a_folder_is_never_written_over_and_a_file_must_be_there(made, tmp_path):
    made([talk(1), talk(2)])
    with pytest.raises(FileProblem, match="is there already"):
        made([talk(1), talk(2)])
    with pytest.raises(UsageError, match="no such file"):
        environment_from_traces([tmp_path / "none.jsonl"], "never-made", tmp_path)
    packed = bytearray(write(tmp_path / "x.jsonl.gz", [talk(n) for n in range(99)]).read_bytes())
    spoilt = packed[:200] + bytes([packed[200] ^ 255, packed[201] ^ 255, packed[202] ^ 255]) + packed[203:]
    for data in (b"\x1f\x8bnonsense", packed[:-30], spoilt):
        (tmp_path / "x.jsonl.gz").write_bytes(data)
        with pytest.raises(FileProblem, match="can't read"):
            environment_from_traces([tmp_path / "x.jsonl.gz"], "never-made", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["desk-env", "traces.jsonl", "x.jsonl.gz"]


def test_packed_traces_are_read_whatever_their_name(made, tmp_path):
    packed = write(tmp_path / "a.jsonl.gz", [talk(1), talk(2)]).rename(tmp_path / "a.jsonl")
    assert environment_from_traces([packed], "desk-env", tmp_path).tasks == {"train": 1, "test": 1}


def test_two_who_make_the_same_do_not_mix(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "EVERY", 2)
    traces, inner = write(tmp_path / "traces.jsonl", [talk(n) for n in range(9)]), []
    (tmp_path / ".desk-env.tmp").mkdir()  # somebody else's

    def meanwhile(number):
        inner.extend([environment_from_traces([traces], "desk-env", tmp_path)] if not inner else [])

    with pytest.raises(FileProblem, match="is there already"):
        environment_from_traces([traces], "desk-env", tmp_path, progress=meanwhile)
    assert sum(inner[0].tasks.values()) == 9
    assert sorted(path.name for path in tmp_path.iterdir()) == [".desk-env.tmp", "desk-env", "traces.jsonl"]


def test_an_interruption_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupted(number):
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "EVERY", 2)
    traces = write(tmp_path / "traces.jsonl.gz", [talk(n) for n in range(9)])
    with pytest.raises(KeyboardInterrupt):
        environment_from_traces([traces], "desk-env", tmp_path / "a" / "b", progress=interrupted)
    assert [path.name for path in tmp_path.iterdir()] == ["traces.jsonl.gz"]


WORDS = st.sampled_from(
    ["user", "assistant", "tool", "system", "content", "text", "image_url", "f", "c1", "{}", "{", ""]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)
CALLS = st.fixed_dictionaries(
    {},
    optional={
        "id": VALUES,
        "function": st.fixed_dictionaries(
            {}, optional={"name": VALUES, "arguments": VALUES, "parameters": VALUES, "description": VALUES}
        )
        | VALUES,
    },
)
MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool", "system", "function"]) | VALUES},
    optional={
        "content": VALUES,
        "tool_calls": st.lists(CALLS | VALUES, max_size=2) | VALUES,
        "tool_call_id": WORDS | VALUES,
        "function_call": VALUES,
        "name": VALUES,
    },
)
ROWS = st.fixed_dictionaries({}, optional={
    "messages": st.lists(MESSAGES | VALUES, max_size=6) | VALUES, "tools": st.lists(CALLS, max_size=2) | VALUES,
    "functions": VALUES, "accepted": VALUES, "feedback": VALUES, "reason": VALUES, "choices": VALUES,
    "response": VALUES})  # fmt: skip


@given(st.lists(ROWS | VALUES, max_size=4))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.slow
def test_no_record_however_strange_ends_the_building(tmp_path, rows):
    folder = tmp_path / "pkg"
    with Building(folder, "pkg", Redactor(), 0.5) as building:
        for number, row in enumerate([*rows, talk(1), talk(2)]):
            building.take(f"x:{number}", json.dumps(row).encode())
        built = building.finish()
    assert built.num_lines == len(rows) + 2 == sum(built.tasks.values()) + sum(built.skipped.values())
    for split in ("train", "test"):
        assert all(task.messages() for task in ludus.from_jsonl(folder / f"src/pkg/data/{split}.jsonl"))
    shutil.rmtree(folder)


CHUNKS = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "It is "}}]},
    {"choices": [{"index": 1, "delta": {"content": "another choice"}}]},
    {"choices": [{"index": 0, "delta": {"content": "5."}}]}, {"choices": [], "usage": {}},
]  # fmt: skip
STREAMS = {
    "chunks": CHUNKS,
    "server-sent events": "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in CHUNKS) + "data: [DONE]\n",
    "events of responses": [{"type": "response.created"}, {"type": "response.completed", "response": {
        "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "It is 5."}]}]}}],
    "text": json.dumps({"choices": [{"message": said("It is 5.")}]}),
}  # fmt: skip


@pytest.mark.parametrize("response", STREAMS.values(), ids=STREAMS)
def test_answers_that_were_streamed_are_put_together(response):
    request = json.dumps({"messages": [asked("What is it?")]})
    found = read(json.dumps({"request": request, "response": response}).encode())
    assert found.opening == [asked("What is it?")] and found.rest == [said("It is 5.")]


def test_pieces_of_streamed_calls_are_put_together():
    pieces = [{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}},
              {"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}},
              {"index": 0, "function": {"arguments": '{"x":'}}, {"index": 0, "function": {"arguments": "1}"}}]  # fmt: skip
    (message,) = put_together([{"choices": [{"delta": {"tool_calls": [piece]}}]} for piece in pieces])
    calls = [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in message["tool_calls"]]
    assert calls == [("a", "f", '{"x":1}'), ("b", "g", "{}")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"[", "over several lines"), ('{"a": "é"}'.encode("latin-1"), "another encoding than UTF-8"), (b'{"a', "no JSON"),
        (json.dumps({"messages": [asked("x"), called("f", {})]}).encode(), "no reply but calls without a result"),
    ],
)  # fmt: skip
def test_a_line_that_gives_no_task_says_why(line, reason):
    with pytest.raises(Unusable, match=reason):
        read(line)


def test_what_python_writes_for_no_number_and_the_api_own_tools_are_read():
    items = [
        {"role": "user", "content": "x"},
        {"type": "web_search_call", "id": "w"},
        {"role": "assistant", "content": "y"},
    ]
    found = read(json.dumps({"input": items, "score": float("nan"), "rating": 4}).encode())
    assert found.rest == [said("y")] and found.verdict is None
    assert found.mended["tool calls of another kind: web_search_call"] == 1
    assert any(kind.startswith("signals that say neither") for kind in found.mended)


@pytest.mark.parametrize(
    "parameters",
    [{"type": "object", "properties": [1]}, "text", {"required": "x"}, {"type": "object", "properties": {"x": 1}}],
)  # fmt: skip
def test_a_malformed_schema_is_left_out_and_said_so(made, parameters):
    tool = {"type": "function", "function": {"name": "get_price", "parameters": parameters}}
    built, env = made([talk(n) | {"tools": [tool]} for n in range(6)])
    assert built.mended == {"tools whose schema is malformed and left out": 1}
    (offered,) = env().make_tools().values()
    assert offered.schema["function"]["parameters"] == {"type": "object", "properties": {}}


# --- secrets ------------------------------------------------------------------------------------------------------

SECRETS = {
    "OpenAI's": "sk-proj-Ab12Cd34Ef56Gh78Ij90Kl12",
    "AWS": "AKIAIOSFODNN7EXAMPLE",
    "GitHub": "ghp_" + "a1B2" * 9,
    "Slack": "xoxb-123456789012-abcdefABCDEF",
    "JWT": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.c2lnbmF0dXJl",
    "bearer": "Authorization: Bearer abcDEF123456789xyz",
    "address": "postgres://admin:hunter2secret@db.example/x",
    "password": "password: Tr0ub4dor&3",
    "JSON": json.dumps({"user": "a", "api_key": "k 1234 5678"}),
    "nested JSON": json.dumps({"inner": json.dumps({"password": "open sesame 1"})}),
    "camel case": '{"clientSecret": "cs99887766", "dbPassword": "open sesame 2"}',
    "token": json.dumps({"token": "a1b2c3d4e5f6a7b8c9"}),
    "cookie": "Set-Cookie: session=abc123def456; Path=/; HttpOnly",
    "Groq": "gsk_Qw12Er34Ty56Ui78Op90",
    "header": "x-api-key: 99aabbccddee",
    "variable": "AZURE_OPENAI_KEY=0123456789abcdef0123456789abcdef",
    "XML": "<password>hunter2</password>",
    "name and value": json.dumps({"name": "password", "value": "hunter2"}),
    "token header": "Authorization: Token 9944b09199c62bcf9418",
    "command": "curl -u admin:hunter2 https://x",
    "another language": "Passwort: hunter2",
    "in words": "my password is hunter22",
    "card": "4111 1111 1111 1111",
    "form of an address": "https://x.example/b?sv=2020&sig=Zm9vYmFyYmF6cXV4MTIz",
    "key in an address": "https://maps.example/x?key=AbCdEf123456789012345678",
    "token in an address": "https://0123456789abcdef0123@git.example/x",
    "webhook": "https://hooks.slack.com/services/T00000000/B00000000/XXXXyyyy1111ZZZZ2222",
    "Vault": "hvs.CAESIJlU9JMYEhOPYv4igdhm9PnZ",
    "kubernetes": "client-key-data: LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVkt",
    "PuTTY": "Private-Lines: 1\nAAABAQC1xyz\n",
    "base64 of a key": "c2stcHJvai1hYmNERUYxMjM0NTY3ODkwYWJjREVGMTIzNDU2Nzg5MA==",
    "bare header": "Authorization: 9944b09199c62bcf9418ad846dd0e4bb",
    "JSON header": json.dumps({"Authorization": "Basic ZG9uJ3RsZWFr"}),
    "MySQL": "mysqldump -h db -u root -phunter2 shop",
    "key block": "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nabc\n-----END RSA PRIVATE KEY-----",
}
PARTS = ("Ab12Cd34", "IOSFODNN7", "a1B2a1B2", "123456789012-abc", "eyJzdWIi", "DEF123456", "hunter2", "Tr0ub", "1234 5678",
         "open sesame", "4111 1111", "MIIEow", "cs9988", "0123456789abcdef", "9944b09", "abc123def", "Er34Ty56", "99aabbcc",
         "a1b2c3d4", "Zm9vYmFy", "AbCdEf1234", "0123456789abcdef0123", "yyyy1111", "CAESIJ", "LS0tLS1C",
         "AAABAQC1", "c2stcHJvai", "ZG9uJ3Rs")  # fmt: skip


def test_secrets_are_nowhere_in_what_is_written(made):
    rows = [talk(n) for n in range(9)]
    for number, secret in enumerate(SECRETS.values()):
        text = f"number {number}: {secret} is mine"
        rows += [
            {"messages": [asked(text), said(f"{number}")]},
            {"messages": [asked(f"q {number}"), said(text)], "reason": secret},
            {"messages": [asked(f"r{number}"), called("f", {"x": secret, secret: 1}), result(secret), said("a")],
             "accepted": True},
        ]  # fmt: skip
    rows.append(
        json.dumps({"messages": [asked("escaped"), said("sk-proj-Ab12Cd34Ef56Gh78Ij90Kl12")]}).replace(
            "sk-", "\\u0073k-"
        )
    )
    built, _ = made(rows)
    assert built.skipped == {}
    files = [path for path in built.folder.rglob("*") if path.is_file()]
    for path in files:
        text = path.read_text()
        assert [part for part in PARTS if part in text] == [], path
    listed = [json.loads(line) for line in (built.folder / "redacted.jsonl").read_text().splitlines()]
    assert len(listed) == sum(built.redacted.values()) and len(listed) >= 4 * len(SECRETS)
    assert all(set(row) == {"line", "kind", "where", "characters"} for row in listed)
    assert listed[0]["line"] == "traces.jsonl:10" and listed[0]["where"] == "messages[0].content"


@pytest.mark.parametrize(
    "text",
    [
        "The token limit is 4096 tokens, and max_tokens=512.", "risk-free task-oriented-work",
        "password: null", '{"type": "object", "properties": {"password": {"type": "string"}}}', "Order 1234567890123456",
        "See https://example.com/a:b@c", "the secret to good tea is time", "your API key is required",
        "task-management-systems-online", "my password is not working", "your password is expired.",
        "the password is wrong",
        "password = os.environ['PASSWORD']", "password=get_password()", "secret: Optional[str] = None",
        "f(api_key=self.api_key)",
        "f(api_key=api_key)", "if self.secret:\n    raise ValueError", "PIN code: 560001",
        "my order number is 482913", "the promo code is 482913", "error code 482913", "482913 is your order code",
        "call 415-555-2671", "DE89370400440532013001", "the code is 404", "password SHA256 hash", "tests pass: 45",
        "eyJ is how tokens begin", "f(key=lambda x: x)", "timestamp 1700000000000 id 550e8400-e29b-41d4-a716-446655440000",
    ],
)  # fmt: skip
def test_what_is_no_secret_stays(text):
    value = {"messages": [asked(text)]}
    assert Redactor().redact(value) == (value, [])


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("my password is correcthorse.", "correcthorse"), ("my password is hunter2", "hunter2"),
        ("pwd: hunter2", "hunter2"),
        ("the password's hunter2", "hunter2"), ("use the password hunter2 to log in", "hunter2"),
        ("pw: hunter2", "hunter2"),
        ("mi contraseña es gato2020", "gato2020"), ("Passwort lautet geheim123", "geheim123"), ("密码是abc123", "abc123"),
        ("password: P@ss(word)1", "P@ss(word)1"), ("login: bob / hunter2x", "hunter2x"),
        ("your code is 482913", "482913"), ("OTP 123456", "123456"), ("one-time code: 482-913", "482-913"),
        ("482913 is your Amazon OTP", "482913"), ('{"verificationCode": "482913"}', "482913"),
        ("2FA code 839201", "839201"),
        ("use code 482913 to log in", "482913"), ("PIN: 4821", "4821"), ("CVV 123", "123"),
        ("DE89370400440532013000", "DE89370400440532013000"), ("to gb82 west 1234 5698 7654 32 please", "gb82 west"),
        ("ES91 2100 0418 4502 0005 1332 THEN", "2100"), ("my SSN is 078-05-1120", "078-05-1120"),
        ("ssn: 219099999", "2190"),
        ("30569309025904", "30569309025904"), ("3530 1113 3330 0000", "3530"),
        ("seed phrase: witch collapse practice feed shame open despair creek road again ice least", "witch"),
        ("bot token MTk4NjIyNDgzNDcxOTI1MjQ4.Cl2FMQ.ZnCjm1XVW7vRze4b7Cq4se7kKWs", "MTk4"),
    ],
)  # fmt: skip
def test_what_is_said_in_plain_words_is_taken_out(text, secret):
    clean, found = Redactor().redact({"messages": [asked(text)]})
    assert secret not in clean["messages"][0]["content"] and len(found) == 1


def test_a_secret_is_taken_out_wherever_it_stands():
    deep = json.dumps({"body": json.dumps({"text": "pw\nhunter2\u00e9"})})
    messages = [
        asked("my password is hunter2\u00e9."),
        called("f", {"x": ["hunter2\u00e9"], "y": deep}),
        asked("hunter2\u00e9"),
    ]
    clean, found = Redactor().redact({"messages": messages, "why": "hunter2\u00e9? hunter23 is another"})
    assert "hunter2\u00e9" not in str(clean) and "u00e9" not in str(clean) and len(found) == 5
    assert clean["why"] == "[named secret]? hunter23 is another"
    assert json.loads(clean["messages"][1]["tool_calls"][0]["function"]["arguments"])["x"] == ["[named secret]"]


def test_json_stays_json_where_a_number_is_taken_out():
    messages = [called("f", {"otp": 482913, "pin": 4821, "n": 1}), result('{"cvv": 123, "ok": true}')]
    clean, _ = Redactor().redact({"messages": messages})
    arguments = clean["messages"][0]["tool_calls"][0]["function"]["arguments"]
    assert json.loads(arguments) == {"otp": "[one-time code]", "pin": "[PIN]", "n": 1}
    assert json.loads(clean["messages"][1]["content"]) == {"cvv": "[card code]", "ok": True}


async def test_whatever_is_taken_out_a_conversation_stays_one(made):
    built, env = made([talk(n) for n in range(20)], redact=[r"[a-z]+", r'": ".*"'])
    assert sum(built.tasks.values()) + sum(built.skipped.values()) == 20
    (rollout,) = await play(env(), Expert())
    assert rollout.failure is None and rollout.reward == 1.0


def test_own_patterns_and_secrets_of_this_machine(monkeypatch):
    from ludus.redaction import SECRETS as known

    monkeypatch.setattr(known, "_known", ("very-own-secret-77",))
    value, found = Redactor([r"[\w.]+@[\w.]+"]).redact({"a": ["mail a.b@c.org", "x very-own-secret-77 y"]})
    assert value == {"a": ["mail [own pattern]", "x [secret] y"]}
    assert {one.kind for one in found} == {"own pattern", "secret of this machine"}


# --- much of it ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_stays_flat(tmp_path):
    import subprocess

    path = tmp_path / "traces.jsonl"
    code = (
        "import sys; from pathlib import Path; from ludus.programs.traces import environment_from_traces as make\n"
        "make([Path(sys.argv[1])], 'flat-env', Path(sys.argv[1]).parent / sys.argv[2])\n"
        "print(open('/proc/self/status').read())"
    )

    def peak_mb(count):
        write(path, (talk(n) for n in range(count)))
        run = subprocess.run([sys.executable, "-c", code, path, str(count)], capture_output=True, text=True, check=True)
        return int(re.search(r"VmHWM:\s+(\d+)", run.stdout)[1]) / 1024

    assert peak_mb(20_000) < peak_mb(2_000) + 12

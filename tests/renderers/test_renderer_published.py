"""Every template that the TRL library carries: replies are read, and recordings go on exactly or fork."""

import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from published import CASES, EACH, MORE, QUESTION, SOURCES, call, honours, measure, renderer_of, step, table, tools_of
from published import written as ways

from ludus.renderers.parsing import arguments_of

if not SOURCES:
    pytest.skip("the library trl is not installed", allow_module_level=True)

CHOICES = (None, True, False)
"""Of `keep_thinking`."""
PAGE = Path(__file__).parents[2] / "docs" / "templates.md"

# Text that templates leave as it is: no white space at its ends, no marks, no quotes.
text = st.text(
    st.characters(codec="utf-8", exclude_characters="<>'\"\\`|[]{}", exclude_categories=["C", "Z"]), min_size=1
)
arguments = st.fixed_dictionaries(
    {"query": text},
    optional={"limit": st.integers(-9, 99), "exact": st.booleans(), "pages": st.lists(text, max_size=2)},
)


def visible(renderer, reply):
    """The reply as far as its template tells reasoning and calls apart."""
    reply = dict(reply)
    if not renderer.format.thinking_style:
        reply.pop("reasoning_content", None)
    return reply


def meaning(message):
    calls = [(one["function"]["name"], arguments_of(one["function"])) for one in message.get("tool_calls", [])]
    return (message.get("reasoning_content") or "").strip(), message["content"].strip(), calls


@pytest.mark.parametrize("name", EACH)
def test_replies_are_read(name):
    renderer = renderer_of(name)
    for reply, new in CASES.values():
        if reply.get("tool_calls") and not renderer.format.calls_style:
            continue
        reply = visible(renderer, reply)
        for written in ways(renderer, QUESTION, reply):
            assert meaning(step(renderer, QUESTION, written, reply, new).message) == meaning(reply)


@st.composite
def turns(draw, renderer):
    """Replies, each with the messages that come after it."""
    out = []
    for _ in range(draw(st.integers(1, 3))):
        thought = {"reasoning_content": draw(text)} if renderer.format.thinking_style and draw(st.booleans()) else {}
        if renderer.format.calls_style and draw(st.booleans()):
            reply = {"role": "assistant", **thought, "content": "", "tool_calls": [call(**draw(arguments))]}
            new = {"role": "tool", "tool_call_id": "call_0", "name": "search", "content": draw(text)}
        else:
            reply, new = (
                {"role": "assistant", **thought, "content": draw(text)},
                {"role": "user", "content": draw(text)},
            )
        out.append((reply, [new]))
    return out


@pytest.mark.slow
@given(name=st.sampled_from(list(SOURCES)), keep=st.sampled_from(CHOICES), data=st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_what_extends_is_the_whole_conversation(name, keep, data):
    assume(honours(name, keep))
    renderer = renderer_of(name, keep)
    tools, messages, ids = tools_of(renderer), list(QUESTION), None
    for reply, new in data.draw(turns(renderer)):
        written = ways(renderer, messages, reply)[-1]
        one = step(renderer, messages, written, reply, new)
        if ids is None:  # the first one, or a recording that has just forked
            ids = list(one.prompt)
        messages += [one.message, *new]
        if one.inserted is None:
            ids = None
            continue
        ids += [*one.sampled, *one.inserted]
        assert ids == renderer.render(messages, tools)


def never_forking(name):
    """Its renderers, by what is kept of the thinking; not made where tests are collected, for that takes seconds."""
    kept = [keep for keep in CHOICES if honours(name, keep) and "forks" not in measure(name, keep).cells]
    return [renderer_of(name, keep) for keep in kept]


@pytest.mark.parametrize("name", EACH)
def test_templates_that_never_fork_give_one_sequence(name):
    for renderer in never_forking(name):
        assert_one_sequence(renderer)


def assert_one_sequence(renderer):
    tools, messages = tools_of(renderer), list(QUESTION)
    ids = renderer.render(messages, tools)
    cases = [visible(renderer, reply) for reply, _ in CASES.values() if tools or not reply.get("tool_calls")]
    for reply in itertools.chain(reversed(cases), cases):
        new = CASES["call"][1] if reply.get("tool_calls") else MORE
        one = step(renderer, messages, ways(renderer, messages, reply)[0], reply, new)
        ids += [*one.sampled, *one.inserted]
        messages += [one.message, *new]
    assert ids == renderer.render(messages, tools)


@pytest.mark.parametrize("name", EACH)
def test_demonstrations_are_what_would_have_been_recorded(name):
    for renderer in never_forking(name):
        assert_recorded_so(renderer)


def assert_recorded_so(renderer):
    tools, messages = tools_of(renderer), list(QUESTION)
    ids = renderer.render(messages, tools)
    mask = [0] * len(ids)
    for reply, new in CASES.values():
        if reply.get("tool_calls") and not tools:
            continue
        one = step(renderer, messages, ways(renderer, messages, visible(renderer, reply))[0], reply, new)
        ids += [*one.sampled, *one.inserted]
        mask += [1] * len(one.sampled) + [0] * len(one.inserted)
        messages += [one.message, *new]
    shown, shown_mask = renderer.demonstration(messages, tools)
    shared = min(len(ids), len(shown)) - 5  # phi3 ends a conversation with another token than a prompt
    assert (shown[:shared], shown_mask[:shared]) == (ids[:shared], mask[:shared])
    assert sum(shown_mask) == sum(mask)


@pytest.mark.slow
def test_the_documentation_says_what_is_measured():
    page = PAGE.read_text(encoding="utf-8")
    for line in table():
        assert line in page, "python tests/renderers/published.py prints the table"
    rows = [line for line in page.splitlines() if line.startswith("| `") and line.count("|") > 8]
    assert len(rows) == len(table()) - 2

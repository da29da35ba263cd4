"""Rollouts to store: one worked example, and a hypothesis strategy for all of them."""

from __future__ import annotations

from hypothesis import strategies as st

from ludus.types import (
    Call,
    EnvironmentRef,
    Failure,
    Reward,
    Rollout,
    Sampling,
    Seeds,
    Sequence,
    Task,
    Usage,
    user,
)


def make_rollout(number: int = 0, *, purpose: str = "train", reward: float = 1.0, task: str = "t0") -> Rollout:
    """A rollout of two turns and four tokens."""
    return Rollout(
        id=f"r{number}",
        group=f"g{number}",
        environment=EnvironmentRef("guess", {"high": 20}, "0.1", "abc"),
        task=Task(prompt="Guess a number", answer=7, id=task),
        seeds=Seeds(run=0, visit=1, sample=number, attempt=0),
        purpose=purpose,
        calls=[
            Call(messages=[user("Guess")], reply={"role": "assistant", "content": "5"}, usage=Usage(3, 1), sequence=0),
            Call(parent=0, messages=[user("higher")], reply={"role": "assistant", "content": "7"}, usage=Usage(5, 1)),
        ],
        sequences=[
            Sequence(
                id=0,
                tokens=[1, 2, 3, 4],
                sampled_mask=[0, 1, 0, 1],
                logprobs=[0.0, -0.5, 0.0, -0.1],
                versions=[-1, 2, -1, 2],
            )
        ],
        rewards=[Reward("correct", reward), Reward("turns", 2.0, 0.0)],
        stop="done",
    )


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
finite = st.floats(allow_nan=False, allow_infinity=False)
messages = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "tool"]), "content": text | st.none()})
calls = st.builds(
    Call,
    parent=st.none() | st.integers(0, 3),
    messages=st.lists(messages, max_size=2),
    reply=messages,
    finish_reason=st.sampled_from(["stop", "length", "tool_calls", "cancelled"]),
    usage=st.builds(Usage, st.integers(0, 99), st.integers(0, 99), st.floats(0, 1)),
    sampling=st.builds(Sampling, temperature=st.floats(0, 2), top_k=st.integers(0, 9), stop=st.tuples(text)),
    sequence=st.none() | st.integers(0, 3),
    seconds=st.floats(0, 9),
)
tokens = st.lists(st.integers(0, 2**31 - 1), max_size=8)
logprobs = st.lists(st.floats(max_value=0.0, allow_nan=False), max_size=8) | st.lists(
    st.floats(max_value=0.0, allow_nan=False, width=32), max_size=8
)
sequences = st.builds(
    Sequence,
    id=st.integers(0, 9),
    parent=st.none() | st.integers(0, 9),
    fork_at=st.integers(0, 9),
    tokens=tokens,
    sampled_mask=st.lists(st.integers(0, 1), max_size=8),
    logprobs=logprobs,
    versions=st.lists(st.integers(-1, 2**31 - 1), max_size=8),
    truncated_sampling=st.booleans(),
    temperature=st.floats(0, 2),
)
rollouts = st.builds(
    Rollout,
    id=text,
    group=text,
    environment=st.builds(EnvironmentRef, text, st.dictionaries(text, values, max_size=2), text, text),
    task=st.builds(Task, prompt=text | st.lists(messages, max_size=2), answer=values, id=text),
    split=text,
    seeds=st.builds(Seeds, *[st.integers(0, 2**63 - 1)] * 4),
    purpose=text,
    model=text,
    calls=st.lists(calls, max_size=2),
    sequences=st.lists(sequences, max_size=2),
    epilogue=st.lists(messages, max_size=2),
    rewards=st.lists(st.builds(Reward, text, finite, finite, text, st.none() | st.integers(0, 9)), max_size=2),
    stop=text,
    failure=st.none()
    | st.builds(
        Failure, st.sampled_from(["model", "tool", "scorer"]), st.sampled_from(["policy", "environment"]), text
    ),
    seconds=st.floats(0, 9),
    started=finite,
    versions=st.dictionaries(text, text, max_size=2),
)

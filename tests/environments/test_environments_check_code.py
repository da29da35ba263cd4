"""Code checked by tests in any scorer: the verdict, whatever the code tries, and nothing left behind."""

import pytest

import ludus
from ludus.environments.tested_code import check_code
from ludus.errors import ConfigError
from ludus.sandbox import capabilities
from ludus.testing.scripted import Scripted

pytestmark = [
    pytest.mark.skipif(capabilities().tier is None, reason="this machine can't contain code"),
    pytest.mark.usefixtures("nothing_is_left"),
]

CALLS = [{"call": "double", "args": [2], "returns": 4}, {"call": "double", "args": [0], "returns": 0}]


@pytest.mark.parametrize(
    ("reply", "share"),
    [
        ("Like so:\n```python\ndef double(x):\n    return 2 * x\n```", 1.0),
        ("def double(x): return x and 4", 1.0),
        ("def double(x): return 4", 0.5),
        ("", 0.0),
        ("import os; os._exit(0)", 0.0),
        ("def double(x)", 0.0),
        ("x = '\ud800'", 0.0),
    ],
)
async def test_the_share_of_tests_that_pass(reply, share):
    assert (await check_code(reply, CALLS)).share == share


async def test_tests_that_are_none_are_refused():
    with pytest.raises(ConfigError, match="expected a list of tests"):
        await check_code("x = 1", [])


def test_any_scorer_may_check_code():
    class Writes(ludus.Environment):
        def tasks(self, split):
            return [ludus.Task(prompt="Write double.", info={"tests": CALLS})]

        @ludus.reward
        async def right(self, task, rollout):
            return (await check_code(rollout.reply, task.info["tests"])).share

    assert ludus.evaluate(Writes(), Scripted("right", lambda messages: "double = lambda x: 2 * x")).mean == 1.0

"""Write a function; hidden tests judge it."""

import re

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import Score, accuracy, scorer
from inspect_ai.solver import generate
from inspect_ai.util import sandbox

FACTORS = {"train": [2, 3, 5], "test": [4, 6]}


@scorer(metrics=[accuracy()])
def passed():
    async def score(state, target):
        blocks = re.findall(r"```[^\n]*\n(.*?)```", state.output.completion, re.DOTALL)
        await sandbox().write_file("solution.py", blocks[-1] if blocks else state.output.completion)
        for test in state.metadata["tests"]:
            program = f"from solution import f\n{test}\nprint('passed')"
            try:
                result = await sandbox().exec(["python3", "-c", program], timeout=10)
            except TimeoutError:
                return Score(value=0.0)
            if not result.success or not result.stdout.endswith("passed\n"):
                return Score(value=0.0)
        return Score(value=1.0)

    return score


@task
def multiply(split: str = "train"):
    samples = []
    for factor in FACTORS[split]:
        tests = [f"assert f(0) == 0 and f(7) == {7 * factor}", f"assert f('a') == '{'a' * factor}'"]
        prompt = f"Write a Python function f(x) that returns {factor} * x."
        samples.append(Sample(input=prompt, metadata={"tests": tests}))
    return Task(dataset=samples, solver=generate(), scorer=passed(), sandbox="docker")

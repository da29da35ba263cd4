"""Write a function; hidden tests judge it."""

import ludus
from ludus.environments.tested_code import TestedCode

FACTORS = {"train": [2, 3, 5], "test": [4, 6]}


class Multiply(TestedCode):
    """Write a function that multiplies."""

    def tasks(self, split):
        for factor in FACTORS[split]:
            tests = [f"assert f(0) == 0 and f(7) == {7 * factor}", f"assert f('a') == '{'a' * factor}'"]
            prompt = f"Write a Python function f(x) that returns {factor} * x."
            yield ludus.Task(prompt=prompt, info={"tests": tests})

"""Write a function; hidden tests judge it."""

import re

import verifiers.v1 as vf

FACTORS = {"train": [2, 3, 5], "test": [4, 6]}


class MultiplyData(vf.TaskData):
    tests: list[str]


class MultiplyTask(vf.Task[MultiplyData]):
    NEEDS_CONTAINER = True

    @vf.reward(weight=1.0)
    async def passed(self, trace: vf.Trace, runtime: vf.Runtime) -> float:
        blocks = re.findall(r"```[^\n]*\n(.*?)```", trace.last_reply, re.DOTALL)
        await runtime.write("solution.py", (blocks[-1] if blocks else trace.last_reply).encode())
        for test in self.data.tests:
            program = f"from solution import f\n{test}\nprint('passed')"
            result = await runtime.run(["timeout", "10", "python3", "-c", program], {})
            if result.exit_code or not result.stdout.endswith("passed\n"):
                return 0.0
        return 1.0


class MultiplyConfig(vf.TasksetConfig):
    split: str = "train"


class MultiplyTaskset(vf.Taskset[MultiplyTask, MultiplyConfig]):
    def load(self):
        for factor in FACTORS[self.config.split]:
            tests = [f"assert f(0) == 0 and f(7) == {7 * factor}", f"assert f('a') == '{'a' * factor}'"]
            prompt = f"Write a Python function f(x) that returns {factor} * x."
            yield MultiplyTask(MultiplyData(prompt=prompt, tests=tests, image="python:3.11-slim"), self.config.task)


__all__ = ["MultiplyTaskset"]

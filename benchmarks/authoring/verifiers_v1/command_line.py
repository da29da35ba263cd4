"""A program that works in a sandbox leaves a file. Which program it is, a harness, is said where it is run."""

import verifiers.v1 as vf

NAMES = {"train": ["Ann", "Bo"], "test": ["Cy"]}


class GreetingData(vf.TaskData):
    answer: str


class GreetingTask(vf.Task[GreetingData]):
    NEEDS_CONTAINER = True

    @vf.reward(weight=1.0)
    async def greeted(self, runtime: vf.Runtime) -> float:
        found = await runtime.run(["cat", "greeting.txt"], {})
        return float(found.stdout.strip() == f"hello {self.data.answer}")


class GreetingConfig(vf.TasksetConfig):
    split: str = "train"


class GreetingTaskset(vf.Taskset[GreetingTask, GreetingConfig]):
    def load(self):
        for name in NAMES[self.config.split]:
            data = GreetingData(prompt=f"Write 'hello {name}' into greeting.txt.", answer=name)
            yield GreetingTask(data, self.config.task)


__all__ = ["GreetingTaskset"]

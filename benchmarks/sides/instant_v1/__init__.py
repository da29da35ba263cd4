"""The environment of `verifiers_v1.py`, as a package of verifiers 0.4.0: a question, with or without a tool."""

import verifiers.v1 as vf

from instant_v1.look import LookToolset


class InstantData(vf.TaskData):
    answer: str


class InstantTaskConfig(vf.TaskConfig):
    pass


class InstantTask(vf.Task[InstantData, vf.State, InstantTaskConfig]):
    @vf.reward(weight=1.0)
    async def right(self, trace: vf.Trace) -> float:
        return float(trace.last_reply == self.data.answer)


class InstantConfig(vf.TasksetConfig):
    task: InstantTaskConfig = InstantTaskConfig()
    tools: bool = False
    look: vf.SharedToolsetConfig = vf.SharedToolsetConfig()


class InstantTaskset(vf.Taskset[InstantTask, InstantConfig]):
    def load(self) -> list[InstantTask]:
        data = [InstantData(prompt=f"Which number is hidden? Hint {i}", answer="50") for i in range(64)]
        return [InstantTask(row, self.config.task) for row in data]

    @classmethod
    def toolsets(cls, config: InstantConfig) -> list[vf.Toolset]:
        return [LookToolset(config.look)] if config.tools else []


__all__ = ["InstantTaskset"]

"""Boxes that are opened by a tool that all rollouts share, and counted in a state that each has for itself."""

import verifiers.v1 as vf

from boxes_v1.box import BoxToolset, Opened


class BoxTask(vf.Task[vf.TaskData, Opened]):
    @vf.reward
    async def opened(self, trace: vf.Trace) -> float:
        return float(trace.state.boxes)


class BoxConfig(vf.TasksetConfig):
    box: vf.SharedToolsetConfig = vf.SharedToolsetConfig()


class BoxTaskset(vf.Taskset[BoxTask, BoxConfig]):
    def load(self):
        return [BoxTask(vf.TaskData(prompt=f"Open {i} boxes"), self.config.task) for i in range(12)]

    @classmethod
    def toolsets(cls, config):
        return [BoxToolset(config.box)]


__all__ = ["BoxTaskset"]

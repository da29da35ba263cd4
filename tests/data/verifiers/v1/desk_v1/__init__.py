"""Tools with state of one rollout, replies that are changed on their way, rewards by name, judges and a stop."""

import asyncio

import verifiers.v1 as vf

from desk_v1.tools import DeskState, DeskTools, DeskToolsConfig


class DeskData(vf.TaskData):
    wanted: str


class DeskConfig(vf.TaskConfig):
    tools: DeskToolsConfig = DeskToolsConfig()


class DeskTask(vf.Task[DeskData, DeskState, DeskConfig]):
    async def setup(self, trace: vf.Trace, runtime: vf.Runtime) -> None:
        trace.state.drawer = [self.data.wanted, "a pen"]

    async def finalize(self, trace: vf.Trace, runtime: vf.Runtime) -> None:
        await asyncio.sleep(0)
        trace.info["left"] = list(trace.state.drawer)

    @classmethod
    def toolsets(cls, config: DeskConfig):
        return [DeskTools(config.tools)]

    @vf.stop
    async def said_stop(self, response: vf.Response) -> bool:
        return "stop" in (response.message.content or "")

    @vf.reward(weight=0.5)
    async def parts(self, trace: vf.Trace) -> dict[str, float]:
        return {
            "taken": float(self.data.wanted not in trace.info["left"]),
            "polite": float("please" in trace.last_reply),
        }

    @vf.metric
    async def left(self, trace: vf.Trace) -> float:
        return float(len(trace.info["left"]))


class DesksConfig(vf.TasksetConfig):
    task: DeskConfig = DeskConfig()


class Desks(vf.Taskset[DeskTask, DesksConfig]):
    def load(self):
        things = ("a key", "a coin")
        return [DeskTask(DeskData(prompt=f"Take {what}.", wanted=what), self.config.task) for what in things]


__all__ = ["Desks"]

"""Sums, as verifiers 0.4 wants them: a Taskset of Tasks."""

import verifiers.v1 as vf


class SumData(vf.TaskData):
    answer: str


class SumTask(vf.Task[SumData]):
    @vf.reward(weight=2.0)
    async def correct(self, trace: vf.Trace) -> float:
        if "raise" in trace.last_reply:
            raise LookupError("no answer in the reply")
        return float(self.data.answer in trace.last_reply)

    @vf.reward(weight=-0.5)
    async def shouts(self, trace: vf.Trace) -> float:
        return float(trace.last_reply.isupper())

    @vf.metric
    async def letters(self, trace: vf.Trace) -> float:
        return float(len(trace.last_reply))


class SumConfig(vf.TasksetConfig):
    size: int = 4


class SumTaskset(vf.Taskset[SumTask, SumConfig]):
    def load(self):
        for i in range(self.config.size):
            data = SumData(prompt=f"{i} + {i}?", system_prompt="Add.", answer=str(2 * i))
            yield SumTask(data, self.config.task)


__all__ = ["SumTaskset"]

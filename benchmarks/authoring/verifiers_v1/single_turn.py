"""Spell a word backward."""

import verifiers.v1 as vf

WORDS = {"train": ["apple", "bread", "cheese"], "test": ["lemon", "melon"]}


class BackwardData(vf.TaskData):
    answer: str


class BackwardTask(vf.Task[BackwardData]):
    @vf.reward(weight=1.0)
    async def correct(self, trace: vf.Trace) -> float:
        return float(trace.last_reply.strip() == self.data.answer)


class BackwardConfig(vf.TasksetConfig):
    split: str = "train"


class BackwardTaskset(vf.Taskset[BackwardTask, BackwardConfig]):
    def load(self):
        for word in WORDS[self.config.split]:
            data = BackwardData(prompt=f"Spell {word} backward.", answer=word[::-1])
            yield BackwardTask(data, self.config.task)


__all__ = ["BackwardTaskset"]

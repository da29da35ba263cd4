"""An environment of its own beside the tasks: who guesses a number is told higher or lower by a player of the code, and
a helper, another agent, may be asked once."""

import verifiers.v1 as vf


class GuessData(vf.TaskData):
    number: int


class GuessTask(vf.Task[GuessData]):
    @vf.metric
    async def turns(self, trace: vf.Trace) -> float:
        return float(trace.num_turns)


class GuessConfig(vf.TasksetConfig):
    largest: int = 9


class Guesses(vf.Taskset[GuessTask, GuessConfig]):
    INFINITE = True

    def load(self):
        number = 0
        while True:
            number = (number * 7 + 3) % (self.config.largest + 1)
            yield GuessTask(GuessData(prompt="Guess my number.", number=number), self.config.task)


class TalkConfig(vf.EnvConfig):
    guesser: vf.AgentConfig = vf.AgentConfig(max_turns=6)
    helper: vf.AgentConfig = vf.AgentConfig(harness={"id": "null"})
    helped: bool = False


class Talk(vf.Env[TalkConfig]):
    async def setup(self, agents):
        agents.helper.trainable = False

    async def run(self, task, agents):
        hint = ""
        if self.config.helped:
            asked = vf.Task(vf.TaskData(prompt=f"Say {task.data.number}."))
            hint = (await agents.helper.run(asked)).last_reply
        found = False
        async with agents.guesser.interaction(task) as talk:
            segment = await talk.turn()
            while not segment.terminated and not found:
                said = segment.last_reply
                found = said == str(task.data.number)
                if not found:
                    segment = await talk.turn(hint or ("higher" if said < str(task.data.number) else "lower"))
        talk.trace.record_reward("found", float(found))


__all__ = ["Guesses", "Talk"]

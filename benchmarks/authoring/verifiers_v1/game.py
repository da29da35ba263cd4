"""Find a number from "higher" and "lower"."""

import verifiers.v1 as vf

NUMBERS = {"train": [3, 17, 25], "test": [8, 30]}


class GuessData(vf.TaskData):
    hidden: int


class GuessTask(vf.Task[GuessData]):
    @vf.reward(weight=1.0)
    async def found(self, trace: vf.Trace) -> float:
        return float(trace.last_reply.strip() == str(self.data.hidden))


class GuessConfig(vf.TasksetConfig):
    split: str = "train"


class GuessTaskset(vf.Taskset[GuessTask, GuessConfig]):
    def load(self):
        for number in NUMBERS[self.config.split]:
            data = GuessData(prompt="Find a number from 1 to 32. Reply with a guess alone.", hidden=number)
            yield GuessTask(data, self.config.task)


class GuessEnvConfig(vf.EnvConfig):
    player: vf.AgentConfig = vf.AgentConfig(max_turns=6)


class GuessEnv(vf.Env[GuessEnvConfig]):
    async def run(self, task, agents):
        async with agents.player.interaction(task) as interaction:
            segment = await interaction.turn()
            while not segment.terminated:
                guess = segment.last_reply.strip()
                if guess == str(task.data.hidden):
                    break
                lower = guess.isdecimal() and int(guess) > task.data.hidden
                answer = "lower" if lower else "higher" if guess.isdecimal() else "not a number"
                segment = await interaction.turn(answer)


__all__ = ["GuessEnv", "GuessTaskset"]

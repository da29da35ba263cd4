"""Find a number from "higher" and "lower"."""

from openenv.core.env_server.http_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State

NUMBERS = {"train": [3, 17, 25], "test": [8, 30]}
TURNS = 6


class Number(Action):
    text: str


class Answer(Observation):
    text: str = ""


class Guess(Environment):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self):
        super().__init__()
        self.hidden = self.turns = 0

    def reset(self, seed=None, episode_id=None, split="train", **kwargs):
        self.hidden, self.turns = NUMBERS[split][(seed or 0) % len(NUMBERS[split])], 0
        return Answer(text="Find a number from 1 to 32. Reply with a guess alone.")

    def step(self, action, timeout_s=None, **kwargs):
        self.turns += 1
        guess = action.text.strip()
        if guess == str(self.hidden):
            return Answer(reward=1.0, done=True)
        lower = guess.isdecimal() and int(guess) > self.hidden
        answer = "lower" if lower else "higher" if guess.isdecimal() else "not a number"
        return Answer(text=answer, reward=0.0, done=self.turns == TURNS)

    @property
    def state(self):
        return State(step_count=self.turns)


app = create_fastapi_app(Guess, Number, Answer, max_concurrent_envs=64)

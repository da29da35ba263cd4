"""Spell a word backward."""

from openenv.core.env_server.http_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State

WORDS = {"train": ["apple", "bread", "cheese"], "test": ["lemon", "melon"]}


class Reply(Action):
    text: str


class Question(Observation):
    text: str = ""


class Backward(Environment):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self):
        super().__init__()
        self.word = ""

    def reset(self, seed=None, episode_id=None, split="train", **kwargs):
        self.word = WORDS[split][(seed or 0) % len(WORDS[split])]
        return Question(text=f"Spell {self.word} backward.")

    def step(self, action, timeout_s=None, **kwargs):
        return Question(reward=float(action.text.strip() == self.word[::-1]), done=True)

    @property
    def state(self):
        return State()


app = create_fastapi_app(Backward, Reply, Question, max_concurrent_envs=64)

"""Small environments made with the `openenv` package itself."""

import pytest

pytest.importorskip("openenv")

import time
import uuid

from openenv.core.env_server.http_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State
from pydantic import Field


class Word(Action):
    message: str


class Seen(Observation):
    text: str


class Warmer(Environment):
    """Find seed % 7 from "higher" and "lower": each miss costs 0.1, five lose the game."""

    SUPPORTS_CONCURRENT_SESSIONS = True
    open_now = 0
    most_open = 0

    def __init__(self):
        super().__init__()
        self.hidden, self.steps = None, 0
        Warmer.open_now += 1
        Warmer.most_open = max(Warmer.most_open, Warmer.open_now)

    def reset(self, seed=None, episode_id=None, **kwargs):
        self.hidden, self.steps = (seed or 0) % 7, 0
        return Seen(text="0 to 6")

    def step(self, action, timeout_s=None, **kwargs):
        self.steps += 1
        if action.message == "boom":
            raise RuntimeError("the game broke")
        if action.message == "dice":
            return Seen(text=uuid.uuid4().hex)
        if action.message == "sleep":
            time.sleep(2)
        if action.message == "nan":
            return Seen(text="?", reward=float("nan"), done=True)
        if action.message == "quiet":
            return Seen(text="?", done=True)
        guess = int(action.message) if action.message.isdecimal() else -1
        if guess == self.hidden:
            return Seen(text="found", reward=1.0, done=True)
        text = "higher" if guess < self.hidden else "lower"
        return Seen(text=text, reward=-0.1, done=self.steps == 5)

    @property
    def state(self):
        return State(step_count=self.steps)

    def close(self):
        Warmer.open_now -= 1


class Move(Action):
    column: int = Field(ge=0, le=6)
    drop: bool


class Board(Observation):
    board: list[list[int]]
    note: str = ""


class Columns(Environment):
    """Drop into column 3."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, seed=None, episode_id=None, **kwargs):
        return Board(board=[[0, 0]], note="drop into 3")

    def step(self, action, timeout_s=None, **kwargs):
        right = action.column == 3 and action.drop
        return Board(board=[[1, 0]], reward=float(right), done=right)

    @property
    def state(self):
        return State()


class Column(Action):
    column: int


class OneNumber(Columns):
    def step(self, action, timeout_s=None, **kwargs):
        return Board(board=[[1, 0]], reward=float(action.column), done=True)


def warmer_app(sessions=64):
    Warmer.open_now = Warmer.most_open = 0
    return create_fastapi_app(Warmer, Word, Seen, max_concurrent_envs=sessions)


def columns_app():
    return create_fastapi_app(Columns, Move, Board, max_concurrent_envs=8)


def one_number_app():
    return create_fastapi_app(OneNumber, Column, Board, max_concurrent_envs=8)


def mcp_app():
    from fastmcp import FastMCP
    from openenv.core.env_server.mcp_environment import MCPEnvironment
    from openenv.core.env_server.mcp_types import CallToolAction, CallToolObservation

    class Adder(MCPEnvironment):
        """Call add until the sum is 5."""

        SUPPORTS_CONCURRENT_SESSIONS = True

        def __init__(self):
            mcp = FastMCP("adder")

            @mcp.tool
            def add(a: int, b: int) -> int:
                """Add two numbers."""
                self.sum = a + b
                return self.sum

            self.sum = 0
            super().__init__(mcp)

        def reset(self, seed=None, episode_id=None, **kwargs):
            self.sum = 0
            return Observation()

        async def step_async(self, action, timeout_s=None, **kwargs):
            seen = await super().step_async(action, timeout_s=timeout_s, **kwargs)
            if isinstance(action, CallToolAction):
                seen.done, seen.reward = self.sum == 5, float(self.sum == 5)
            return seen

        def _step_impl(self, action, timeout_s=None, **kwargs):
            return Observation()

        @property
        def state(self):
            return State()

    return create_fastapi_app(Adder, CallToolAction, CallToolObservation, max_concurrent_envs=8)


class Listed(Warmer):
    """Say the name of the task; its prompt is in the metadata."""

    def list_splits(self):
        return ["easy", {"name": "hard", "type": "test"}]

    def num_tasks(self, split):
        return {"easy": 3, "hard": 2}[split]

    def reset(self, seed=None, episode_id=None, split="easy", index=0, **kwargs):
        self.hidden = f"{split} {index}"
        return Seen(text="", metadata={"hint": "say the name"})

    def step(self, action, timeout_s=None, **kwargs):
        return Seen(text="", reward=float(action.message == self.hidden), done=True)


def listed_app():
    return create_fastapi_app(Listed, Word, Seen, max_concurrent_envs=8)

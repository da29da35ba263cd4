"""Write a function; hidden tests judge it. What contains the code is the container that the server runs in."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from openenv.core.env_server.http_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State

FACTORS = {"train": [2, 3, 5], "test": [4, 6]}


class Reply(Action):
    text: str


class Question(Observation):
    text: str = ""


class Multiply(Environment):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self):
        super().__init__()
        self.factor = 0

    def reset(self, seed=None, episode_id=None, split="train", **kwargs):
        self.factor = FACTORS[split][(seed or 0) % len(FACTORS[split])]
        return Question(text=f"Write a Python function f(x) that returns {self.factor} * x.")

    def step(self, action, timeout_s=None, **kwargs):
        blocks = re.findall(r"```[^\n]*\n(.*?)```", action.text, re.DOTALL)
        code = blocks[-1] if blocks else action.text
        tests = [f"assert f(0) == 0 and f(7) == {7 * self.factor}", f"assert f('a') == '{'a' * self.factor}'"]
        return Question(reward=float(all(self.passes(code, test) for test in tests)), done=True)

    def passes(self, code, test):
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "solution.py").write_text(code)
            program = f"from solution import f\n{test}\nprint('passed')"
            command = [sys.executable, "-c", program]
            try:
                result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10)
            except subprocess.TimeoutExpired:
                return False
            return result.returncode == 0 and result.stdout.endswith("passed\n")

    @property
    def state(self):
        return State()


app = create_fastapi_app(Multiply, Reply, Question, max_concurrent_envs=64)

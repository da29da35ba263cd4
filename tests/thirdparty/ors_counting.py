"""An environment written with the package `ors-sdk`, and served by it: count up to a number."""

from ors import Environment, Server, Split, TextBlock, ToolOutput, tool
from pydantic import BaseModel


class Number(BaseModel):
    number: int


class Counting(Environment):
    """Say the numbers up to the last one, in order."""

    def setup(self):
        self.said = 0

    @classmethod
    def list_splits(cls):
        return [Split(name="train", type="train"), Split(name="test", type="test")]

    @classmethod
    def list_tasks(cls, split):
        return [{"last": last} for last in ((2, 3, 4) if split == "train" else (5,))]

    def get_prompt(self):
        return [TextBlock(text=f"Count to {self.task_spec['last']}.")]

    @tool
    def count(self, params: Number) -> ToolOutput:
        """Say the next number."""
        right = params.number == self.said + 1
        self.said += right
        done = not right or self.said == self.task_spec["last"]
        return ToolOutput(blocks=[TextBlock(text="yes" if right else "no")], reward=float(right), finished=done)


app = Server([Counting]).app

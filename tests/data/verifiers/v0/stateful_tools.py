"""A tool that is given the state of its rollout, which the model does not see."""

import verifiers as vf
from datasets import Dataset


class Purse(vf.StatefulToolEnv):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.add_tool(self.pay, args_to_skip=["purse"])

    async def setup_state(self, state, **kwargs):
        state["purse"] = {"coins": 5}
        return await super().setup_state(state, **kwargs) or state

    def update_tool_args(self, tool_name, tool_args, messages, state, **kwargs):
        return {**tool_args, "purse": state["purse"]}

    async def pay(self, coins: int, purse: dict) -> str:
        """Pay with coins."""
        purse["coins"] -= coins
        return f"{purse['coins']} left"


def load_environment():
    def thrift(state):
        return state["purse"]["coins"] / 5

    rows = [{"question": "Pay three coins.", "answer": ""}]
    return Purse(dataset=Dataset.from_list(rows), rubric=vf.Rubric(funcs=[thrift]), max_turns=4)

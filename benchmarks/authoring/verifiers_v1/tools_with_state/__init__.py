"""Buy things, without spending too much."""

import verifiers.v1 as vf

from tools_with_state.cart import PRICES, CartState, CartToolset

BUDGETS = {"train": [7, 8, 10], "test": [9, 11]}


class CartData(vf.TaskData):
    budget: int


class CartTaskConfig(vf.TaskConfig):
    cart: vf.ToolsetConfig = vf.ToolsetConfig()


class CartTask(vf.Task[CartData, CartState, CartTaskConfig]):
    @classmethod
    def toolsets(cls, config: CartTaskConfig) -> list[vf.Toolset]:
        return [CartToolset(config.cart)]

    @vf.reward(weight=1.0)
    async def bought(self, trace: vf.Trace) -> float:
        items = trace.state.items
        return float({"tea", "soap"} <= set(items) and sum(PRICES[one] for one in items) <= self.data.budget)


class CartConfig(vf.TasksetConfig):
    task: CartTaskConfig = CartTaskConfig()
    split: str = "train"


class CartTaskset(vf.Taskset[CartTask, CartConfig]):
    def load(self):
        for budget in BUDGETS[self.config.split]:
            data = CartData(prompt=f"Buy tea and soap for at most {budget} euros.", budget=budget)
            yield CartTask(data, self.config.task)


__all__ = ["CartTaskset"]

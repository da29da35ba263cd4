"""Buy things, without spending too much."""

import ludus

PRICES = {"tea": 5, "soap": 2, "hat": 9}
BUDGETS = {"train": [7, 8, 10], "test": [9, 11]}


class Cart(ludus.Environment):
    """Buy tea and soap."""

    def tasks(self, split):
        for budget in BUDGETS[split]:
            yield ludus.Task(prompt=f"Buy tea and soap for at most {budget} euros.", info={"budget": budget})

    async def setup(self, ctx):
        ctx.state = []

    @ludus.tool
    def buy(self, item: str, state) -> int:
        """Put one thing into the cart; the price of all that is in it."""
        if item not in PRICES:
            raise ludus.ToolError(f"{item!r} is not sold here")
        state.append(item)
        return sum(PRICES[one] for one in state)

    @ludus.reward
    def bought(self, task, state):
        return float({"tea", "soap"} <= set(state) and sum(PRICES[one] for one in state) <= task.info["budget"])

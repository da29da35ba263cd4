"""Buy things, without spending too much."""

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import Score, accuracy, scorer
from inspect_ai.solver import generate, use_tools
from inspect_ai.tool import ToolError, tool
from inspect_ai.util import StoreModel, store_as

PRICES = {"tea": 5, "soap": 2, "hat": 9}
BUDGETS = {"train": [7, 8, 10], "test": [9, 11]}


class Cart(StoreModel):
    items: list[str] = []


@tool
def buy():
    async def execute(item: str) -> int:
        """Put one thing into the cart; the price of all that is in it.

        Args:
            item: What to buy.
        """
        cart = store_as(Cart)
        if item not in PRICES:
            raise ToolError(f"{item!r} is not sold here")
        cart.items = [*cart.items, item]
        return sum(PRICES[one] for one in cart.items)

    return execute


@scorer(metrics=[accuracy()])
def bought():
    async def score(state, target):
        items, budget = state.store_as(Cart).items, state.metadata["budget"]
        fits = {"tea", "soap"} <= set(items) and sum(PRICES[one] for one in items) <= budget
        return Score(value=float(fits))

    return score


@task
def cart(split: str = "train"):
    samples = [
        Sample(input=f"Buy tea and soap for at most {budget} euros.", metadata={"budget": budget})
        for budget in BUDGETS[split]
    ]
    return Task(dataset=samples, solver=[use_tools(buy()), generate()], scorer=bought())

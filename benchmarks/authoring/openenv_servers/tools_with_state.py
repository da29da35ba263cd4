"""Buy things, without spending too much."""

from fastmcp import FastMCP
from openenv.core.env_server.http_server import create_fastapi_app
from openenv.core.env_server.mcp_environment import MCPEnvironment
from openenv.core.env_server.mcp_types import CallToolAction, CallToolObservation
from openenv.core.env_server.types import Observation, State

PRICES = {"tea": 5, "soap": 2, "hat": 9}
BUDGETS = {"train": [7, 8, 10], "test": [9, 11]}


class Cart(MCPEnvironment):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self):
        mcp = FastMCP("cart")
        self.items, self.budget = [], 0

        @mcp.tool
        def buy(item: str) -> int:
            """Put one thing into the cart; the price of all that is in it."""
            if item not in PRICES:
                raise ValueError(f"{item!r} is not sold here")
            self.items.append(item)
            return sum(PRICES[one] for one in self.items)

        super().__init__(mcp)

    def reset(self, seed=None, episode_id=None, split="train", **kwargs):
        self.items, self.budget = [], BUDGETS[split][(seed or 0) % len(BUDGETS[split])]
        return Observation(metadata={"prompt": f"Buy tea and soap for at most {self.budget} euros."})

    async def step_async(self, action, timeout_s=None, **kwargs):
        seen = await super().step_async(action, timeout_s=timeout_s, **kwargs)
        if isinstance(action, CallToolAction):
            fits = sum(PRICES[one] for one in self.items) <= self.budget
            seen.done = {"tea", "soap"} <= set(self.items) or not fits
            seen.reward = float(seen.done and fits)
        return seen

    def _step_impl(self, action, timeout_s=None, **kwargs):
        return Observation()

    @property
    def state(self):
        return State()


app = create_fastapi_app(Cart, CallToolAction, CallToolObservation, max_concurrent_envs=64)

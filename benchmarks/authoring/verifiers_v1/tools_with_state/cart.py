"""The tool, a server of its own for each rollout."""

import verifiers.v1 as vf

PRICES = {"tea": 5, "soap": 2, "hat": 9}


class CartState(vf.State):
    items: list[str] = []


class CartToolset(vf.Toolset[vf.ToolsetConfig, CartState]):
    @vf.tool
    def buy(self, item: str) -> int:
        """Put one thing into the cart; the price of all that is in it."""
        if item not in PRICES:
            raise ValueError(f"{item!r} is not sold here")
        self.state.items.append(item)
        return sum(PRICES[one] for one in self.state.items)


if __name__ == "__main__":
    CartToolset.run()

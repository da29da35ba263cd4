"""A help desk with a user, for the tests: find the order, then send it to another address."""

import ludus
from ludus.authoring.users import Change, Persona, UserEnvironment

ORDERS = {"K-1001": "kettle", "L-2002": "lamp", "R-3003": "rope"}


class Desk(UserEnvironment):
    """Send an order to the address that the user wants."""

    system_prompt = "You work at a help desk."

    def __init__(self, user="scripted", judge_faults=False, exclude=False, changes=False):
        super().__init__(user, judge_faults)
        self.excludes_user_errors, self.changes = exclude, changes

    def tasks(self, split):
        for number, thing in ORDERS.items():
            if (number == "R-3003") == (split == "test"):
                change = [Change(after=2, say="Wait, send it to 9 Oak Road instead.")] if self.changes else []
                anna = Persona(
                    goal=f"My {thing} must go to another address.", patience=6, changes=change, satisfied_by=["done"],
                    knows={"order number": number, "new address": "5 Elm Street"},
                )  # fmt: skip
                where = "9 Oak Road" if self.changes else "5 Elm Street"
                yield ludus.Task(prompt=[], info=anna.info() | {"number": number}, answer=where)

    async def setup(self, ctx):
        ctx.state = {}

    @ludus.tool
    def send_to(self, order: str, address: str, state) -> str:
        """Send an order to another address."""
        if order not in ORDERS:
            raise ludus.ToolError("no such order")
        state[order] = address
        return "ok"

    @ludus.reward
    def sent(self, task, ctx):
        return float(ctx.state == {task.info["number"]: task.answer})

    def demonstrate(self, task):
        said = yield "What is the order number?"
        said = yield "And the new address?"
        address = "9 Oak Road" if "Oak" in said[-1]["content"] else "5 Elm Street"
        yield ludus.calls_tool("send_to", order=task.info["number"], address=address)
        yield "It is done."

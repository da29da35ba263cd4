"""A program that works in a sandbox leaves a file."""

import ludus
from ludus import agents
from ludus.environments.command_line import CommandLineAgent

NAMES = {"train": ["Ann", "Bo"], "test": ["Cy"]}


class Greeting(CommandLineAgent):
    """Leave a greeting in a file."""

    command = "{python} agent.py {prompt}"

    def tasks(self, split):
        return [ludus.Task(prompt=f"Write 'hello {name}' into greeting.txt.", answer=name) for name in NAMES[split]]

    def files(self, task):
        return {"agent.py": agents.source("tiny")}

    @ludus.reward
    async def greeted(self, task, sandbox):
        found = await sandbox.exec(["cat", "greeting.txt"])
        return float(found.stdout.strip() == f"hello {task.answer}")

"""A program that works in a sandbox leaves a file."""

from importlib.resources import files

from inspect_ai import Task, task
from inspect_ai.agent import agent, sandbox_agent_bridge
from inspect_ai.dataset import Sample
from inspect_ai.model import user_prompt
from inspect_ai.scorer import Score, accuracy, scorer
from inspect_ai.util import sandbox

NAMES = {"train": ["Ann", "Bo"], "test": ["Cy"]}


@agent
def program():
    async def execute(state):
        source = files("ludus.agents").joinpath("tiny.py").read_text()
        async with sandbox_agent_bridge(state) as bridge:
            await sandbox().write_file("agent.py", source)
            prompt = user_prompt(state.messages).text
            variables = {"OPENAI_BASE_URL": f"http://localhost:{bridge.port}/v1", "OPENAI_MODEL": "inspect"}
            result = await sandbox().exec(["python3", "agent.py", prompt], env=variables)
        if not result.success:
            raise RuntimeError(result.stderr)
        return bridge.state

    return execute


@scorer(metrics=[accuracy()])
def greeted():
    async def score(state, target):
        found = await sandbox().exec(["cat", "greeting.txt"])
        return Score(value=float(found.stdout.strip() == f"hello {target.text}"))

    return score


@task
def greeting(split: str = "train"):
    samples = [Sample(input=f"Write 'hello {name}' into greeting.txt.", target=name) for name in NAMES[split]]
    return Task(dataset=samples, solver=program(), scorer=greeted(), sandbox="docker")

"""The environment of the `foreign` benchmark, as a package of verifiers before 0.4: a question, a tool, and an answer."""

import verifiers as vf
from datasets import Dataset


def look(place: str) -> str:
    """What is there."""
    return f"nothing in the {place}"


def right(completion, answer, **kwargs):
    return float(completion[-1]["content"] == answer)


def load_environment(rows: int = 64) -> vf.Environment:
    data = [{"question": f"Which number is hidden? Hint {i // 8 % 64}", "answer": "50"} for i in range(rows)]
    rubric = vf.Rubric(funcs=[right], weights=[1.0])
    return vf.ToolEnv(dataset=Dataset.from_list(data), rubric=rubric, tools=[look], max_turns=10)

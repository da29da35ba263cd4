"""Tools that are plain functions."""

import verifiers as vf
from datasets import Dataset


async def look(place: str) -> str:
    """What is there.

    Args:
        place: where to look.
    """
    if place == "void":
        raise ValueError("there is no such place")
    return {"box": "a key", "drawer": "nothing"}.get(place, "dust")


def count(words: list[str]) -> int:
    """How many words there are."""
    return len(words)


def load_environment():
    def answered(completion, answer):
        return float(answer in (completion[-1]["content"] or ""))

    rows = [{"question": "What is in the box?", "answer": "key"}]
    rubric = vf.Rubric(funcs=[answered])
    return vf.ToolEnv(dataset=Dataset.from_list(rows), tools=[look, count], rubric=rubric, max_turns=5)

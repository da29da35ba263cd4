"""Rewards that compare the rollouts of a group, beside one that does not."""

import verifiers as vf
from datasets import Dataset


def load_environment(raises: bool = False):
    def longest(completions, **kwargs) -> list[float]:
        if raises:
            raise LookupError("nobody to compare")
        sizes = [len(completion[-1]["content"]) for completion in completions]
        return [float(size == max(sizes)) for size in sizes]

    def polite(completion):
        return float("please" in completion[-1]["content"])

    rows = [{"question": f"Say something, {name}.", "answer": ""} for name in ("Ann", "Bob")]
    return vf.SingleTurnEnv(dataset=Dataset.from_list(rows), rubric=vf.Rubric([longest, polite], [1.0, 0.5]))

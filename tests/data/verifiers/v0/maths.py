"""Answers checked by verifiers' own rubric for mathematics, which has a process of its own."""

import os

import verifiers as vf
from datasets import Dataset


class Maths(vf.SingleTurnEnv):
    async def setup_state(self, state, **kwargs):
        if state["answer"] == "0":
            os._exit(5)
        return state


def load_environment():
    rows = [{"question": f"Half of {n}?", "answer": str(n // 2)} for n in (8, 6, 0)]
    rubric = vf.MathRubric(timeout_seconds=20)
    parser = vf.ThinkParser(vf.extract_boxed_answer)
    rubric.add_reward_func(parser.get_format_reward_func(), weight=0.0)
    return Maths(dataset=Dataset.from_list(rows), rubric=rubric, system_prompt="Think. Then \\boxed{answer}.")

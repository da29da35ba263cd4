"""One reply, read by a parser; two rewards with weights and a metric; training and evaluation data."""

import verifiers as vf
from datasets import Dataset


def load_environment(num_train: int = 6, num_eval: int = 3, weight: float = 0.25):
    def rows(numbers):
        return Dataset.from_list([{"question": f"{i} + {i}?", "answer": str(2 * i)} for i in numbers])

    parser = vf.XMLParser(["think", "answer"], answer_field="answer")

    def correct(completion, answer, parser):
        return float(parser.parse_answer(completion) == answer)

    async def brief(completion):
        return 1.0 / (1 + len(completion[-1]["content"]))

    rubric = vf.Rubric(funcs=[correct, parser.get_format_reward_func()], weights=[1.0, weight], parser=parser)
    rubric.add_metric(brief)
    return vf.SingleTurnEnv(
        dataset=rows(range(num_train)), eval_dataset=rows(range(100, 100 + num_eval)), parser=parser, rubric=rubric,
        system_prompt="Think, then answer.", sampling_args={"temperature": 0.5, "max_tokens": 64},
        few_shot=[
            {"role": "user", "content": "0 + 0?"},
            {"role": "assistant", "content": "<think>\nno\n</think>\n<answer>\n0\n</answer>"},
        ],
    )  # fmt: skip

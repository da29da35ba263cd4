"""A judge beside plain rewards, data made when it is asked for, and `info` as JSON."""

import json

import verifiers as vf
from datasets import Dataset
from openai import AsyncOpenAI


def load_environment(judge_url: str, judge_key: str = "none"):
    def rows(numbers):
        def build():
            made = [
                {"question": f"Name prime {i}.", "answer": str(n), "info": json.dumps({"place": i})} for i, n in numbers
            ]
            return Dataset.from_list(made)

        return build

    parser = vf.MaybeThinkParser()
    judge = vf.JudgeRubric(
        parser=parser, judge_client=AsyncOpenAI(base_url=judge_url, api_key=judge_key, max_retries=0),
        judge_model="judge", judge_sampling_args={"max_tokens": 4},
    )  # fmt: skip

    async def approved(judge, prompt, completion, answer, state):
        return float((await judge(prompt, completion, answer, state)) == "yes")

    async def in_place(completion, info, parser):
        return float(str(info["place"]) in (parser.parse_answer(completion) or ""))

    judge.add_reward_func(approved, weight=0.5)
    plain = vf.Rubric(funcs=[in_place], weights=[2.0], parser=parser)
    rubric = vf.RubricGroup(rubrics=[judge, plain])
    return vf.SingleTurnEnv(dataset=rows([(1, 2), (2, 3)]), eval_dataset=rows([(3, 5)]), parser=parser, rubric=rubric)

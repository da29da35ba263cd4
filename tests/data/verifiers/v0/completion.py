"""A prompt that is plain text, as for a base model."""

import warnings

import verifiers as vf
from datasets import Dataset


def load_environment():
    def longer(prompt, completion):
        said = completion if isinstance(completion, str) else completion[-1]["content"]
        return float(len(said) > 3)

    rows = [{"prompt": "Once upon a time", "answer": "", "task": "story"}]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return vf.SingleTurnEnv(
            dataset=Dataset.from_list(rows), rubric=vf.Rubric(funcs=[longer]), message_type="completion"
        )

"""Two environments in one."""

import verifiers as vf
from datasets import Dataset


def load_environment():
    def one(name, reply):
        def said(completion):
            return float(completion[-1]["content"] == reply)

        said.__name__ = f"said_{reply}"
        rows = Dataset.from_list([{"question": f"Say {reply}.", "answer": reply}])
        return vf.SingleTurnEnv(dataset=rows, rubric=vf.Rubric(funcs=[said]))

    return vf.EnvGroup(envs=[one("a", "yes"), one("b", "no")], env_names=["a", "b"])

"""Does what its model says, in its loop or in its reward: raise, exit, hang, die, print, change what others see."""

import os
import sys
import time

import verifiers as vf
from datasets import Dataset


def obey(order):
    if order == "raise":
        raise LookupError("as told")
    if order == "exit":
        sys.exit(3)
    if order == "hang":
        time.sleep(1000)
    if order == "die":
        os._exit(9)
    if order == "print":
        print('{"id": 1, "answer": null}' * 1000)
        sys.stdout.flush()
    if order == "meddle":
        os.chdir("/")
        os.environ["LUDUS_MEDDLED"] = "1"
    if order == "nothing":
        return None
    if order == "nan":
        return float("nan")
    return 1.0


class Obedient(vf.MultiTurnEnv):
    async def env_response(self, messages, state, **kwargs):
        where, _, order = messages[-1]["content"].partition(" ")
        if where == "loop":
            obey(order)
        state["final_env_response"] = [{"role": "user", "content": "done"}]
        return state["final_env_response"]


def load_environment(num_rows: int = 40):
    def obeyed(completion):
        where, _, order = completion[0]["content"].partition(" ")
        return obey(order) if where == "reward" else 1.0

    rows = [{"question": f"Task {i}", "answer": ""} for i in range(num_rows)]
    return Obedient(dataset=Dataset.from_list(rows), rubric=vf.Rubric(funcs=[obeyed]), max_turns=3)

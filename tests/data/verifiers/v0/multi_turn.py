"""A guessing game: state, its own stop condition, a last word."""

import verifiers as vf
from datasets import Dataset


class Guess(vf.MultiTurnEnv):
    async def setup_state(self, state):
        state["low"] = []
        return state

    @vf.stop
    async def found(self, state):
        return state.get("won", False)

    async def env_response(self, messages, state, **kwargs):
        said = int(messages[-1]["content"])
        wanted = int(state["answer"])
        if said == wanted:
            state["won"] = True
            state["final_env_response"] = [{"role": "user", "content": "Yes!"}]
            return state["final_env_response"]
        if said < wanted:
            state["low"].append(said)
        return [{"role": "user", "content": "higher" if said < wanted else "lower"}]


def load_environment(**kwargs):
    def won(state):
        return float(state.get("won", False))

    def guesses_below(state):
        return len(state["low"])

    rubric = vf.Rubric(funcs=[won, guesses_below], weights=[1.0, -0.1])
    rows = [{"question": "Guess my number.", "answer": str(n), "info": {"range": [0, 9]}} for n in (3, 7)]
    return Guess(dataset=Dataset.from_list(rows), rubric=rubric, max_turns=4, **kwargs)

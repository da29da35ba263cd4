"""What a rollout opens it closes, and what the environment opens too; every turn the model sees its last line only."""

from pathlib import Path

import verifiers as vf
from datasets import Dataset


class Sessions(vf.MultiTurnEnv):
    def __init__(self, place, **kwargs):
        super().__init__(**kwargs)
        self.place = Path(place)

    async def setup_state(self, state, **kwargs):
        state["file"] = self.place / state["trajectory_id"]
        state["file"].write_text("open")
        if state["answer"] == "broken":
            raise vf.SandboxError("no such file system")
        return state

    async def get_prompt_messages(self, state):
        if not state["trajectory"]:
            return state["prompt"]
        last = state["trajectory"][-1]["completion"]
        return [*state["prompt"][:1], *last, {"role": "user", "content": f"again, {len(state['trajectory'])}"}]

    async def env_response(self, messages, state, **kwargs):
        return []

    @vf.stop(priority=10)
    async def gave_up(self, state):
        return bool(state["trajectory"]) and state["trajectory"][-1]["completion"][-1]["content"] == "stop"

    @vf.cleanup
    async def shut(self, state):
        state["file"].unlink()

    @vf.teardown
    async def leave(self):
        (self.place / "left").write_text("")


def load_environment(place: str, answer: str = "x", seconds: float | None = None):
    def turns(state):
        return len(state["trajectory"])

    rows = Dataset.from_list([{"question": "Go on.", "answer": answer}])
    rubric = vf.Rubric(funcs=[turns])
    return Sessions(place, dataset=rows, rubric=rubric, max_turns=3, timeout_seconds=seconds)

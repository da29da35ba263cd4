"""Tools that fail: some errors are told to the model, others end the rollout; tools of a row beside those of all."""

import json

import verifiers as vf
from datasets import Dataset

ASK = {
    "name": "ask",
    "description": "Ask somebody.",
    "parameters": {"type": "object", "properties": {"who": {"type": "string"}}, "required": ["who"]},
}


class Fatal(Exception):
    pass


def divide(a: float, b: float = 2.0) -> float:
    """Divide.

    Args:
        a: what is divided.
        b: by what.
    """
    return a / b


def launch(where: str) -> str:
    """Launch."""
    raise Fatal(f"lost over {where}")


class Tools(vf.ToolEnv):
    async def call_tool(self, tool_name, tool_args, tool_call_id, **kwargs):
        if tool_name == "ask":
            return vf.ToolMessage(role="tool", content=f"{tool_args['who']} says 4", tool_call_id=tool_call_id)
        return await super().call_tool(tool_name, tool_args, tool_call_id, **kwargs)


def load_environment(turns: int = 3):
    def told(completion):
        return float(any("impossible: " in str(m.get("content")) for m in completion if m["role"] == "tool"))

    rows = [
        {"prompt": [{"role": "user", "content": "Divide."}], "answer": "", "info": json.dumps({"row": 0})},
        {"prompt": [{"role": "user", "content": "Ask."}], "answer": "", "info": json.dumps({"tool_defs": [ASK]})},
    ]
    return Tools(
        dataset=Dataset.from_list(rows), tools=[divide, launch], rubric=vf.Rubric(funcs=[told]), max_turns=turns,
        stop_errors=[Fatal], error_formatter=lambda error: f"impossible: {error}", system_prompt="Use tools.",
    )  # fmt: skip

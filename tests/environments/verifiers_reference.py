"""Runs in a Python with verifiers 0.3.1: plays one row as `vf-eval` does and prints what came of it."""

import asyncio
import json
import logging
import sys

import verifiers as vf
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion
from verifiers.legacy.clients.openai_chat_completions_client import OpenAIChatCompletionsClient


class InProcess(OpenAIChatCompletionsClient):
    """Says what it is told, one rollout after the other."""

    def __init__(self, replies):
        super().__init__(AsyncOpenAI(api_key="none"))
        self.replies, self.rollouts, self.said = replies, {}, {}

    async def get_native_response(self, prompt, model, sampling_args, tools=None, state=None, **kwargs):
        own = self.rollouts.setdefault(state["trajectory_id"], len(self.rollouts))
        turn = self.said[own] = self.said.get(own, -1) + 1
        reply = self.replies[own][min(turn, len(self.replies[own]) - 1)]
        message = {"role": "assistant", "content": reply}
        if not isinstance(reply, str):
            function = {"name": reply[0], "arguments": json.dumps(reply[1])}
            call = {"id": f"call-{reply[0]}", "type": "function", "function": function}
            message = {"role": "assistant", "content": "", "tool_calls": [call]}
        finish = "stop" if isinstance(reply, str) else "tool_calls"
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return ChatCompletion.model_validate(
            {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        )


async def main():
    asked = json.loads(sys.argv[1])
    sys.path.insert(0, asked["folder"])
    env = vf.load_environment(asked["module"], **asked["options"])
    data = env.get_eval_dataset() if asked["split"] == "test" else env.get_dataset()
    row, client = data[asked["row"]], InProcess(asked["replies"])
    if env.requires_group_rollouts:
        outputs = await env.run_group([row] * len(asked["replies"]), client, "m", {})
    else:
        outputs = [await env.run_rollout(row, client, "m", {}) for _ in asked["replies"]]
    results = [{name: output[name] for name in ("reward", "metrics", "stop_condition")} for output in outputs]
    print(json.dumps(results))


logging.disable(logging.CRITICAL)
asyncio.run(main())

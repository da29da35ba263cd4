"""verifiers 0.3.1's side: `SingleTurnEnv`, or the package `instant_v0`; results are saved as `vf-eval` does.

Settings: url of an instant server, or "" for a client that answers in process. Commands as in ludus_rollouts.py.
"""

import asyncio
import json
import logging
import os
import tempfile
from pathlib import Path

import instant
import instant_v0
import talk
import verifiers as vf
from datasets import Dataset
from openai.types.chat import ChatCompletion
from verifiers.legacy.clients.openai_chat_completions_client import OpenAIChatCompletionsClient

GROUP_SIZE = 8


class InProcess(OpenAIChatCompletionsClient):
    """Answers what the instant server would, without HTTP."""

    async def get_native_response(self, prompt, model, sampling_args, tools=None, **kwargs):
        body = instant.body_of({"model": model, "messages": prompt, "tools": tools})[1]
        return ChatCompletion.model_validate(json.loads(body))


def right(completion, answer, **kwargs):
    return float(completion[-1]["content"] == answer)


def environment(turns, rollouts):
    """The environment with as many rows as rollouts, in groups of equal ones."""
    rows = [
        {"question": f"Which number is hidden? Hint {i // GROUP_SIZE % 64}", "answer": instant.TEXT}
        for i in range(rollouts)
    ]
    if turns > 1:
        return instant_v0.load_environment(rollouts)
    return vf.SingleTurnEnv(dataset=Dataset.from_list(rows), rubric=vf.Rubric(funcs=[right], weights=[1.0]))


async def play(url, rollouts, turns, in_flight):
    env = environment(turns, rollouts)
    config = vf.ClientConfig(api_base_url=url or "http://none", api_key_var="OPENAI_API_KEY")
    with tempfile.TemporaryDirectory() as folder:
        found = await env.generate(
            env.get_dataset(),
            InProcess(config) if not url else config,
            "instant",
            max_concurrent=in_flight,
            results_path=Path(folder),
            save_results=True,
            on_progress=lambda *given: None,
        )
    outputs = found["outputs"]
    assert len(outputs) == rollouts
    for output in outputs:
        assert output["reward"] == 1.0 and output["metrics"]["num_turns"] == turns, output


def main():
    url = talk.settings()["url"]
    os.environ["OPENAI_API_KEY"] = "none"
    logging.disable(logging.WARNING)
    talk.answer(versions=talk.versions("verifiers"))
    while True:
        asyncio.run(play(url, **talk.command()))
        talk.answer()


if __name__ == "__main__":
    main()

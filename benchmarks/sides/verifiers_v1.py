"""verifiers 0.4.0's side of scheduling: `vf-eval` with its tool-less `null` harness in local processes.

Settings: url of an instant server. Commands as in ludus_rollouts.py; each starts `vf-eval` anew.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import talk


def play(url, rollouts, turns, in_flight):
    program = str(Path(sys.executable).parent / "vf-eval")
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "--env.agent.harness.id": "null", "--env.agent.runtime.type": "subprocess",
            "--env.taskset.tools": str(turns > 1).lower(), "--client.base-url": url,
            "--client.api-key-var": "OPENAI_API_KEY", "-m": "instant", "-n": rollouts, "-r": 1, "-c": in_flight,
            "-o": folder,
        }  # fmt: skip
        flags = [str(word) for option in options.items() for word in option]
        env = os.environ | {
            "OPENAI_API_KEY": "none",
            "PYTHONPATH": str(Path(__file__).parent),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        subprocess.run(
            [program, "instant-v1", *flags, "--no-push", "--no-rich"], check=True, stdout=sys.stderr, env=env
        )
        traces = [json.loads(line) for file in Path(folder).rglob("traces.jsonl") for line in file.open()]
    calls = [len(trace["calls"]) for episode in traces for trace in episode["traces"]]
    assert calls == [turns] * rollouts, calls


def main():
    url = talk.settings()["url"]
    talk.answer(versions=talk.versions("verifiers"))
    while True:
        play(url, **talk.command())
        talk.answer()


if __name__ == "__main__":
    main()

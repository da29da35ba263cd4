"""Other people's environments from the package index, unmodified: rollouts, and a step of training on each."""

import gzip
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training import train_once

from ludus.authoring.loading import load_environment
from peer_pythons import python_of

pytestmark = pytest.mark.slow

PLAIN = [
    ("rg:chain_sum", {}, "reasoning_gym"),
    ("rg:knights_knaves", {}, "reasoning_gym"),
    ("rg:mini_sudoku", {}, "reasoning_gym"),
    ("rg:word_sorting", {}, "reasoning_gym"),
    ("textarena:TicTacToe-v0", {"turns": 4}, "textarena"),
    ("textarena:KuhnPoker-v0", {"turns": 4}, "textarena"),
    ("textarena:FrozenLake-v0", {"turns": 3}, "textarena"),
    ("gymnasium:FrozenLake-v1", {"turns": 3}, "gymnasium"),
    ("gymnasium:Taxi-v4", {"turns": 3}, "gymnasium"),
    ("gymnasium:Blackjack-v1", {"turns": 3}, "gymnasium"),
]


@pytest.mark.parametrize(("spec", "options", "package"), PLAIN, ids=[spec for spec, *_ in PLAIN])
async def test_packages_of_tasks_and_games(spec, options, package, tiny):
    pytest.importorskip(package)
    rollouts = await train_once(load_environment(spec, options), tiny)
    assert all(rollout.environment.id == spec for rollout in rollouts)


# --- verifiers ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reasoning_core():
    """The folder of the integrations that reasoning-core's source archive holds."""
    python = Path(python_of("reasoning-core"))
    return python.parents[1] / "sources" / "reasoning_core-0.5.0"


@pytest.fixture(scope="module")
def pile(reasoning_core, tmp_path_factory):
    """A data set of the tasks that its own tests are run on, in place of the one on the network."""
    sample = reasoning_core / "tests" / "integrations" / "data" / "pile_sample.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(sample.read_bytes()).splitlines()]
    short = [row for row in rows if len(row["prompt"]) < 500]
    folder = tmp_path_factory.mktemp("pile")
    for split, some in (("train", short[::2]), ("test", short[1::2])):
        kept = [{name: row[name] for name in ("task", "prompt", "answer", "metadata")} for row in some]
        (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in kept))
    return str(folder)


async def test_a_published_environment_for_verifiers(reasoning_core, pile, tiny):
    options = {
        "python": python_of("reasoning-core"), "dataset_name": pile, "num_train_examples": 8, "num_eval_examples": 2,
        "folder": str(reasoning_core / "integrations" / "primeintellect" / "reasoning_core_env"),
    }  # fmt: skip
    env = load_environment("verifiers:primeintellect/reasoning-core-env@1.0.7", options)
    rollouts = await train_once(env, tiny)
    assert {reward.scorer for reward in rollouts[0].rewards} == {"score_answer_vf", "num_turns"}


GYMS = {"one_gym": "'gcd'", "many_gyms": "['lcm', {'name': 'gcd', 'weight': 2.0, 'config': {}}]"}
GYM = """
import verifiers as vf


def load_environment():
    return vf.ReasoningGymEnv({}, num_train_examples=6, num_eval_examples=2)
"""


@pytest.mark.parametrize("module", GYMS)
async def test_environments_that_verifiers_brings(module, tiny, tmp_path):
    (tmp_path / f"{module}.py").write_text(GYM.format(GYMS[module]))
    env = load_environment(f"verifiers:{module}", {"python": python_of("reasoning-core"), "folder": str(tmp_path)})
    rollouts = await train_once(env, tiny)
    assert {reward.scorer for reward in rollouts[0].rewards} >= {"check_answer_reward_func", "format_reward_func"}


# --- servers ------------------------------------------------------------------------------------------------------


def free_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


@pytest.fixture
def serve(tmp_path):
    """Starts an ASGI application in somebody else's Python, and gives its address."""
    started = []

    def start(python, app, **env):
        port = free_port()
        command = [python, "-m", "uvicorn", app, "--port", str(port), "--log-level", "warning"]
        with (tmp_path / "server.log").open("wb") as log:
            started.append(subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, env={**os.environ, **env}))
        for _ in range(600):
            if started[-1].poll() is not None:
                pytest.fail((tmp_path / "server.log").read_text()[-3000:])
            with socket.socket() as line:
                if line.connect_ex(("127.0.0.1", port)) == 0:
                    return f"http://127.0.0.1:{port}"
            time.sleep(0.1)
        pytest.fail("the server did not start within a minute")

    yield start
    for process in started:
        process.kill()
        process.wait()


async def test_the_server_that_openenv_makes_for_a_beginner(serve, tiny, tmp_path):
    pytest.importorskip("websockets")
    python = python_of("servers")
    made = subprocess.run(
        [python, "-m", "openenv.cli", "init", "parrot", "--output-dir", str(tmp_path)],
        cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr[-2000:]
    url = serve(python, "parrot.server.app:app", PYTHONPATH=str(tmp_path), ENABLE_WEB_INTERFACE="false")
    env = load_environment(f"openenv:{url}", {"max_turns": 2, "sessions": 1})
    rollouts = await train_once(env, tiny)
    assert all(0 < rollout.reward <= 2 for rollout in rollouts), "it rewards the length of what is said"


async def test_a_published_server_of_openenv(serve, reasoning_core, pile, tiny):
    pytest.importorskip("websockets")
    packages = reasoning_core / "integrations" / "openenv"
    url = serve(
        python_of("reasoning-core"), "reasoning_core_env.server.app:app", PYTHONPATH=str(packages), RC_HF_DATASET=pile,
        RC_DATASET_SIZE="8", ENABLE_WEB_INTERFACE="false", HF_HUB_OFFLINE="1",
    )  # fmt: skip
    env = load_environment(f"openenv:{url}", {"show": "prompt"})
    rollouts = await train_once(env, tiny)
    assert "finished" in {rollout.stop for rollout in rollouts}


async def test_a_server_of_the_open_reward_standard(serve, tiny):
    url = serve(python_of("servers"), "ors_counting:app", PYTHONPATH=str(Path(__file__).parent))
    rollouts = await train_once(load_environment(f"ors:{url}", {}), tiny)
    assert all(rollout.tools for rollout in rollouts)


CLOCK = {"prompt": "When it is noon in Oslo, what time is it in Tokyo?", "answer": "20:00", "split": "train"}


@pytest.mark.parametrize("module", ["mcp_server_time", "mcp_server_git"])
async def test_servers_of_the_model_context_protocol(module, tiny, tmp_path):
    pytest.importorskip("mcp_types")
    (tmp_path / "tasks.jsonl").write_text(f"{json.dumps(CLOCK)}\n")
    options = {"tasks": str(tmp_path / "tasks.jsonl"), "turns": 2}
    env = load_environment(f"mcp:{python_of('mcp-servers')} -m {module}", options)
    rollouts = await train_once(env, tiny)
    assert all(rollout.tools for rollout in rollouts)


# --- the command line ---------------------------------------------------------------------------------------------

RECIPE = """
name = "mixed"
model = "{model}"
threads = 1

[[envs]]
env = "rg:chain_sum"
options = {{}}

[[envs]]
env = "textarena:KuhnPoker-v0"
options = {{ turns = 4 }}
weight = 2.0

[rl]
steps = 1
groups = 3
group_size = 4
max_tokens = 8

[eval]
num_tasks = 2
greedy = false
"""


def test_several_of_them_in_one_recipe(tiny, tmp_path):
    pytest.importorskip("textarena")
    (tmp_path / "mixed.toml").write_text(RECIPE.format(model=tiny))
    command = [sys.executable, "-m", "ludus", "train", "mixed.toml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in (tmp_path / "runs" / "mixed" / "metrics.jsonl").read_text().splitlines()]
    (row,) = [row for row in rows if row["phase"] == "rl"]
    assert {"env/rg:chain_sum/reward/mean", "env/textarena:KuhnPoker-v0/reward/mean"} <= row.keys()
    assert row["excluded"] == 0.0

"""Everything that comes with the package is harder to hack than to do: whatever the registry has, and each adapter once."""

import json
import shlex
import sys

import pytest

from ludus import registry
from ludus.authoring.loading import load_environment
from ludus.sandbox import capabilities
from ludus.testing import audit_environment

QUICK = {"nim"}
SANDBOXED = {"python-tasks", "harbor"}
NEEDS = {"reason-suite": "reasoning_gym", "rg": "reasoning_gym", "gymnasium": "gymnasium", "textarena": "textarena"}
AROUND = {
    "attempts": ({}, {"choose": "judge"}, {"choose": "best"}),
    "budget": ({"tokens": 60},),
    "delegate": ({},),
    "plan": ({}, {"judged": True}),
    "prompt": ({"text": "Be quick."},),
    "reword": ({},),
}
"""Wrappers, with options each."""
ADAPTED = {
    "gymnasium": "gymnasium:Blackjack-v1", "harbor": "harbor:tests/data/harbor/count-words", "rg": "rg:chain_sum",
    "textarena": "textarena:TicTacToe-v0",
}  # fmt: skip
SERVED = {"mcp", "openenv", "ors", "verifiers"}
"""Those whose environments are elsewhere: there is none that comes with the package; see below for `mcp`."""

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def own(group):
    """Names of a group that this package registers."""
    return sorted(name for name, entry in registry.entries(group).items() if entry.value.startswith("ludus."))


def marked(name, *values):
    """A parameter, slow unless it is quick, skipped where something is missing."""
    skip = pytest.mark.skipif(
        name in SANDBOXED and capabilities().tier is None, reason="this machine can't contain code"
    )
    return pytest.param(
        *values, marks=[skip, *([] if name in QUICK else [pytest.mark.slow])], id="-".join(map(str, values))
    )


def passes(name, options=None, num_tasks=4, **models):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    audit = audit_environment(load_environment(name, options or {}), num_tasks=num_tasks, tried=12, **models)
    assert audit.harder_to_hack, str(audit)
    return audit


@pytest.mark.parametrize("name", [marked(name, name) for name in own(registry.ENVIRONMENTS)])
def test_environments(name):
    audit = passes(name)
    assert audit.baselines[0].rule == "honest", "an expert shows what honest play earns"


@pytest.mark.slow
@pytest.mark.parametrize("inside", ["guess", "wiki-search"])
@pytest.mark.parametrize(("prefix", "options"), [(prefix, one) for prefix, every in AROUND.items() for one in every])
def test_wrappers(prefix, options, inside):
    passes(f"{prefix}:{inside}", options)


@pytest.mark.parametrize("prefix", [marked(prefix, prefix) for prefix in ADAPTED])
def test_adapters(prefix):
    if prefix in NEEDS:
        pytest.importorskip(NEEDS[prefix])
    passes(ADAPTED[prefix])


def test_every_adapter_is_tried():
    assert set(own(registry.ADAPTERS)) <= AROUND.keys() | ADAPTED.keys() | SERVED | {"labels"}


@pytest.mark.slow
def test_labels(tmp_path):
    """Always the same verdict is chance, in whatever words."""
    replies = (("Please send me {}.", "good"), ("{}, and quickly!", "bad"))
    rows = [
        {"prompt": f"Ask for key {number}.", "reply": reply.format(f"key {number}"), "label": label}
        for number in range(30)
        for reply, label in replies
    ]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    audit = passes(f"labels:{tmp_path / 'labels.jsonl'}", {"criterion": "The request is polite."}, num_tasks=12)
    assert audit.honest == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("score", ["exact", "contains"])
def test_servers_of_tools(tmp_path, score):
    """What `mcp:` adds to others' tools is the score: whether the answer is contained is for lists to find out."""
    server = tmp_path / "server.py"
    server.write_text(
        "from mcp.server.mcpserver import MCPServer\n"
        "server = MCPServer('sums')\n"
        "@server.tool()\n"
        "def add(a: int, b: int) -> int:\n    '''Add.'''\n    return a + b\n"
        "server.run()\n"
    )
    rows = [{"prompt": f"{number} + {7 * number}?", "answer": str(8 * number)} for number in range(100, 160)]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"tasks": str(tmp_path / "tasks.jsonl"), "score": score}
    env = load_environment(f"mcp:{shlex.join([sys.executable, str(server)])}", options)
    audit = audit_environment(env, num_tasks=4, tried=0)
    assert audit.harder_to_hack is (score == "exact"), str(audit)

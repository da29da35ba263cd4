"""docs/metrics.md names every metric that a run writes, and no other."""

from __future__ import annotations

import asyncio
import re

import pytest
from blocks import ROOT

pytest.importorskip("torch")

from ludus import config
from ludus.programs.recipe import Recipe
from ludus.programs.train import train
from ludus.store import RunFolder

ENVIRONMENT = """
import ludus

class Lengths(ludus.Environment):
    splits = ("train", "test", "canary")
    sampling = {"max_tokens": 6}

    def tasks(self, split):
        return [ludus.Task(prompt=f"{split} {number}") for number in range(8)]

    @ludus.reward
    def even(self, rollout):
        return float(len(rollout.reply) % 2 == 0)

    @ludus.reward(weight=0.0)
    def never(self, rollout):
        return 0.0

    @ludus.metric(independent=True)
    def long(self, rollout):
        return float(len(rollout.reply) > 2)

    def demonstrate(self, task):
        return "ok"
"""
DOCUMENTED_BY_SCORER = re.compile(r"^((?:eval/)?metric)/.+")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Of a run that learns a little, and of one that has nothing to learn from."""
    folder = tmp_path_factory.mktemp("metrics")
    (folder / "lengths.py").write_text(ENVIRONMENT)
    (folder / "flat.py").write_text(ENVIRONMENT.replace("len(rollout.reply) % 2 == 0", "False"))
    found = []
    for name, sft in (("lengths", {"steps": 1, "batch_size": 2, "num_demonstrations": 2}), ("flat", None)):
        values = {
            "name": name, "runs": str(folder), "env": str(folder / f"{name}.py"), "model": "preset:tiny", "sft": sft,
            "rl": {"steps": 1, "groups": 2, "group_size": 4, "refill": 4 if sft else 0}, "eval": {"num_tasks": 2},
        }  # fmt: skip
        recipe = config.parse(Recipe, {key: value for key, value in values.items() if value is not None})
        asyncio.run(train(recipe))
        found += RunFolder.open(folder / name).read_metrics()
    return found


@pytest.fixture(scope="module")
def documented():
    return set(
        re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8"), re.MULTILINE)
    )


def by_scorer(name):
    return DOCUMENTED_BY_SCORER.sub(r"\1/NAME", name)


def test_every_metric_is_documented_and_none_is_made_up(rows, documented):
    written = {by_scorer(name) for row in rows for name in row} - {"phase", "step"}
    assert {row["phase"] for row in rows} == {"sft", "rl", "eval"}
    assert written - documented == set(), "written to metrics.jsonl, but not in docs/metrics.md"
    assert documented - written == set(), "in docs/metrics.md, but no run writes it"


def test_every_metric_of_every_loss_is_documented(documented):
    import torch

    from ludus.engine.torch.losses import LOSSES

    names = ("logprobs", "advantages", "weights", "ref_logprobs")
    for loss in LOSSES.values():
        arrays = {name: torch.ones(3) for name in names}
        _, metrics = loss.function(torch.zeros(3, requires_grad=True), arrays, loss.defaults)
        assert metrics.keys() <= documented

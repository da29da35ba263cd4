"""How sandboxes contained what ran in a rollout is part of its record, whoever made them."""

import msgspec
import pytest
from playground import Fails, Small, attempt, run

import ludus
from ludus.display.sandboxes import tiers_text
from ludus.environments.sandboxed import Sandboxed
from ludus.errors import SandboxUnavailable
from ludus.programs.report.page import cards
from ludus.programs.tables import evaluation_table
from ludus.programs.together import together
from ludus.rollouts.recordable import make_recordable
from ludus.sandbox import LocalSandbox, SandboxSpec, capabilities
from ludus.sandbox import run as run_code
from ludus.store import RolloutIndex, RunFolder, record
from ludus.types import RECORD_VERSION

pytestmark = pytest.mark.skipif(capabilities().tier is None, reason="this machine can't contain code")
BEST = capabilities().tier
NONE = SandboxSpec(tier="none")


class Works(Sandboxed, Small):
    """Has a sandbox."""


class Scores(Small):
    """A scorer makes one in its own way, in a thread."""

    @ludus.reward
    def ran(self):
        return float(run_code("print(1)", tier="none").stdout == "1\n")


class Compares(Small):
    """Rollouts of a group are compared in one."""

    @ludus.reward
    async def compared(self, group):
        async with await LocalSandbox.create(NONE) as sandbox:
            return [float(not (await sandbox.exec("true")).exit_code)] * len(group)


class Own(Small):
    """Brings a computer of its own."""

    async def setup(self, ctx):
        ctx.sandbox = type("Cloud", (), {"tier": "cloud"})()


class Two(Works):
    """Makes a second one that contains less."""

    @ludus.reward
    async def ran(self, task):
        self.sandbox = "none"
        sandbox = await self.new_sandbox(task)
        self.sandbox = "auto"
        await sandbox.kill()
        return 1.0


@pytest.mark.parametrize(
    ("env", "tiers"),
    [(Small, []), (Works, [BEST]), (Scores, ["none"]), (Compares, ["none"]), (Own, ["cloud"]), (Two, [BEST, "none"])],
)
async def test_a_record_has_the_tiers_of_its_sandboxes(env, tiers):
    assert (await attempt(env())).sandboxes == sorted(tiers)


async def test_a_rollout_that_fails_has_them_too_and_others_do_not():
    failed = await attempt(Works(), Fails())
    assert failed.excluded and failed.sandboxes == [BEST]
    works, small = await attempt(Works()), await attempt(Small())
    assert (works.sandboxes, small.sandboxes) == ([BEST], [])


async def test_asking_for_no_containment_is_recorded():
    (group,) = await run(Works(sandbox="none"), size=3)
    assert [rollout.sandboxes for rollout in group.rollouts] == [["none"]] * 3


@pytest.mark.slow
async def test_rollouts_of_worker_processes_have_them_too():
    env = ludus.load_environment("ludus.environments.python_tasks:PythonTasks")
    (group,) = await run(env, size=2, workers=1)
    assert [rollout.sandboxes for rollout in group.rollouts] == [[BEST]] * 2


async def test_a_tier_that_this_machine_can_not_do_is_said_before_anything_runs():
    try:
        await (await LocalSandbox.create(SandboxSpec(tier="landlock"))).kill()
    except SandboxUnavailable as why:
        with pytest.raises(SandboxUnavailable) as caught:
            await run(Works(sandbox="landlock"), tasks=3)
        assert str(caught.value) == str(why) and "\n" not in str(why)
    else:
        assert (await attempt(Works(sandbox="landlock"))).sandboxes == ["landlock"]


async def test_records_from_before_are_read():
    rollout = await attempt(Works())
    assert record.decode(record.encode(rollout), verify=True).sandboxes == [BEST]
    rollout.sandboxes = []
    line = record.encode(rollout)
    assert b'"sandboxes"' not in line and record.decode(line, verify=True).sandboxes == []
    assert rollout.schema == RECORD_VERSION == 1


async def test_a_tier_that_is_no_text_does_not_spoil_the_record():
    rollout = await attempt(Small())
    rollout.sandboxes = [object()]
    make_recordable(rollout, Small())
    assert msgspec.json.encode(rollout)


async def test_an_evaluation_shows_them(tmp_path):
    contained = await ludus.programs.evaluate.evaluate_async(Works(), _says(), num_tasks=2, out=tmp_path / "run")
    uncontained = await ludus.programs.evaluate.evaluate_async(Works(sandbox="none"), _says(), num_tasks=1)
    without = await ludus.programs.evaluate.evaluate_async(Small(), _says(), num_tasks=1)
    assert dict(zip(*evaluation_table([contained]), strict=True))["sandboxes"] == tiers_text([BEST])
    assert dict(zip(*evaluation_table([uncontained]), strict=True))["sandboxes"] == "none (contained nothing)"
    assert "sandboxes" not in evaluation_table([without])[0]
    assert together({"a": contained, "b": uncontained}).to_dict()["sandboxes"] == sorted([BEST, "none"])
    with RolloutIndex(tmp_path / "run") as index:
        assert [summary.sandboxes for summary in index.purposes()] == [[BEST]]
        assert {row.sandboxes for row in index.query()} == {BEST}
    result = RunFolder.open(tmp_path / "run").read_result()
    assert result["sandboxes"] == [BEST] and ("sandboxes", tiers_text([BEST])) in cards([], result)


def _says():
    from playground import Says

    return Says()

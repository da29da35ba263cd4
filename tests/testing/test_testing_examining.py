"""Whatever an author wrote, an examination comes to an end, and says why."""

import asyncio

import pytest

import ludus
from ludus.authoring.loading import load_environment
from ludus.errors import ConfigError, UsageError
from ludus.testing import check_environment
from ludus.testing.audit import audit_environment
from ludus.testing.examiner import Order
from ludus.testing.examining import Examining
from ludus.testing.hanging import NeverReturns, hangs, place_in, raise_if_stuck, silence
from ludus.types import Call, EnvironmentRef, Failure, Rollout, Seeds, Task

SUMS = '''
import os, re, time
import ludus


class Sums(ludus.Environment):
    """Add two numbers."""

    def tasks(self, split):
        for number in range(12 if split == "train" else 3):
            yield ludus.Task(prompt=f"{split} {number}: {number} + 1000", answer=str(number + 1000))

    @ludus.reward
    def correct(self, task, rollout):
        CODE
        return float(rollout.reply.strip() == task.answer)

    def demonstrate(self, task):
        return task.answer
'''


def written(tmp_path, code="pass", name="sums.py"):
    """The name of an environment whose scorer does that first."""
    (tmp_path / name).write_text(SUMS.replace("CODE", code))
    return str(tmp_path / name)


def examined(spec, silent_s=60.0, **order):
    """The audit of an environment by name, and what its checks found."""
    findings = []
    order = Order(EnvironmentRef(spec), 2, tried=0, **order)
    return asyncio.run(Examining(order, checked=findings.extend, silent_s=silent_s).run()), findings


@pytest.mark.slow
@pytest.mark.parametrize("code", ["re.fullmatch(r'(x+x+)+y', 'x' * 40)", "9 ** 9 ** 9"])
def test_code_that_lets_nothing_else_run_is_a_verdict(tmp_path, code):
    audit, findings = examined(written(tmp_path, code), 8.0, checks=True, audit=True)
    assert not audit.harder_to_hack
    assert "never comes back from correct (sums.py, line 15)" in audit.because
    assert [finding.name for finding in findings if finding.ok is False] == ["comes back"]


@pytest.mark.slow
def test_code_that_ends_its_process_is_a_verdict(tmp_path):
    audit, findings = examined(written(tmp_path, "'dot' in rollout.reply or os._exit(3)"), checks=True, audit=True)
    assert "exit status 3" in audit.because
    assert "exit status 3" in findings[-1].detail


@pytest.mark.slow
def test_it_finds_in_another_process_what_it_finds_here(tmp_path):
    spec = written(tmp_path)
    audit, findings = examined(spec, checks=True, audit=True)
    assert audit.harder_to_hack and all(finding.ok is not False for finding in findings)
    env = load_environment(spec)
    assert audit_environment(env, num_tasks=2, tried=0).because == audit.because
    env.ref = None  # which no other process can build
    assert audit_environment(env, num_tasks=2, tried=0).because == audit.because


@pytest.mark.slow
def test_an_order_that_cant_be_carried_out_is_refused(tmp_path):
    with pytest.raises(UsageError, match="nowhere"):
        examined("nowhere", audit=True)


# --- hanging ------------------------------------------------------------------------------------------------------


def rollout(seconds, *, boundary="timeout", blame="environment", called_at=0.0):
    return Rollout(
        id="r", group="g", environment=EnvironmentRef("e"), task=Task(prompt="p"), seeds=Seeds(0, 0, 0, 0),
        calls=[Call(messages=[], reply={"role": "assistant", "content": ""}, began_s=called_at)],
        failure=Failure(boundary, blame, "the rollout took more than 60.0 s"), seconds=seconds,
    )  # fmt: skip


def test_only_what_does_nothing_for_long_hangs():
    assert hangs(rollout(60.0))
    assert not hangs(rollout(60.0, called_at=55.0))  # it has much to do
    assert not hangs(rollout(60.0, blame="infrastructure"))  # a model is slow
    assert not hangs(rollout(60.0, boundary="sandbox"))


def test_a_strategy_is_stuck_where_most_of_its_rollouts_hang():
    raise_if_stuck("it", [rollout(60.0), rollout(60.0, called_at=55.0)])
    with pytest.raises(NeverReturns, match="it: 2 of 3 rollouts never come back"):
        raise_if_stuck("it", [rollout(60.0), rollout(60.0), rollout(60.0, called_at=55.0)])


def test_where_it_hangs_is_found_in_a_dump():
    library = f'  File "{ludus.__file__}", line 1 in call\n  File "<frozen runpy>", line 2 in run\n'
    mine = '  File "/home/me/env.py", line 7 in correct\n'
    assert place_in(f"Thread 1 (most recent call first):\n{library}\nThread 2:\n{mine}") == "correct (env.py, line 7)"
    assert place_in(library) == ""
    assert silence(60, library).startswith("never comes back: for 60 s")


# --- raising ------------------------------------------------------------------------------------------------------


class Loose(ludus.Environment):
    """Its expert and its end raise."""

    def tasks(self, split):
        return [ludus.Task(prompt=f"{split} {number}", answer="1") for number in range(3)]

    async def close(self):
        raise OSError("it is open already")

    @ludus.reward
    def right(self, task, rollout):
        return float(rollout.reply == task.answer)

    def demonstrate(self, task):
        raise KeyError("answer")


def test_an_expert_and_an_end_that_raise_are_findings():
    failed = {finding.name: finding.detail for finding in check_environment(Loose(), num_tasks=2) if not finding.ok}
    assert "KeyError" in failed["demonstrations"]
    assert "it is open already" in failed["close"]
    audit = audit_environment(Loose(), num_tasks=2, tried=0)
    assert "KeyError" in audit.because
    assert any("can't be closed" in note for note in audit.notes)


def test_a_scorer_may_not_be_named_as_what_environments_have():
    with pytest.raises(ConfigError, match=r"Odd.close is marked .* give it another name"):

        class Odd(ludus.Environment):
            @ludus.reward
            def close(self, rollout):
                return 1.0


def test_a_tool_may_have_a_parameter_called_name():
    call = ludus.calls_tool("field", name="income")["tool_calls"][0]["function"]
    assert call == {"name": "field", "arguments": '{"name": "income"}'}

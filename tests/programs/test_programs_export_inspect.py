"""A run as logs of Inspect, read back with Inspect itself."""

from __future__ import annotations

import json

import pytest

from ludus.errors import RunFolderError, UnknownName, UsageError
from ludus.store import RunFolder
from ludus.types import Call, EnvironmentRef, Failure, Reward, Rollout, Sampling, Seeds, Task, Usage, user

pytest.importorskip("inspect_ai")

from inspect_ai.log import list_eval_logs, read_eval_log

from ludus.programs.export.inspect import export_inspect

TOOL = {"type": "function", "function": {"name": "look", "description": "Look.", "parameters": {
    "type": "object", "properties": {"where": {"type": "string"}}, "required": ["where"]}}}  # fmt: skip


def asks(arguments, content="", **more):
    function = {"name": "look", "arguments": arguments}
    return {"role": "assistant", "content": content, "tool_calls": [{"id": "c1", "type": "function", "function": function}],
            **more}  # fmt: skip


def call(messages, reply, **more):
    usage, sampling = Usage(10, 5, 0.25), Sampling(temperature=0.7, max_tokens=9)
    return Call(messages=messages, reply=reply, usage=usage, sampling=sampling, seconds=0.5, **more)


def rollout(name, *, task="t1", sample=0, attempt=0, purpose="eval", reward=1.0, calls=None, **more):
    text = calls is None
    return Rollout(
        id=name, group=f"{purpose}/{task}/0", environment=EnvironmentRef("shop", {"size": 3}, "2", "ab"),
        task=Task(prompt="Where is it?", answer={"room": 4}, info={"hint": "up"}, id=task), split="test",
        seeds=Seeds(7, 0, sample, attempt), purpose=purpose, model="small", stop="done", started=1_700_000_000.0,
        seconds=1.5, tools=[TOOL],
        calls=[call([user("Where is it?")], {"role": "assistant", "content": "here"})] if text else calls,
        rewards=[Reward("right", reward, 2.0), Reward("polite", 0.5, 0.0, turn=0)], versions={"python": "3.11"}, **more,
    )  # fmt: skip


@pytest.fixture
def run(tmp_path):
    with RunFolder.create(tmp_path / "run") as folder:
        yield folder


def exported(run, *purposes):
    paths = export_inspect(run.path, run.path / "inspect", purposes)
    return [read_eval_log(str(path), resolve_attachments=True) for path in paths]


def test_a_rollout_with_tools_is_read_back(run):
    steps = [
        call([user("Where is it?")], asks('{"where": "up"}', "Let me look.", reasoning_content="hm"),
             finish_reason="tool_calls"),
        call([{"role": "tool", "tool_call_id": "c1", "name": "look", "content": "a door"}],
             {"role": "assistant", "content": "the door"}, parent=0),
    ]  # fmt: skip
    run.rollouts.append(rollout("a", calls=steps))
    run.write_result({"mean": 2.0, "stopped": ""})
    (log,) = exported(run)
    assert (log.status, log.eval.model, log.eval.task_args) == ("success", "small", {"size": 3})
    assert log.eval.task == "shop eval" and log.eval.dataset.name == "test" and log.eval.config.epochs == 1
    (sample,) = log.samples
    assert (sample.id, sample.epoch, sample.uuid, sample.input) == ("t1", 1, "a", "Where is it?")
    assert json.loads(sample.target) == {"room": 4} and sample.metadata["info"] == {"hint": "up"}
    assert [message.role for message in sample.messages] == ["user", "assistant", "tool", "assistant"]
    asked, answered = sample.messages[1], sample.messages[2]
    assert (asked.tool_calls[0].function, asked.tool_calls[0].arguments) == ("look", {"where": "up"})
    assert asked.content[0].reasoning == "hm" and asked.text == "Let me look."
    assert (answered.tool_call_id, answered.function, answered.text) == ("c1", "look", "a door")
    assert {name: score.value for name, score in sample.scores.items()} == {"reward": 2.0, "right": 1.0, "polite": 0.5}
    usage = sample.model_usage["small"]
    assert (usage.input_tokens, usage.output_tokens, usage.total_cost) == (20, 10, 0.5)
    assert sample.output.completion == "the door" and sample.total_time == 1.5
    first, second = sample.events
    assert (first.role, len(first.input), len(second.input), first.config.temperature) == ("policy", 1, 3, 0.7)
    assert first.tools[0].name == "look" and first.output.stop_reason == "tool_calls"
    assert {metric.name: metric.value for metric in log.results.scores[0].metrics.values()} == {"mean": 2.0}


def test_samples_are_epochs_and_retries_are_kept(run):
    failure = Failure("tool", "infrastructure", "OSError: gone", "trace")
    run.rollouts.append(rollout("a0", failure=failure))
    run.rollouts.append(rollout("a1", attempt=1))
    run.rollouts.append(rollout("b", sample=1, reward=0.0))
    run.rollouts.append(rollout("c", task="t2", sample=1, failure=failure))
    (log,) = exported(run)
    assert [(s.id, s.epoch, s.uuid) for s in log.samples] == [("t1", 1, "a1"), ("t2", 1, "c"), ("t1", 2, "b")]
    assert log.samples[0].error_retries[0].message == "OSError: gone (in tool, blame infrastructure)"
    excluded = log.samples[1]
    assert (
        excluded.scores is None
        and excluded.error.message.startswith("OSError: gone")
        and excluded.error.traceback == "trace"
    )
    reward = next(score for score in log.results.scores if score.name == "reward")
    assert (reward.scored_samples, reward.unscored_samples, reward.metrics["mean"].value) == (2, 1, 1.0)
    assert (log.results.total_samples, log.results.completed_samples) == (3, 2)


def test_a_failure_of_the_policy_is_scored(run):
    run.rollouts.append(rollout("a", reward=0.0, failure=Failure("tool", "policy", "it crashed its code")))
    (sample,) = exported(run)[0].samples
    assert sample.error is None and sample.scores["reward"].explanation == "it crashed its code"
    assert sample.metadata["failure"]["blame"] == "policy"


def test_roles_and_forks_are_events(run):
    calls = [
        call([user("solve")], {"role": "assistant", "content": "x"}),
        call([user("judge x")], {"role": "assistant", "content": "bad"}, role="judge"),
        call([user("solve again")], {"role": "assistant", "content": "y"}),
    ]
    run.rollouts.append(rollout("a", calls=calls))
    (sample,) = exported(run)[0].samples
    assert [(event.role, event.output.completion) for event in sample.events] == [
        ("policy", "x"), ("judge", "bad"), ("policy", "y"),
    ]  # fmt: skip
    assert {role: usage.total_tokens for role, usage in sample.role_usage.items()} == {"policy": 30, "judge": 15}
    assert [message.text for message in sample.messages] == ["solve again", "y"]


@pytest.mark.parametrize("finished", [True, False])
def test_a_partial_run_says_so(run, finished):
    run.rollouts.append(rollout("a", purpose="eval:start"))
    run.rollouts.append(rollout("b", purpose="train"))
    if finished:
        run.append_metrics({"phase": "eval", "step": 0, "eval/name": "start"})
    (log,) = exported(run)
    assert log.status == ("success" if finished else "cancelled")
    assert log.eval.metadata["purpose"] == "eval:start", "evaluations come first"
    assert exported(run, "train")[0].status == "cancelled"


def test_an_evaluation_that_was_stopped_is_cancelled(run):
    run.rollouts.append(rollout("a"))
    run.write_result({"mean": 1.0, "stopped": "interrupted"})
    assert exported(run)[0].status == "cancelled"


def test_odd_messages_and_names(run):
    parts = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
             {"type": "input_audio", "input_audio": {"data": "x"}}, "plain"]  # fmt: skip
    calls = [
        call([{"role": "developer", "content": "be kind"}, {"role": "user", "content": parts}], asks("{not json")),
        call([{"role": "tool", "content": "?"}, {"role": "critic", "content": None}], asks("[1]"), parent=0),
    ]
    name = "../a b/ü:\n*"
    run.rollouts.append(rollout("a", task=name, calls=calls, reward=float(10**6)))
    (sample,) = exported(run)[0].samples
    assert sample.id == name
    assert [message.role for message in sample.messages] == ["system", "user", "assistant", "tool", "user", "assistant"]
    assert [part.type for part in sample.messages[1].content] == ["text", "image", "text", "text"]
    broken = sample.messages[2].tool_calls[0]
    assert broken.arguments == {} and broken.parse_error == "not a JSON object: {not json"
    assert sample.messages[4].metadata == {"role": "critic"}


def test_a_rollout_that_never_spoke(run):
    failure = Failure("environment", "environment", "KeyError: 1")
    run.rollouts.append(rollout("a", calls=[], failure=failure))
    (sample,) = exported(run)[0].samples
    assert sample.messages == [] and sample.events == [] and sample.output.empty


def test_huge_text_is_written_once(run):
    text = "word " * 200_000
    calls = [call([user(text)], {"role": "assistant", "content": "0"})]
    calls += [call([user(f"{i}?")], {"role": "assistant", "content": str(i)}, parent=i - 1) for i in range(1, 30)]
    run.rollouts.append(rollout("a", calls=calls))
    (path,) = export_inspect(run.path, run.path / "inspect")
    assert path.stat().st_size < 1_000_000, "thirty events refer to it"
    (sample,) = read_eval_log(str(path), resolve_attachments=True).samples
    assert sample.messages[0].text == text and sample.events[-1].input[0].text == text


def test_an_export_replaces_itself(run, tmp_path):
    run.rollouts.append(rollout("a"))
    out = tmp_path / "logs"
    first = export_inspect(run.path, out)
    run.rollouts.append(rollout("b", task="t2"))
    assert export_inspect(run.path, out) == first and [path.name for path in out.iterdir()] == [first[0].name]
    (info,) = list_eval_logs(str(out))
    assert (info.task, info.task_id) == ("shop-eval", read_eval_log(str(first[0])).eval.task_id)


def test_the_viewer_makes_a_site_of_it(run, tmp_path):
    from inspect_ai.log import bundle_log_dir

    run.rollouts.append(rollout("a"))
    export_inspect(run.path, tmp_path / "logs")
    bundle_log_dir(log_dir=str(tmp_path / "logs"), output_dir=str(tmp_path / "site"))
    assert (tmp_path / "site" / "index.html").is_file()
    assert len(list((tmp_path / "site" / "logs").glob("*.eval"))) == 1


def test_what_can_not_be_exported(run, tmp_path):
    with pytest.raises(UsageError, match="no rollouts to export"):
        export_inspect(run.path, tmp_path / "out")
    run.rollouts.append(rollout("a"))
    with pytest.raises(UnknownName, match="did you mean 'eval'"):
        export_inspect(run.path, tmp_path / "out", ["evla"])
    with pytest.raises(RunFolderError, match="does not exist"):
        export_inspect(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="write into"):
        export_inspect(run.path, tmp_path / "file")
    assert not (tmp_path / "out").exists()

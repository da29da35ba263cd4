"""Environments of verifiers 0.4: a `Taskset`, its `Task`s, and an `Env` that one agent plays in.

Model calls go through verifiers' own interception server, which its hooks and records need, and on to the address of
the rollout. An agent that is a chat runs in this process (see `chat`).
"""

# mypy: disable-error-code="import-not-found,misc"
# verifiers is installed where this runs, not where it is checked.

from __future__ import annotations

import itertools
import json
from contextlib import AsyncExitStack
from types import ModuleType
from typing import Any

from . import finding
from .chat import chat_in_process
from .once import fields_once
from .speaking import Speaker
from .toolbox import share_here
from .trouble import Trouble
from .v0 import Scores

NOWHERE = "http://model.invalid/v1"
"""Stands for the address of each rollout's own model."""
CHAT = "/chat/completions"
SPEAKERS: dict[str, Speaker] = {}
"""The model of its rollout, by the id of a trace."""
BOUNDARIES = {
    "ProviderError": ("environment", "infrastructure"), "ToolsetError": ("tool", "environment"),
    "SandboxError": ("sandbox", "infrastructure"), "InterceptionError": ("environment", "infrastructure"),
    "TunnelError": ("environment", "infrastructure"),
}  # fmt: skip
"""Boundary and blame by the type of an error; others are the environment's."""


class Side:
    """One environment.

    Args:
        module: exports a Taskset.
        options: fields of the environment's configuration (`agent`, `timeout`, ...); all others are the taskset's.
    """

    def __init__(self, module: ModuleType, options: dict[str, Any]) -> None:
        self._module = module
        self.kept: dict[str, Any] = {}
        """Nothing: every episode scores itself."""
        try:
            self._env = _build(module, options)
            self._seats = list(agent_fields(self._env.config))
        except Trouble:
            raise
        except (Exception, SystemExit) as error:
            text = f"{module.__name__} can't be built: {type(error).__name__}: {error}"
            raise Trouble(text, "config" if isinstance(error, TypeError | ValueError) else "usage") from error
        if _is_chat(self._env):
            chat_in_process(share_here(self._env))
        fields_once()
        _route_model_calls()
        self._tasks: list[Any] = []
        self._left = iter(self._env.taskset)
        self._shared = AsyncExitStack()

    def about(self) -> dict[str, Any]:
        """What the other side has to know."""
        versions = finding.describe(self._module)
        others = self._seats[1:]
        return {
            "kind": "v1",
            "versions": versions,
            "together": False,
            "sampling": {},
            "held_out": False,
            "others": others,
        }

    async def open(self) -> None:
        """Start the servers that rollouts share."""
        await self._shared.enter_async_context(self._env.serving())

    async def close(self) -> None:
        """Stop them."""
        await self._shared.aclose()

    def tasks(self, split: str, start: int, count: int) -> list[dict[str, Any]]:
        """Tasks of the taskset, which has no splits: their prompts, and their data."""
        if split != "train":
            return []
        self._read(start + count)
        return [_as_task(task) for task in self._tasks[start : start + count]]

    def _read(self, count: int) -> None:
        self._tasks += itertools.islice(self._left, max(0, count - len(self._tasks)))

    async def play(self, state: str, row: dict[str, Any], speakers: dict[str, Speaker]) -> dict[str, Any]:
        """One episode, which scores itself. Each agent has the model of a role, in their order."""
        from verifiers.v1.clients import EvalClientConfig, ModelContext

        number = row["idx"]
        self._read(number + 1)
        task = self._tasks[number] if number < len(self._tasks) else None
        if task is None or task.key != row["key"]:
            raise Trouble(f"task {number} is another one here: a taskset has to load the same ones each time")
        roles = dict(zip(self._seats, speakers, strict=True))
        client = EvalClientConfig(base_url=NOWHERE, api_key_var="LUDUS_NO_KEY")
        context, traces = ModelContext(model=next(iter(speakers)), client=client), list[Any]()

        def minted(trace: Any) -> None:
            traces.append(trace)
            SPEAKERS[trace.id] = speakers[roles[trace.agent.name]]

        try:
            episode = await self._env.run_episode(task, context, on_trace=minted)
        finally:
            for trace in traces:
                SPEAKERS.pop(trace.id, None)
        _check(episode)
        stops = [trace.stop_condition for trace in episode.traces if trace.agent.name == self._seats[0]]
        scores = _scores(episode.traces, roles)
        return {"stop": next(filter(None, stops), "done"), "scores": scores, "messages": []}


def agent_fields(config: Any) -> dict[str, Any]:
    """What is said of each agent of an environment, by the name of its seat."""
    from verifiers.v1.configs.agent import agent_config_fields

    seats: dict[str, Any] = agent_config_fields(config)
    return seats


def _build(module: ModuleType, options: dict[str, Any]) -> Any:
    from verifiers.v1.runtimes import SubprocessConfig
    from verifiers.v1.utils import loaders

    name = module.__name__.removeprefix(f"{finding.TASKSETS}.")
    fields = loaders.env_config_type(name, options.get("id", "")).model_fields
    config = {key: value for key, value in options.items() if key in fields and key != "taskset"}
    own = {key: value for key, value in options.items() if key not in config and key != "taskset"}
    config["taskset"] = {**(options.get("taskset") or {}), **own, "id": name}
    seats = agent_fields(loaders.env_config_type(name, options.get("id", "")).model_construct())
    unplaced = [seat for seat in seats if "runtime" not in (config.get(seat) or {})]
    for seat, spec in seats.items():
        agent = config[seat] = dict(config.get(seat) or {})
        agent.setdefault("runtime", {"type": "subprocess"})
        if loaders.default_harness_id(name) == "bash" and spec.harness is None:
            agent.setdefault("harness", {"id": "null"})  # what verifiers takes, `bash`, lets the model use this machine
    env = loaders.load_environment(loaders.resolve_env_config(config))
    for seat in unplaced:
        harness = env._harnesses[seat]
        if harness.EXECUTES_CODE and isinstance(getattr(env.config, seat).runtime, SubprocessConfig):
            raise Trouble(
                f"its harness {harness.config.id} runs what the model writes: say where, such as "
                f"{seat}={{'runtime': {{'type': 'docker'}}}}",
                "config",
            )
    return env


def _is_chat(env: Any) -> bool:
    """Whether all its agents are chats on this machine."""
    from verifiers.v1.harnesses.null.harness import NullHarness
    from verifiers.v1.runtimes import SubprocessConfig

    return all(
        isinstance(harness, NullHarness) and isinstance(getattr(env.config, role).runtime, SubprocessConfig)
        for role, harness in env._harnesses.items()
    )


def _route_model_calls() -> None:
    """One client for all rollouts: it finds the model of the one that asks."""
    from verifiers.v1.clients.client import SESSION_ID_HEADER
    from verifiers.v1.clients.eval import EvalClient
    from verifiers.v1.errors import ProviderError
    from verifiers.v1.interception import server

    resolve = server.resolve_client

    def speaker_of(trace: str | None) -> Speaker:
        speaker = SPEAKERS.get(trace or "")
        if speaker is None:
            raise ProviderError("this call belongs to no running rollout", status_code=401)
        return speaker

    def failed(status: int, text: str) -> Any:
        full = status == 400 and "no room" in text
        return ProviderError(f"{text} (maximum context length)" if full else text, status_code=status)  # as it knows it

    class Client(EvalClient):
        async def get_response(
            self, dialect: Any, body: Any, sampling: Any, session_id: Any = None, turn: Any = None, headers: Any = None
        ) -> Any:
            if dialect.upstream_path != CHAT:
                return await super().get_response(dialect, body, sampling, session_id, turn, headers)
            status, answer = await speaker_of(session_id).complete(body)
            if status != 200:
                raise failed(status, json.dumps(answer))
            response = dialect.parse_response(dialect.validate_response(answer))
            response.raw = answer
            return response

        async def _request(self, url: str, body: Any, headers: Any, *, stream: bool = False) -> Any:
            speaker = speaker_of(headers.get(SESSION_ID_HEADER))
            headers["authorization"] = f"Bearer {speaker.api_key}"
            try:
                return await super()._request(
                    speaker.base_url + url.removeprefix(NOWHERE), body, headers, stream=stream
                )
            except ProviderError as error:
                raise failed(error.status_code, str(error)) from error

    def resolved(config: Any) -> Any:
        return Client(config) if config.base_url == NOWHERE else resolve(config)

    server.resolve_client = resolved


def _check(episode: Any) -> None:
    """Raises Trouble for an episode that did not go well."""
    errors = [*episode.errors, *(error for trace in episode.traces if not trace.ok for error in trace.errors)]
    if not episode.ok:
        error = errors[-1] if errors else None
        kind, text = (error.type, error.message) if error else ("", "the episode failed and says nothing of why")
        boundary, blame = BOUNDARIES.get(kind, ("environment", "environment"))
        if kind == "TaskError" and "scoring" in text:
            boundary = "scorer"
        raise Trouble(f"{kind}: {text}" if kind else text, boundary=boundary, blame=blame)


def _scores(traces: list[Any], roles: dict[str, str]) -> Scores:
    """What each agent earned; of one that ran several times the mean, and of one that is not to be trained no weight.

    Args:
        traces: the runs of all agents.
        roles: of seats.
    """
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for trace in traces:
        unscored = [name for name, value in {**trace.rewards, **trace.metrics}.items() if value is None]
        if unscored:
            raise Trouble(f"scoring did not come to {', '.join(unscored)}", boundary="scorer")
        role, counts = roles[trace.agent.name], float(trace.agent.trainable)
        for name, reward in trace.rewards.items():
            found.setdefault((name, role), []).append((reward.score, reward.weight * counts))
        for name, value in trace.metrics.items():
            found.setdefault((name, role), []).append((value, 0.0))
    return [
        (name, sum(score for score, _ in given) / len(given), given[0][1], role)
        for (name, role), given in found.items()
    ]


def _as_task(task: Any) -> dict[str, Any]:
    data = task.data.model_dump(mode="json", exclude_none=True)
    prompt = data.get("prompt") or ""
    if task.data.system_prompt:
        said = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        prompt = [{"role": "system", "content": task.data.system_prompt}, *(m for m in said if m.get("content"))]
    row = {"idx": task.data.idx, "key": task.key}
    return {"prompt": prompt, "answer": data.get("answer"), "row": row, "data": data}

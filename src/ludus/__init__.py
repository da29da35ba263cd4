"""Ludus: train agents by reinforcement learning.

An environment is tasks, an agent loop and rewards; the loop talks to an ordinary OpenAI-compatible model; behind the
model is an engine, tokens in and tokens out; a program (eval, sft, rl) is a short loop over those three.

Names are loaded when they are first used (PEP 562), so that `import ludus` and `ludus --help` are instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ludus.authoring.context import Context as Context
    from ludus.authoring.declare import metric as metric
    from ludus.authoring.declare import reward as reward
    from ludus.authoring.declare import stop as stop
    from ludus.authoring.declare import tool as tool
    from ludus.authoring.environment import Environment as Environment
    from ludus.authoring.loading import load_environment as load_environment
    from ludus.authoring.mcp.server import McpServer as McpServer
    from ludus.authoring.tasks import from_dataset as from_dataset
    from ludus.authoring.tasks import from_jsonl as from_jsonl
    from ludus.errors import LudusError as LudusError
    from ludus.errors import RolloutError as RolloutError
    from ludus.errors import ToolError as ToolError
    from ludus.programs.evaluate import evaluate as evaluate
    from ludus.programs.run_recipe import train as train
    from ludus.protocols import Model as Model
    from ludus.types import Message as Message
    from ludus.types import Reply as Reply
    from ludus.types import Reward as Reward
    from ludus.types import Rollout as Rollout
    from ludus.types import Task as Task
    from ludus.types import calls_tool as calls_tool

__version__ = "0.1.0"

_HOMES = {
    "ludus.authoring.context": ("Context",),
    "ludus.authoring.declare": ("metric", "reward", "stop", "tool"),
    "ludus.authoring.environment": ("Environment",),
    "ludus.authoring.loading": ("load_environment",),
    "ludus.authoring.mcp.server": ("McpServer",),
    "ludus.authoring.tasks": ("from_dataset", "from_jsonl"),
    "ludus.errors": ("LudusError", "RolloutError", "ToolError"),
    "ludus.programs.evaluate": ("evaluate",),
    "ludus.programs.run_recipe": ("train",),
    "ludus.protocols": ("Model",),
    "ludus.types": ("Message", "Reply", "Reward", "Rollout", "Task", "calls_tool"),
}
"""What the imports above say, for the interpreter; a test holds the two together."""
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_HOME_OF]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Ludus: train agents by reinforcement learning.

An environment is tasks, an agent loop and rewards; the loop talks to an ordinary OpenAI-compatible model; behind the
model is an engine, tokens in and tokens out; a program (eval, sft, rl) is a short loop over those three.
"""

from ludus.authoring.context import Context as Context
from ludus.authoring.declare import metric as metric
from ludus.authoring.declare import reward as reward
from ludus.authoring.declare import stop as stop
from ludus.authoring.declare import tool as tool
from ludus.authoring.environment import Environment as Environment
from ludus.authoring.loading import load_environment as load_environment
from ludus.authoring.tasks import from_dataset as from_dataset
from ludus.authoring.tasks import from_jsonl as from_jsonl
from ludus.errors import LudusError as LudusError
from ludus.errors import RolloutError as RolloutError
from ludus.errors import ToolError as ToolError
from ludus.protocols import Model as Model
from ludus.types import Message as Message
from ludus.types import Reply as Reply
from ludus.types import Reward as Reward
from ludus.types import Rollout as Rollout
from ludus.types import Task as Task

__version__ = "0.1.0"

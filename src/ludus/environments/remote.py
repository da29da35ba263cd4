"""What environments behind an address share: rewards that come with the answers, tools that a server describes.

State, rewards and the end of an episode are the server's, so the scorer only adds up what came. What goes wrong on the
way is infrastructure's fault and what the server's code raised is the environment's: neither is ever scored 0.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from ludus.authoring import declare
from ludus.authoring.environment import Environment
from ludus.authoring.tools import SchemaTool
from ludus.errors import ConfigError, RolloutError

RewardRule = Literal["sum", "last"]
"""How the rewards of an episode become one: added up, or the last of them."""
NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}}


@dataclass
class Earned:
    """What a server has said of one episode so far: the `ctx.state` of its rollout."""

    rewards: list[float] = field(default_factory=list)
    finished: bool = False

    def note(self, reward: Any, finished: Any) -> None:
        """Take down what came with an answer; None is no reward. Raises RolloutError for what is no finite number."""
        if reward is not None:
            if not _is_finite(reward):
                raise RolloutError(f"the server gave the reward {str(reward)[:80]}; expected a finite number or null")
            self.rewards.append(float(reward))
        self.finished = self.finished or bool(finished)


def _is_finite(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and isfinite(value)
    except OverflowError:  # JSON's integers may have any length
        return False


class Remote(Environment):
    """An environment whose episodes a server keeps; `ctx.state` is an `Earned`."""

    reward_rule: RewardRule = "sum"

    @declare.stop
    def finished(self, state: Earned) -> bool:
        """The server says that the episode is over."""
        return state.finished

    @declare.reward
    def score(self, state: Earned) -> float:
        """The server's rewards. An episode that the policy left before the first reward has earned nothing.

        Raises RolloutError where the server ended the episode without any.
        """
        if not state.rewards and state.finished:
            raise RolloutError("the server ended the episode without giving a reward", "scorer")
        if self.reward_rule == "last":
            return state.rewards[-1] if state.rewards else 0.0
        return sum(state.rewards)

    @declare.metric
    def ended(self, state: Earned) -> float:
        """1 where the server ended the episode, 0 where it was left."""
        return float(state.finished)


class RemoteTool(SchemaTool):
    """A tool that a server describes and runs in the episode's one session.

    Args:
        name: what the model calls it.
        description: what it does.
        parameters: JSON schema of its arguments, which the server checks; anything else is a tool without arguments.
        run: given the arguments, the text for the model. Raises ToolError for what the model is to be told.
    """

    def __init__(
        self, name: str, description: str, parameters: Any, run: Callable[[dict[str, Any]], Awaitable[str]]
    ) -> None:
        super().__init__(name, description, parameters if isinstance(parameters, dict) else NO_ARGUMENTS, run)

    @property
    def concurrent(self) -> bool:
        """Never: calls of one reply may depend on what the earlier ones did to the session."""
        return False


def lost(text: str) -> RolloutError:
    """The failure of a line or server, which is nobody's merit or fault: tried again, then excluded."""
    return RolloutError(text, "environment", "infrastructure")


def checked_url(prefix: str, url: str, schemes: Collection[str]) -> str:
    """The address without a slash at its end. Raises ConfigError for what is none, or holds a secret."""
    try:
        parts = urlsplit(url)
        fine = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, half an IPv6 address
        fine = False
    if not fine:
        raise ConfigError(f"expected an address such as {prefix}:http://127.0.0.1:8000, got {prefix}:{_no_secret(url)}")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            f"the address of {prefix}:{parts.scheme}://{parts.hostname} must end with its path, because it is recorded; "
            f"a key belongs into an environment variable, named by the option key_env"
        )
    return url.rstrip("/")


def _no_secret(url: str) -> str:
    """What is sure to be no secret of an address that can't be read."""
    return "something else" if set("@?#") & set(url) else url


def checked_rule(rule: str) -> RewardRule:
    """Raises ConfigError for another word."""
    if rule not in get_args(RewardRule):
        raise ConfigError(f"reward must be one of {', '.join(get_args(RewardRule))}; got {rule!r}")
    return rule  # type: ignore[return-value]


def secret(key_env: str) -> str:
    """What an environment variable holds; "" without a name. Raises ConfigError where it is not set."""
    if key_env and not os.environ.get(key_env):
        raise ConfigError(f"key_env names the environment variable {key_env}, which is not set")
    return os.environ.get(key_env, "") if key_env else ""


def is_loopback(url: str) -> bool:
    """Whether an address is this machine's own, which no proxy can reach."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

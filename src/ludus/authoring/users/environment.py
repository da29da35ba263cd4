"""`UserEnvironment`: an agent that talks to a user, with tools in between.

Who plays the user is an option: rules, which need no model, or the model of the role "user". Each task has its user in
`info`. The rules also stand in wherever the environment's expert plays that role.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any, ClassVar, Literal, get_args

from ludus.asking import Unusable, read_object
from ludus.authoring.calling import call
from ludus.authoring.context import Context
from ludus.authoring.declare import metric
from ludus.authoring.environment import Environment, as_messages
from ludus.authoring.users.errors import UserError, find_errors
from ludus.authoring.users.fault import NOBODY, Fault, fault_of
from ludus.authoring.users.persona import KEY, persona_of
from ludus.authoring.users.scripted import ScriptedUser
from ludus.authoring.users.simulated import GAVE_UP, MARKS, SimulatedUser
from ludus.authoring.users.user import User
from ludus.errors import ConfigError, RolloutError
from ludus.types import Message, Reward, Rollout, Task
from ludus.types import user as user_message

USER = "user"
JUDGE = "judge"
Player = Literal["scripted", "simulated"]


class UserEnvironment(Environment):
    """Base of environments with a user. Roles of a subclass's own, such as a judge of its scorers, stay.

    Args:
        user: "scripted" plays the user by rules; "simulated" has the model of the role "user" play them.
        judge_faults: ask the model of the role "judge" whose fault it was where something went wrong.
    """

    excludes_user_errors: ClassVar[bool] = False
    """Whether a rollout is tried again, then left out, in which the user made a decisive mistake."""
    max_turns = 20
    user: str
    judge_faults = False

    def __init__(self, user: Player = "scripted", judge_faults: bool = False) -> None:
        if user not in get_args(Player):
            raise ConfigError(f"user must be one of {', '.join(get_args(Player))}; got {user!r}")
        self.user, self.judge_faults = user, judge_faults
        added = [*([USER] if user == "simulated" else []), *([JUDGE] if judge_faults else [])]
        self.roles = tuple(dict.fromkeys((*self.roles, *added)))

    def make_user(self, ctx: Context) -> User:
        """Who the agent talks to in one rollout."""
        persona = persona_of(ctx.task)
        return SimulatedUser(persona, ctx.models[USER]) if self.user == "simulated" else ScriptedUser(persona)

    async def run(self, ctx: Context) -> None:
        """The agent and the user in turn; a reply that calls tools is answered by these, any other one by the user."""
        someone = self.make_user(ctx)
        ctx.messages = self.opening(ctx.task)
        if not any(message["role"] == "user" for message in ctx.messages):
            begun = await someone.speak(None)
            if begun.leaves:
                raise RolloutError("the user left before the agent could say anything", "environment", "infrastructure")
            ctx.messages.append(user_message(begun.text))
        schemas = [tool.schema for tool in ctx.tools.values()]
        for _ in range(self.max_turns):
            reply = await ctx.model.chat(ctx.messages, tools=schemas)
            ctx.messages.append(reply.message)
            if reply.truncated:
                ctx.stop = "length"
                break
            answer = await call(self.respond, ctx, reply)
            ctx.messages.extend(as_messages(answer))
            ctx.stop = await self.stopped(ctx)
            if answer is None and not ctx.stop:
                said = await someone.speak(reply.text)
                ctx.messages += [user_message(said.text)] if said.text else []
                ctx.stop = said.ending
            if ctx.stop:
                break
        ctx.stop = ctx.stop or "max_turns"
        await self._look_at_user(ctx)

    async def _look_at_user(self, ctx: Context) -> None:
        """Ask the judge, whose verdict stays in the record; leave the rollout out where that was asked for."""
        wrong = [error for error in self.errors_of(ctx.task, ctx.messages) if error.decisive]
        if self.excludes_user_errors and wrong:
            raise RolloutError(f"the user made a mistake: {wrong[0]}", "environment", "infrastructure")
        if self.judge_faults:
            await fault_of(ctx.models[JUDGE], persona_of(ctx.task), ctx.messages)

    def errors_of(self, task: Task, messages: list[Message]) -> list[UserError]:
        """Mistakes of the user's, found by rules."""
        return find_errors(persona_of(task), messages) if KEY in task.info else []

    def demonstrator_of(self, role: str) -> Callable[..., Any] | None:
        """Where the expert plays the user, the rules do; as a judge it blames nobody."""
        others: dict[str, Callable[..., Any]] = {USER: self.demonstrate_user, JUDGE: lambda: NOBODY}
        return others.get(role) or super().demonstrator_of(role)

    async def demonstrate_user(self, ctx: Context) -> AsyncGenerator[str, list[Message]]:
        """The scripted user in the place of the model that plays one."""
        someone = ScriptedUser(persona_of(ctx.task))
        while True:
            heard = [message["content"] for message in ctx.messages if message["role"] == "assistant"]
            said = await someone.speak(heard[-1] if heard else None)
            yield f"{said.text} {MARKS.get(said.ending, GAVE_UP)}" if said.leaves else said.text

    @metric
    def user_errors(self, task: Task, rollout: Rollout) -> float:
        """Mistakes of the user's."""
        return float(len(self.errors_of(task, rollout.messages)))

    @metric
    def user_fault(self, rollout: Rollout) -> list[Reward]:
        """1 where the judge blames the user, 0 where the agent or nobody; nothing where none was asked."""
        for reply in [asked.reply for asked in rollout.calls if asked.role == JUDGE]:
            with suppress(Unusable):  # it was asked again, or asked something else by another scorer
                fault = read_object(str(reply.get("content")), Fault)
                return [Reward("user_fault", float(fault.fault == "user"))]
        return []

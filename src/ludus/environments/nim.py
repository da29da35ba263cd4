"""Nim with one heap, for two: self-play in its smallest form.

Who takes the last stone wins. Leaving a multiple of `most` + 1 always wins, which nobody says: it is for the players to
find. Each role sees a conversation of its own. Which roles are trained is up to the recipe: by default one model plays
both and learns from both; `role_models` lets another one, or the demonstrator, play a role and leaves it as it is.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from ludus.authoring.context import Context
from ludus.authoring.declare import metric, reward
from ludus.authoring.environment import Environment
from ludus.types import MAIN_ROLE, Message, Reward, Task, user

OPPONENT = "opponent"
NUM_TASKS = 20_000
NUMBER = re.compile(r"\d{1,9}")


@dataclass
class Game:
    """Where a game stands."""

    stones: int
    winner: str = ""
    illegal: str = ""
    """The role that lost by a move that is none."""


class Nim(Environment):
    """Take stones from a heap in turn; who takes the last one wins."""

    name = "nim"
    version = "1"
    roles = (MAIN_ROLE, OPPONENT)
    failure_reward = -1.0  # as for who loses: breaking off a lost game must not pay
    sampling = {"max_tokens": 8}

    def __init__(self, smallest: int = 5, largest: int = 24, most: int = 3, skill: float = 0.5) -> None:
        """
        Args:
            smallest: fewest stones in a heap.
            largest: most stones in a heap.
            most: stones that may be taken at once.
            skill: share of the demonstrator's moves that are the best there is; the others are drawn at random.
        """
        if not 1 <= smallest < largest:
            raise ValueError(f"1 <= smallest < largest must hold, got {smallest} and {largest}")
        if most < 1:
            raise ValueError(f"most must be at least 1, got {most}")
        if not 0 <= skill <= 1:
            raise ValueError(f"skill must be between 0 and 1, got {skill}")
        self.smallest, self.largest, self.most, self.skill = smallest, largest, most, skill
        self.max_turns = largest

    def tasks(self, split: str) -> Iterator[Task]:
        """20,000 games: every heap, and either role to begin, again and again. A fifth of these is never trained on."""
        openings = [(stones, role) for stones in range(self.smallest, self.largest + 1) for role in self.roles]
        random.Random("nim openings").shuffle(openings)
        held_out = max(1, len(openings) // 5)
        own = openings[:held_out] if split == "test" else openings[held_out:]
        for index, (stones, first) in enumerate(itertools.islice(itertools.cycle(own), NUM_TASKS)):
            info = {"stones": stones, "first": first}
            yield Task(prompt=f"{stones} stones, {first} begins", info=info, id=f"{split}-{index}-{stones}-{first}")

    async def setup(self, ctx: Context) -> None:
        """Put the stones down."""
        ctx.state = Game(ctx.task.info["stones"])

    async def run(self, ctx: Context) -> None:
        """The roles move in turn, each in its own conversation; a move that is none loses."""
        game: Game = ctx.state
        talks: dict[str, list[Message]] = {role: [] for role in self.roles}
        ctx.messages = talks[MAIN_ROLE]
        role = ctx.task.info["first"]
        while not game.winner:
            talk = talks[role]
            talk.append(user(f"{game.stones} left" if talk else f"{self._rules()} {game.stones} left"))
            reply = await ctx.models[role].chat(talk)
            talk.append(reply.message)
            other = OPPONENT if role == MAIN_ROLE else MAIN_ROLE
            taken = self._taken(reply.text, game.stones)
            game.stones -= taken
            if not taken:
                game.winner, game.illegal = other, role
            elif not game.stones:
                game.winner = role
            role = other
        talks[MAIN_ROLE].append(user("you win" if game.winner == MAIN_ROLE else "you lose"))

    @reward
    def won(self, state: Game) -> list[Reward]:
        """1 for the winner, -1 for the loser."""
        return [Reward("won", 1.0 if role == state.winner else -1.0, role=role) for role in self.roles]

    @metric
    def legal(self, state: Game) -> list[Reward]:
        """0 for the role that lost by a move that is none."""
        return [Reward("legal", float(role != state.illegal), role=role) for role in self.roles]

    def demonstrate(  # type: ignore[override]
        self, state: Game, random: random.Random
    ) -> Generator[str, list[Message], None]:
        """The best move now and then, any other time whatever is allowed."""
        while True:
            best = state.stones % (self.most + 1)
            drawn = random.randint(1, min(self.most, state.stones))
            yield str(best if best and random.random() < self.skill else drawn)

    def _rules(self) -> str:
        return f"Take 1 to {self.most} stones; who takes the last one wins."

    def _taken(self, text: str, stones: int) -> int:
        """Stones that a reply takes; 0 for what is no move."""
        said = text.strip()
        taken = int(said) if NUMBER.fullmatch(said) else 0
        return taken if taken <= min(self.most, stones) else 0

"""Every game of the TextArena package as an environment: `textarena:TicTacToe-v0`.

Each player is a role: the main role is one of them, task by task another one, the others are `opponent` (or
`opponent_1`, ...). Every role sees a conversation of its own, to which the game adds what is new; its own invalid moves
are answered and punished as the game does it, and rewards are the game's. Games run side by side, each with a random
stream of its own (see `isolation`). What raises in a game fails the rollout as the environment's fault.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ludus.authoring.calling import call
from ludus.authoring.context import Context
from ludus.authoring.declare import metric, reward
from ludus.authoring.environment import Environment
from ludus.environments.isolation import Streams, drawn_from, isolate
from ludus.errors import ConfigError, MissingExtra, ModelCallFailed, RolloutError, UnknownName
from ludus.seeds import derive
from ludus.types import MAIN_ROLE, Message, Reward, Task, user

PACKAGE = "textarena"
NUM_TASKS = 10_000
MOST_PLAYERS = 16
LONG_NUMBER = re.compile(r"(\d{1000})\d+")
"""What is beyond is left out: Python refuses to read numbers of some thousand digits, games then raise, and a player who is
losing would be saved by a rollout that failed."""
VARIANTS = ("-raw", "-train")
"""Endings of ids that are the same game with other views of it; here a role always sees everything that is new."""


class TextArena(Environment):
    """A game of TextArena, for one player or several."""

    version = "1"
    depends_on = ("textarena",)

    def __init__(self, game: str, players: int | None = None, turns: int = 200, **settings: Any) -> None:
        """
        Args:
            game: its id in TextArena.
            players: by default as few as the game agrees to.
            turns: replies of all players together after which a game that goes on is left undecided.
            **settings: the game's own parameters.
        """
        names = families()
        if game not in names:
            raise UnknownName("TextArena game", game, names, "ludus env list textarena:")
        if turns < 1:
            raise ValueError(f"turns must be at least 1, got {turns}")
        self.game, self.max_turns, self.settings = game, turns, settings
        self.players = self._count_players(players)
        self.roles = _roles(self.players)

    def tasks(self, split: str) -> Iterator[Task]:
        """Games by their seed; the main role is each player in turn. A game without chance has one beginning only."""
        for index in range(NUM_TASKS):
            seed, player = derive(PACKAGE, self.game, split, index) % 2**31, index % self.players
            yield Task(
                prompt=f"{self.game}, seed {seed}, as player {player}",
                info={"seed": seed, "player": player},
                id=f"{split}-{index}",
            )

    async def setup(self, ctx: Context) -> None:
        """Begin the game."""
        ctx.state = await call(Match, self.game, self.settings, self.players, ctx.task.info["seed"])

    async def run(self, ctx: Context) -> None:
        """Ask whoever is to move, until the game is over."""
        match: Match = ctx.state
        seats = self._seats(ctx.task)
        talks: dict[str, list[Message]] = {role: [] for role in self.roles}
        ctx.messages = talks[MAIN_ROLE]
        ctx.stop = "max_turns"
        for _ in range(self.max_turns):
            player, seen = await call(match.observe)
            role = seats[player]
            talks[role].append(user(seen))
            if await call(match.move, await self._reply(ctx, role, talks[role])):
                ctx.stop = "done"
                break
        talks[MAIN_ROLE].append(user(match.last_words(seats.index(MAIN_ROLE))))

    @reward
    def outcome(self, task: Task, state: Match) -> list[Reward]:
        """What the game gives to each player."""
        return [Reward("outcome", state.rewards.get(i, 0.0), role=role) for i, role in enumerate(self._seats(task))]

    @metric
    def finished(self, state: Match) -> float:
        """Whether the game came to its own end."""
        return float(state.done)

    @metric
    def forfeited(self, task: Task, state: Match) -> list[Reward]:
        """Whether a player lost by invalid moves."""
        return [Reward("forfeited", float(i in state.forfeited), role=role) for i, role in enumerate(self._seats(task))]

    async def _reply(self, ctx: Context, role: str, talk: list[Message]) -> str:
        """A role's move. One whose conversation has outgrown its model says nothing, which games take for invalid: to
        fail the rollout instead would save a player who is losing."""
        try:
            reply = await ctx.models[role].chat(talk)
        except ModelCallFailed as error:
            if error.blame != "policy":
                raise
            talk.append({"role": "assistant", "content": ""})
            return ""
        talk.append(reply.message)
        return reply.text

    def _seats(self, task: Task) -> list[str]:
        """The role of each player."""
        others = iter(self.roles[1:])
        return [MAIN_ROLE if i == task.info["player"] else next(others) for i in range(self.players)]

    def _count_players(self, asked: int | None) -> int:
        """As many players as were asked for, or as few as the game can be begun with. Raises ConfigError."""
        reasons: dict[int, Exception] = {}
        for number in [asked] if asked is not None else range(1, MOST_PLAYERS + 1):
            try:
                with contextlib.redirect_stdout(sys.stderr):  # some games announce what they load
                    _load(self.game)
                    Match(self.game, self.settings, number, seed=0)
            except Exception as error:  # noqa: BLE001 - told to the caller; games refuse in many ways
                reasons[number] = error
                if not (isinstance(error, AssertionError) or "player" in str(error).lower()):
                    break
            else:
                return number
        raise ConfigError(f"{PACKAGE}:{self.game} can't be begun: {_in_one_line(reasons[max(reasons)])}") from None


@dataclass
class Match:
    """One game under way, of a kind that a `TextArena` has loaded."""

    game: str
    settings: dict[str, Any]
    players: int
    seed: int
    done: bool = False
    rewards: dict[int, float] = field(default_factory=dict)
    """By player, once it is over."""
    forfeited: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        """Raises whatever the game refuses to begin with."""
        self._streams = Streams(self.seed)
        with drawn_from(self._streams):
            self._env = _make(self.game, self.settings)
            self._env.reset(num_players=self.players, seed=self.seed)
        if not _agrees(self._env.state, self.players):
            raise ValueError(f"it is not a game for a number of players of {self.players}")
        _mend(self._env.state)

    def observe(self) -> tuple[int, str]:
        """Whose move it is, and what this player has not seen yet."""
        with drawn_from(self._streams):
            player, news = self._env.get_observation()
        return player, self._as_text(player, news)

    def move(self, text: str) -> bool:
        """Make the move of whoever is to move; whether the game is over."""
        with drawn_from(self._streams):
            self.done, _ = self._env.step(action=LONG_NUMBER.sub(r"\1", text))
            if self.done:
                rewards, about = self._env.close()
                self.rewards = {player: self._number(value) for player, value in (rewards or {}).items()}
                self.forfeited = frozenset(player for player in about if about[player].get("invalid_move"))
        return self.done

    def _number(self, value: Any) -> float:
        try:
            return float(value)
        except (TypeError, ValueError):
            raise RolloutError(f"{PACKAGE}:{self.game} gave a reward that is no number: {value!r}") from None

    def last_words(self, player: int) -> str:
        """What a player has not seen yet, and what came of the game."""
        state = self._env.state
        news = self._as_text(player, state.observations.get(player, ()))
        reason = str(state.game_info.get(player, {}).get("reason") or "") if self.done else "The game is broken off."
        return "\n".join(part for part in (news, reason) if part)

    def _as_text(self, player: int, news: Sequence[tuple[int, str, Any]]) -> str:
        """News as one message: without the player's own moves, which are its replies, and with the last board only."""
        names = self._env.state.role_mapping
        # Two games mix up the arguments when they repeat a move, and give its kind as the sender.
        known = [(sender, text, kind.name) for sender, text, kind in news if isinstance(sender, int)]
        last_board = max((i for i, (_, _, kind) in enumerate(known) if kind == "GAME_BOARD"), default=None)
        lines = []
        for i, (sender, text, kind) in enumerate(known):
            if (kind == "GAME_BOARD" and i != last_board) or (kind == "PLAYER_ACTION" and sender == player):
                continue
            speaker = "" if sender < 0 else f"[{names.get(sender, f'Player {sender}')}] "
            lines.append(speaker + text.strip())
        return "\n".join(lines) or "It is your move."


def families() -> list[str]:
    """Ids of all games. Raises MissingExtra."""
    return sorted(name for name in _registry() if not name.endswith(VARIANTS))


def _registry() -> dict[str, Any]:
    try:
        from textarena.envs.registration import ENV_REGISTRY
    except ImportError:
        raise MissingExtra("environments of TextArena", "textarena") from None
    registry: dict[str, Any] = ENV_REGISTRY
    return registry


def _load(game: str) -> None:
    """Import a game, and let it draw from streams instead of the global generator."""
    entry = _registry()[game].entry_point
    if isinstance(entry, str):
        importlib.import_module(entry.partition(":")[0])
    isolate(PACKAGE)


def _make(game: str, settings: dict[str, Any]) -> Any:
    """The game without the wrappers that change what players see, but with those that read their replies."""
    import textarena

    env = textarena.make(f"{game}-raw", **settings)
    for wrapper in _registry()[game].default_wrappers or ():
        if issubclass(wrapper, textarena.ActionWrapper):
            env = wrapper(env)
    return env


def _agrees(state: Any, players: int) -> bool:
    """Whether a game has as many players as it was begun with: some don't look, and wait for others for ever."""
    import textarena

    alone = isinstance(state, textarena.SinglePlayerState)
    return bool(state.num_players == players and alone == (players == 1))


def _mend(state: Any) -> None:
    """Four games for one give the reward of an invalid move as its reason, and the reason as its reward."""
    given = state.set_invalid_move

    def set_invalid_move(reason: Any, *more: Any, **named: Any) -> Any:
        if more and isinstance(more[0], str) and not isinstance(reason, str):
            reason, more = more[0], (reason, *more[1:])
        return given(reason, *more, **named)

    state.set_invalid_move = set_invalid_move


def _roles(players: int) -> tuple[str, ...]:
    if players <= 2:
        return (MAIN_ROLE, "opponent")[:players]
    return (MAIN_ROLE, *(f"opponent_{i}" for i in range(1, players)))


def _in_one_line(error: Exception) -> str:
    """Why a game can't be begun."""
    if isinstance(error, LookupError) and "nltk" in str(error).lower():
        words = "words averaged_perceptron_tagger_eng"
        return f"it needs word lists of NLTK that are not on this machine: python -m nltk.downloader {words}"
    if isinstance(error, SyntaxError):
        return f"its code is not for Python {sys.version_info.major}.{sys.version_info.minor}: {error}"
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"

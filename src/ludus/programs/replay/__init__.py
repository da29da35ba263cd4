"""Replays of recorded rollouts: rescore, re-enact, resample."""

from ludus.programs.replay.program import HOWS as HOWS
from ludus.programs.replay.program import replay as replay
from ludus.programs.replay.program import replay_async as replay_async
from ludus.programs.replay.result import Replay as Replay

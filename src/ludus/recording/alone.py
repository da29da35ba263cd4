"""`ask_alone`: a model's reply outside of any rollout, whatever stands behind it."""

from __future__ import annotations

from collections.abc import Sequence

from ludus.recording.backend import Backend
from ludus.recording.recorder import Recorder
from ludus.types import MAIN_ROLE, Message, Reply, Sampling


async def ask_alone(
    backend: Backend, messages: Sequence[Message], sampling: Sampling, *, seed: int = 0, session: str = ""
) -> Reply:
    """One reply, of which nothing is kept. Raises ModelCallFailed."""
    recorder = Recorder({MAIN_ROLE: backend}, sampling, seed, session)
    try:
        return await recorder.call(MAIN_ROLE, messages)
    finally:
        recorder.close()

"""The tokens of one rollout, sampled again call by call, and compared with the recorded ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import msgspec

from ludus.errors import LudusError
from ludus.programs.replay.result import Difference, Finding, short
from ludus.protocols import SampleChunk, SampleRequest
from ludus.recording.backend import TokenBackend
from ludus.types import Call, Rollout
from ludus.types import Sequence as TokenSequence

TOLERANCE = 1e-4
"""Largest difference of a log-probability that counts as rounding, in nats."""
SHOWN_TOKENS = 6


@dataclass
class Compared:
    """One rollout's tokens then and now."""

    rollout: Rollout
    sequences: list[TokenSequence]
    """Those of roles that the weights played."""
    num_tokens: int = 0
    num_same: int = 0
    """Tokens before each call's first difference."""
    sampled: float = 0.0
    """Largest difference of their log-probabilities."""
    forward: float | None = None
    """Largest difference from what the weights give the recorded tokens; None where that says nothing."""
    differences: list[Difference] = field(default_factory=list)
    refused: bool = False
    """Whether the engine refused a call: these can't be the weights."""

    def see_call(self, number: int, call: Call, backend: TokenBackend, now: SampleChunk) -> None:
        """Compare a call's reply, sampled again, with the recorded one."""
        sequence = self._sequence(call)
        start, end = span_of(call)
        then, logprobs = sequence.tokens[start:end], sequence.logprobs[start:end]
        pairs = enumerate(zip(then, now.tokens, strict=False))
        same = next((i for i, (a, b) in pairs if a != b), min(len(then), len(now.tokens)))
        self.num_tokens, self.num_same = self.num_tokens + len(then), self.num_same + same
        if same < max(len(then), len(now.tokens)):
            decode = backend.renderer.tokenizer.decode
            old, new = (_shown(decode(tokens[same : same + SHOWN_TOKENS])) for tokens in (then, now.tokens))
            self.differences.append(Difference(f"call {number}, token {same + 1}", old, new))
        self.sampled = max(self.sampled, self._worst(f"call {number}", logprobs[:same], now.logprobs[:same]))

    def see_scored(self, sequence: TokenSequence, logprobs_T: Sequence[float]) -> None:
        """Compare what the weights give a recorded sequence with what was recorded."""
        pairs = zip(sequence.logprobs, logprobs_T, sequence.sampled_mask, strict=True)
        sampled = [(then, now) for then, now, mask in pairs if mask]
        where = f"sequence {sequence.id}, scored,"
        worst = self._worst(where, [then for then, _ in sampled], [now for _, now in sampled])
        self.forward = max(self.forward or 0.0, worst)

    def finding(self) -> Finding:
        """What is to be told of it."""
        figures = {
            "tokens": float(self.num_tokens), "same_tokens": float(self.num_same), "logprob_sampled": self.sampled,
            **({} if self.forward is None else {"logprob_forward": self.forward}),
        }  # fmt: skip
        about = self.rollout
        return Finding(
            rollout=about.id, task=about.task.id, purpose=about.purpose, differences=self.differences, figures=figures
        )

    def _worst(self, where: str, then: Sequence[float], now: Sequence[float]) -> float:
        apart = [abs(a - b) for a, b in zip(then, now, strict=True)]
        worst = max(apart, default=0.0)
        if worst > TOLERANCE:
            at = apart.index(worst)
            words = f"{where} log-probability of token {at + 1}"
            self.differences.append(Difference(words, short(then[at]), short(now[at])))
        return worst

    def _sequence(self, call: Call) -> TokenSequence:
        return next(sequence for sequence in self.sequences if sequence.id == call.sequence)


async def sample_again(backend: TokenBackend, rollout: Rollout, frozen: Collection[str] = ()) -> Compared:
    """Sample each call from its recorded prompt, one after another as the rollout did, and forget its caches.

    Args:
        backend: holds the weights.
        rollout: has tokens.
        frozen: roles that other models played.
    """
    compared = Compared(rollout, [sequence for sequence in rollout.sequences if sequence.role not in frozen])
    sessions = {sequence.id: f"{rollout.id}/{sequence.id}" for sequence in compared.sequences}
    try:
        for number, call in enumerate(rollout.calls, 1):
            if call.sequence in sessions:
                request = _request(backend, rollout, call, compared._sequence(call), sessions[call.sequence])
                compared.see_call(number, call, backend, await _draw(backend, request))
    except LudusError as error:
        compared.refused = True
        compared.differences.append(Difference(f"call {number}", "a reply", f"refused: {error}"))
    finally:
        for session in sessions.values():
            backend.sampler.release(session)
    return compared


def span_of(call: Call) -> tuple[int, int]:
    """Where a call's reply stands in its sequence."""
    return call.usage.prompt_tokens, call.usage.prompt_tokens + call.usage.completion_tokens


def _request(
    backend: TokenBackend, rollout: Rollout, call: Call, sequence: TokenSequence, session: str
) -> SampleRequest:
    """As the recorder asked."""
    stops = tuple({*call.sampling.stop_token_ids, *backend.renderer.stop_token_ids})
    return SampleRequest(
        tokens=sequence.tokens[: span_of(call)[0]],
        sampling=msgspec.structs.replace(call.sampling, stop_token_ids=stops),
        session=session,
        order=(rollout.task.id, rollout.seeds.visit, rollout.seeds.sample, sequence.id),
    )


async def _draw(backend: TokenBackend, request: SampleRequest) -> SampleChunk:
    chunks = [chunk async for chunk in backend.sampler.sample(request)]
    tokens = [token for chunk in chunks for token in chunk.tokens]
    logprobs = [logprob for chunk in chunks for logprob in chunk.logprobs]
    return SampleChunk(tokens, logprobs, [], chunks[-1].finish_reason)


def _shown(text: str) -> str:
    return short(text) if text else "the end"

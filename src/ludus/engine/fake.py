"""A deterministic engine without torch, for tests, docs and trying things out.

The sampler says what a script tells it, or draws from one softmax over the vocabulary that the trainer can really
train: the smallest model that learns. Everything else (stop tokens, limits, seeds, versions, cancellation) behaves as
in the real engines, and the same conformance suite runs against it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ludus.errors import ModelCallFailed, ModelFolderError, UnknownName
from ludus.protocols import AdamW, Checkpoint, Datum, Loss, SampleChunk, SampleRequest, TrainResult, WeightsRef
from ludus.renderers.chat import ChatRenderer
from ludus.renderers.template import ChatTemplate
from ludus.renderers.tokenizer import ByteTokenizer
from ludus.types import FinishReason

SPECIAL = ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>")
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}<tool_call>"
    '{"name": {{ c.function.name | tojson }}, "arguments": {{ c.function.arguments | tojson }}}'
    "</tool_call>{% endfor %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

Script = Callable[[str, random.Random], str]
"""The reply to a prompt's text, given a generator seeded by the request."""


def fake_tokenizer() -> ByteTokenizer:
    """Bytes and five special tokens."""
    return ByteTokenizer(SPECIAL, eos_token="<|end|>")


def fake_renderer() -> ChatRenderer:
    """The chat template that the fake engine's tokens are in."""
    return ChatRenderer(fake_tokenizer(), ChatTemplate(TEMPLATE))


class FakeEngine:
    """Sampler and trainer in one object, sharing one vector of logits.

    Args:
        script: what to say; None draws each token from the softmax of the logits.
        context: most tokens of prompt and reply.
        delay_s: seconds that each request takes.
    """

    def __init__(self, script: Script | None = None, *, context: int = 4096, delay_s: float = 0.0) -> None:
        self.tokenizer = fake_tokenizer()
        self.end_id = self.tokenizer.encode("<|end|>")[0]
        self.logits_V: NDArray[np.float64] = np.zeros(self.tokenizer.vocab_size)
        self.version = 0
        self._script, self._context, self._delay_s = script, context, delay_s
        self._gradient_V = np.zeros_like(self.logits_V)
        self.releases: list[str] = []

    # --- Sampler --------------------------------------------------------------------------------------------------

    @property
    def context(self) -> int:
        return self._context

    async def sample(self, request: SampleRequest) -> AsyncIterator[SampleChunk]:
        """See `protocols.Sampler`."""
        room = self._context - len(request.tokens)
        if room < 1:
            raise ModelCallFailed(
                f"a prompt of {len(request.tokens)} tokens leaves no room in {self._context}", "policy"
            )
        await asyncio.sleep(self._delay_s)
        limit = min(room, request.sampling.max_tokens or room)
        ids, finish = self._reply(request, limit)
        logprobs_V = self._logprobs(request.sampling.temperature)
        pieces = [[i] for i in ids] if request.stream else [ids]
        for number, piece in enumerate(pieces, 1):
            logprobs = [float(logprobs_V[i]) for i in piece]
            last = number == len(pieces)
            yield SampleChunk(piece, logprobs, [self.version] * len(piece), finish if last else None)

    async def publish(self, weights: WeightsRef, when: Literal["drain", "in_flight"] = "drain") -> None:
        """The trainer's weights are the sampler's: only the version changes."""
        self.version = self.version + 1 if weights.version is None else weights.version

    def release(self, session: str) -> None:
        """Remembers who was released."""
        self.releases.append(session)

    def _reply(self, request: SampleRequest, limit: int) -> tuple[list[int], FinishReason]:
        rng = random.Random(request.sampling.seed)
        stops = {*request.sampling.stop_token_ids, self.end_id}
        if self._script is not None:
            text = self._script(self.tokenizer.decode(request.tokens), rng)
            planned = iter([*self.tokenizer.encode(text), self.end_id])
        else:
            planned = iter(lambda: self._draw(request.sampling.temperature, rng), None)
        ids: list[int] = []
        for token in planned:
            ids.append(token)
            if token in stops:
                return ids, "stop"
            if request.sampling.stop and any(s in self.tokenizer.decode(ids) for s in request.sampling.stop):
                return ids, "stop"
            if len(ids) == limit:
                break
        return ids, "length"

    def _draw(self, temperature: float, rng: random.Random) -> int:
        logprobs_V = self._logprobs(temperature)
        if temperature == 0:
            return int(logprobs_V.argmax())
        return min(int(np.searchsorted(np.exp(logprobs_V).cumsum(), rng.random())), len(logprobs_V) - 1)

    def _logprobs(self, temperature: float) -> NDArray[np.float64]:
        scaled_V = self.logits_V / (temperature or 1.0)
        shifted_V = scaled_V - scaled_V.max()
        return np.asarray(shifted_V - np.log(np.exp(shifted_V).sum()))

    # --- Trainer --------------------------------------------------------------------------------------------------

    async def forward(self, data: Sequence[Datum]) -> list[list[float]]:
        """See `protocols.Trainer`."""
        return [[0.0, *(float(self._logprobs(d.temperature)[i]) for i in d.tokens_T[1:])] for d in data]

    async def forward_backward(self, data: Sequence[Datum], loss: Loss) -> TrainResult:
        """`cross_entropy`, and `importance_sampling` without its ratio's gradient: -weight x (advantage) x log p."""
        if loss.name not in ("cross_entropy", "importance_sampling"):
            raise UnknownName("loss of the fake engine", loss.name, ["cross_entropy", "importance_sampling"])
        total, logprobs = 0.0, list[float]()
        for datum in data:
            logprobs_V = self._logprobs(datum.temperature)
            for t, token in enumerate(datum.tokens_T):
                factor = datum.arrays["weights"][t]
                if t == 0 or factor == 0:
                    continue
                if loss.name == "importance_sampling":
                    old = datum.arrays["logprobs"][t]
                    factor *= datum.arrays["advantages"][t] * float(np.exp(logprobs_V[token] - old))
                    total -= factor
                else:
                    total -= factor * float(logprobs_V[token])
                logprobs.append(float(logprobs_V[token]))
                one_hot_V = np.eye(1, len(logprobs_V), token)[0]
                self._gradient_V -= factor * (one_hot_V - np.exp(logprobs_V)) / datum.temperature
        entropy = -float((np.exp(logprobs_V) * logprobs_V).sum()) if logprobs else 0.0
        entropies = np.full(len(logprobs), entropy, dtype=np.float32)
        return TrainResult(total, {}, np.array(logprobs, dtype=np.float32), entropies)

    async def optim_step(self, optimizer: AdamW) -> dict[str, float]:
        """A plain gradient step, clipped; the optimiser's other settings have no meaning here."""
        norm = float(np.linalg.norm(self._gradient_V))
        finite = bool(np.isfinite(norm))
        if finite:
            scale = min(1.0, optimizer.max_grad_norm / norm) if norm > 0 else 1.0
            self.logits_V = self.logits_V - optimizer.lr * scale * self._gradient_V
        self._gradient_V = np.zeros_like(self.logits_V)
        return {"grad_norm": norm, "lr": optimizer.lr, "skipped": 0.0 if finite else 1.0}

    async def reset_optimizer(self) -> None:
        """There are no moments; only the gradient is forgotten."""
        self._gradient_V = np.zeros_like(self.logits_V)

    async def weights_hash(self) -> str:
        """16 hex digits over the logits."""
        return hashlib.blake2b(self.logits_V.tobytes(), digest_size=8).hexdigest()

    async def save(self, path: Path) -> Checkpoint:
        """Writes `fake.json`."""
        path.mkdir(parents=True, exist_ok=True)
        (path / "fake.json").write_text(json.dumps(self.logits_V.tolist()))
        return Checkpoint(path, await self.weights_hash())

    async def load(self, path: Path) -> None:
        """Reads `fake.json`. Raises ModelFolderError."""
        try:
            self.logits_V = np.array(json.loads((path / "fake.json").read_text()))
        except (OSError, ValueError) as error:
            raise ModelFolderError(f"{path / 'fake.json'}: expected a list of logits: {error}") from None

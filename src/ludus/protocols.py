"""The seams: Tokenizer, Renderer, Sampler, Trainer, Model, Sandbox. `ludus.testing` has the engines' conformance suites.

Arrays of a `Datum` line up with its tokens: entry t belongs to tokens_T[t], whose log-probability is computed from the
tokens before it; entry 0 is never used. Losses *sum* over tokens; every normaliser is computed over the global batch and
rides in the data (as the array `weights`), so micro-batches, packing and ranks cannot change the result.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec
import numpy as np
from numpy.typing import NDArray

from ludus.types import Call, FinishReason, Message, Reply, Sampling

# --- messages <-> tokens ------------------------------------------------------------------------------------------


class Tokenizer(Protocol):
    """Text <-> token ids, special tokens included."""

    def encode(self, text: str) -> list[int]:
        """Ids of the text; special tokens written in it become their single ids; nothing is added."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids, special tokens included."""
        ...


class Renderer(Protocol):
    """Messages <-> token ids for one chat template."""

    tokenizer: Tokenizer

    stop_token_ids: frozenset[int]
    """Ids that end a reply."""

    def render(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> list[int]:
        """Ids of the whole conversation, ready for the assistant's next reply."""
        ...

    def extend(
        self,
        messages: Sequence[Message],
        new: Sequence[Message],
        tools: Sequence[dict[str, Any]] = (),
        *,
        ended_by: int | None,
    ) -> list[int] | None:
        """Ids that follow a recorded reply when `new` messages come after it.

        Args:
            messages: the conversation up to and including the recorded reply.
            new: what comes after, ready for the next reply.
            tools: JSON schemas of the tools, in OpenAI's format.
            ended_by: the stop token that the reply's last sampled id was; None if it was cut off.

        Returns:
            The ids to insert, or None where the template does not provably extend what was recorded (the recording
            then forks).
        """
        ...

    def parse(
        self,
        ids: Sequence[int],
        finish_reason: FinishReason,
        tools: Sequence[dict[str, Any]] = (),
        *,
        prompt: Sequence[int] | None = None,
    ) -> tuple[Message, str]:
        """The assistant message in sampled ids, and why a tool call was malformed, or "".

        Args:
            ids: what was sampled, with the stop token or without it.
            finish_reason: "length" explains an unfinished tool call.
            tools: JSON schemas that say of which type an argument is, where the format does not.
            prompt: the ids before it, whose end may have opened a thinking block; None is a conversation's first.
        """
        ...

    def demonstration(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()
    ) -> tuple[list[int], list[int]]:
        """Ids of a whole conversation and a mask that is 1 on what the assistant wrote, stop tokens included."""
        ...


# --- engines: tokens in, tokens out -------------------------------------------------------------------------------


CURRENT = "current"
"""Name of the weights that an engine has open: those that are trained."""
BASE = "base"
"""Name of the model beneath an adapter, as it was before training."""


class WeightsRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which weights: a name (CURRENT, BASE, a frozen opponent) and a version; None is the newest published."""

    name: str = CURRENT
    version: int | None = None


class SampleRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Input tokens and how to continue them."""

    tokens: list[int]
    sampling: Sampling
    weights: WeightsRef = WeightsRef()
    session: str = ""
    """Requests of one session extend each other; the engine may keep their key-value cache."""
    stream: bool = False
    """Chunks as they are sampled, rather than one at the end."""
    order: tuple[int | str, ...] = ()
    """Fixes the place in a batch where batches must be composed deterministically."""


class SampleChunk(msgspec.Struct, frozen=True):
    """Newly sampled tokens. The last chunk has a finish reason."""

    tokens: list[int]
    logprobs: list[float]
    versions: list[int]
    finish_reason: FinishReason | None = None
    routing: bytes = b""
    """On the last chunk of a mixture of experts: which experts each token of the request and the reply went to, but for
    the last one. Little-endian int16, shape [tokens - 1, layers with experts, experts per token]."""


@runtime_checkable
class Sampler(Protocol):
    """Who only samples stops here: vLLM, an OpenAI completions server, the fake."""

    def sample(self, request: SampleRequest) -> AsyncIterator[SampleChunk]:
        """Continue the tokens; closing the iterator cancels. Raises ModelCallFailed."""
        ...

    async def publish(self, weights: WeightsRef, when: Literal["drain", "in_flight"] = "drain") -> None:
        """Serve these weights from now on: after requests in flight have ended, or at once."""
        ...

    def release(self, session: str) -> None:
        """The session is over: its key-value cache may go."""
        ...

    @property
    def context(self) -> int:
        """Most tokens of prompt and reply together."""
        ...


@runtime_checkable
class Lockstep(Protocol):
    """A sampler whose batches can be composed without a clock: it goes on only when everybody attached is waiting."""

    def attach(self, count: int = 1) -> None:
        """So many more rollouts take part."""
        ...

    def detach(self, count: int = 1) -> None:
        """So many have ended."""
        ...


class Loss(msgspec.Struct, frozen=True):
    """A loss by name with its floats; the per-token arrays it needs are in each Datum."""

    name: str
    params: dict[str, float] = {}


class Datum(msgspec.Struct, kw_only=True):
    """One sequence to train on. Arrays have shape [T], T = len(tokens_T)."""

    tokens_T: list[int]
    arrays: dict[str, list[float]]
    """By name: `weights` (the loss's factor per token, 0 = not trained on, normaliser included), and what the loss
    needs: `advantages`, `logprobs` (of the sampler), `ref_logprobs`, ..."""
    temperature: float = 1.0
    """The sampler's; the trainer divides logits by it."""
    routing: bytes = b""
    """Experts to replay, as in `SampleChunk`, for the first tokens; others choose anew."""


class TrainResult(msgspec.Struct, frozen=True):
    """Of one forward-backward. Arrays have one entry per trained token (weight != 0), in the order of the data."""

    loss: float
    """Summed over tokens, weights included."""
    metrics: dict[str, float]
    """The loss's own figures: sums over trained tokens, weighted by `weights`."""
    logprobs: NDArray[np.float32]
    """Under the weights before the step, at the datum's temperature."""
    entropies: NDArray[np.float32]
    """Of the distribution each token was drawn from, in nats."""


class AdamW(msgspec.Struct, frozen=True):
    """Optimiser settings of one step."""

    lr: float
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0


class Checkpoint(msgspec.Struct, frozen=True):
    """A saved state: where it is and the hash of its weights."""

    path: Path
    weights_hash: str


@runtime_checkable
class Trainer(Protocol):
    """One open set of weights. Calls execute in the order they were submitted, whatever order they complete in."""

    async def forward(self, data: Sequence[Datum]) -> list[list[float]]:
        """Log-probabilities of each datum's tokens, shape [T] each (entry 0 is 0.0)."""
        ...

    async def forward_backward(self, data: Sequence[Datum], loss: Loss) -> TrainResult:
        """Add the gradient of the summed loss to what is accumulated."""
        ...

    async def optim_step(self, optimizer: AdamW) -> dict[str, float]:
        """Apply and clear the accumulated gradient. A NaN or infinite one is dropped: `skipped` is then 1.0."""
        ...

    async def reset_optimizer(self) -> None:
        """Forget the optimiser's moments and the accumulated gradient: another loss begins."""
        ...

    async def save(self, path: Path) -> Checkpoint:
        """Everything `load` needs to go on bit for bit: weights and optimiser state."""
        ...

    async def weights_hash(self) -> str:
        """Equal for equal weights, whatever else differs."""
        ...

    async def load(self, path: Path) -> None:
        """Go on from a saved state. Raises ModelFolderError."""
        ...


# --- what an agent sees -------------------------------------------------------------------------------------------


@runtime_checkable
class Model(Protocol):
    """An OpenAI-compatible model that belongs to one rollout and role; all calls through it are recorded behind it."""

    @property
    def base_url(self) -> str:
        """Address for frameworks and programs, valid for this rollout alone."""
        ...

    @property
    def api_key(self) -> str:
        """Key for `base_url`, valid for this rollout alone."""
        ...

    @property
    def openai(self) -> Any:
        """An `openai.AsyncOpenAI` bound to this rollout, without a socket where that is possible."""
        ...

    async def chat(self, messages: Sequence[Message], *, tools: Sequence[Any] = (), **sampling: Any) -> Reply:
        """The model's reply to a conversation.

        Args:
            messages: in OpenAI's format.
            tools: functions marked with `@ludus.tool`, or JSON schemas in OpenAI's format.
            **sampling: fields of `Sampling` that override the rollout's.

        Raises:
            ModelCallFailed: no answer after retries.
        """
        ...

    def subagent(self, name: str) -> Model:
        """The same model for a sub-agent: its calls are recorded, and trained, as the rollout's, but its conversation is
        not taken for the rollout's own. A name is up to 64 letters, digits, "_", "-" and "."."""
        ...

    async def adopt(self, name: str) -> None:
        """Take what a sub-agent has said so far, in any role, for the rollout's own: it is the one attempt of several that
        counts."""
        ...

    async def calls(self) -> Sequence[Call]:
        """What has been recorded of this rollout so far, whoever called."""
        ...


# --- isolated computers -------------------------------------------------------------------------------------------


MOST_READ = 64 << 20
"""Bytes of a file that `read` returns unless told otherwise."""
MOST_DOWNLOADED = 256 << 20


class SandboxResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a command, or of a piece of code."""

    stdout: str
    stderr: str
    exit_code: int
    """As in `subprocess`: negative is the signal that ended it."""
    timed_out: bool = False
    truncated: bool = False
    """More was written than `Limits.output_bytes`; the rest was dropped."""
    oom_killed: bool = False
    """A process of the sandbox was killed meanwhile because its memory was used up."""
    tier: str
    """How the code was contained: "namespaces", "landlock", "none", or what a remote service calls its own."""


@runtime_checkable
class Sandbox(Protocol):
    """An isolated computer that belongs to one rollout. Calls may run at the same time.

    Paths are the sandbox's own; one that is not absolute is relative to its home, where commands begin.
    """

    @property
    def tier(self) -> str:
        """How it is contained, as in `SandboxResult`."""
        ...

    async def exec(
        self,
        command: Sequence[str] | str,
        *,
        timeout_s: float = 60,
        stdin: str | bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> SandboxResult:
        """Run a program, or text with /bin/sh. What it leaves running goes on until the sandbox is killed.

        Args:
            command: a program and its arguments, or the text of a shell command.
            timeout_s: after that all processes of the sandbox are killed; its files stay.
            stdin: what it reads.
            env: variables beside the sandbox's own.
            cwd: folder to begin in.

        Raises:
            SandboxFailed: the sandbox is gone.
        """
        ...

    async def python(self, code: str, *, timeout_s: float = 60) -> SandboxResult:
        """Run Python code where earlier code left its variables; the value of an expression at its end is printed.

        A time-out, `exit()` or a crash ends the session, which stderr then says; the next call begins a new one.

        Raises:
            SandboxFailed: the sandbox is gone, or its session is busy with another call.
        """
        ...

    async def read(self, path: str, *, max_bytes: int = MOST_READ) -> bytes:
        """A regular file, of at most so many bytes. Raises SandboxFileError."""
        ...

    async def write(self, path: str, data: bytes, *, mode: int | None = None) -> None:
        """Make or replace a file; its folders are made. Raises SandboxFileError."""
        ...

    async def upload(self, host_path: str | Path, path: str) -> None:
        """Copy a file or folder of the host into the sandbox; links are left out. Raises FileProblem."""
        ...

    async def download(self, path: str, host_path: str | Path, *, max_bytes: int = MOST_DOWNLOADED) -> None:
        """Copy a file, or the regular files below a folder, to a place of the host where nothing is yet.

        Raises:
            SandboxFileError: not there, more than `max_bytes`, or names that lead elsewhere.
            FileProblem: the place on the host.
        """
        ...

    async def reach(self, url: str) -> str:
        """An address that works in the sandbox and leads to this address of the host's, and to nothing else there.

        It works until the sandbox is killed.

        Raises:
            SandboxUnavailable: this kind of sandbox, or this one's `network`, does not allow it.
        """
        ...

    async def kill(self) -> None:
        """End it: no process or file of it is left. May be called again."""
        ...

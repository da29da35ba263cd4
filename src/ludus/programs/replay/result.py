"""What a replay found: rollout by rollout, scorer by scorer, and in one sentence what that proves."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

How = Literal["rescore", "re-enact", "resample"]
SHORT = 60
"""Most characters of a text that is quoted."""


class Difference(msgspec.Struct, frozen=True):
    """Something that is not as recorded."""

    where: str
    then: str
    now: str


class Finding(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What came of one rollout."""

    rollout: str
    task: str
    purpose: str
    differences: list[Difference] = []
    """The first one first; none where everything that was compared is as recorded."""
    cannot: str = ""
    """Why nothing of it could be compared; "" where something was."""
    figures: dict[str, float] = {}


class ScorerRow(msgspec.Struct, kw_only=True):
    """One scorer over all rollouts. Means are over the rollouts that both have a value of."""

    scorer: str
    num_equal: int
    num_differ: int
    num_cannot: int
    cannot: str
    """Why some could not be compared."""
    mean_then: float | None
    mean_now: float | None
    correlation: float | None
    """Pearson's, of values then and now; None where one of them does not vary."""
    num_turned: int
    """Rollouts whose value was above, at or below their group's mean and now is elsewhere: their advantage turned."""
    num_in_groups: int
    """Rollouts in groups of two and more, of which that can be said."""
    num_reordered: int
    """Groups in which two rollouts changed their order."""
    num_groups: int


class EnvironmentCheck(msgspec.Struct):
    """An environment of the rollouts, then and now."""

    recorded: str
    """Its id in the record."""
    used: str
    """What was loaded to replay."""
    hashes: list[str]
    """Content hashes in the record; "" is one that was not known."""
    hash: str
    same: bool | None
    """Whether code, data and options are as they were; None where a hash is not known."""


class Replay(msgspec.Struct, kw_only=True):
    """The result of a replay."""

    how: How
    run: str
    findings: list[Finding]
    environments: list[EnvironmentCheck] = []
    scores: list[ScorerRow] = []
    reward: ScorerRow | None = None
    """The weighted sum of the main role."""
    notes: list[str] = []
    proves: str = ""

    @property
    def different(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.differences]

    @property
    def impossible(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.cannot]

    @property
    def num_same(self) -> int:
        return len(self.findings) - len(self.different) - len(self.impossible)

    @property
    def same(self) -> bool:
        """Whether everything that was compared is as recorded, and something was."""
        return not self.different and self.num_same > 0

    def reasons(self) -> dict[str, int]:
        """Why rollouts could not be compared, and how many."""
        counted: dict[str, int] = {}
        for finding in self.impossible:
            counted[finding.cannot] = counted.get(finding.cannot, 0) + 1
        return counted

    def to_dict(self) -> dict[str, Any]:
        """Plain values: counts, and the rollouts that differ or could not be compared."""
        values: dict[str, Any] = msgspec.to_builtins(self)
        counts = {
            "num_rollouts": len(self.findings), "num_same": self.num_same, "num_different": len(self.different),
            "num_cannot": len(self.impossible), "same": self.same,
        }  # fmt: skip
        told = [msgspec.to_builtins(f) for f in self.findings if f.differences or f.cannot or f.figures]
        return {**values, **counts, "findings": told}


def short(value: Any) -> str:
    """A value as a quotation in one line.

    >>> short("two\\nlines"), short(1.0), short(None)
    ("'two\\\\nlines'", '1', 'nothing')
    """
    if value is None:
        return "nothing"
    text = f"{value:.6g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= SHORT else f"{text[: SHORT - 1]}…"


def proof(replay: Replay, tolerance: float = 0.0) -> str:
    """One or two sentences: what this replay proves, and what it does not."""
    if not replay.different and not replay.num_same:
        return "Nothing could be compared, so this proves nothing."
    return {"rescore": _of_rescoring, "re-enact": _of_reenacting, "resample": _of_resampling}[replay.how](
        replay, tolerance
    )


def _of_rescoring(replay: Replay, _: float) -> str:
    beyond = "It says nothing of what the environment or the model would do now (--how re-enact, --how resample)."
    if replay.same:
        unasked = [row.scorer for row in replay.scores if row.num_cannot]
        but = f", but for {' and '.join(unasked)}, which could not be asked" if unasked else ""
        return f"Proves that the scorers of today give the recorded conversations the recorded rewards{but}. {beyond}"
    if _code_is_the_same(replay):
        cause = "the environment has not changed, so a scorer depends on what no record holds (chance, time, a service)"
        return f"Proves that {cause}. {beyond}"
    return (
        f"Proves that the scorers of today are others than those of then: rewards from before and after the change can't "
        f"be compared. {beyond}"
    )


def _of_reenacting(replay: Replay, _: float) -> str:
    beyond = "It says nothing of whether the model would answer so again (--how resample)."
    if replay.same:
        words = "says, does and rewards the same where the model answers as recorded"
        return f"Proves that the environment of today {words}. {beyond}"
    cause = "what it does depends on something that no record holds (chance, time, a service)"
    if not _code_is_the_same(replay):
        cause = "its code, data or options are others than then, or unknown, or depend on what no record holds"
    return (
        f"Proves that the environment does not do the same again: {cause}. After the first difference of a rollout the "
        f"recorded replies answer another conversation than the one that they were given in."
    )


def _of_resampling(replay: Replay, tolerance: float) -> str:
    beyond = "The environment did not run (--how re-enact)."
    apart = [f.figures["logprob_sampled"] for f in replay.findings if not f.cannot]
    worst = max(apart, default=0.0)
    if not replay.same:
        words = (
            "other weights, another build or machine, or a draw so close to the edge between two tokens that the last"
        )
        return f"Proves that something differs: {words} bits of a sum decided it. {beyond}"
    if worst == 0.0:
        return f"Proves that the kept weights give every token and log-probability bit for bit as recorded. {beyond}"
    return (
        f"Proves that the kept weights give the recorded tokens, with log-probabilities at most {worst:.1g} from the "
        f"recorded ones ({tolerance:g} is allowed). Bit for bit is promised with deterministic = true only, on one "
        f"machine and build. {beyond}"
    )


def _code_is_the_same(replay: Replay) -> bool:
    return bool(replay.environments) and all(check.same for check in replay.environments)

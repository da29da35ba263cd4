"""LiveWeights: the decoder that sampler and trainer share, and which version of it is published.

The trainer changes the weights in place, so a sample taken between an optimiser step and its `publish` already comes
from the next version; it is stamped so. Caches are keyed by `key`, which changes with every update and every publish.
"""

from __future__ import annotations

from ludus.engine.torch.decoder import Decoder
from ludus.errors import UnknownName
from ludus.protocols import WeightsRef

NAME = "base"


class LiveWeights:
    """One open set of weights; touched by the worker's thread only."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.version = 0
        self._updates = 0
        self._published_updates = 0

    @property
    def stamp(self) -> int:
        """The version that tokens sampled now belong to."""
        return self.version + (self._updates != self._published_updates)

    @property
    def key(self) -> tuple[int, int]:
        """Equal keys mean equal weights."""
        return self.version, self._updates

    def updated(self) -> None:
        """The trainer changed the weights."""
        self._updates += 1

    def publish(self, ref: WeightsRef) -> None:
        """Name the weights as they are now: the version asked for, or the next."""
        self.version = self.version + 1 if ref.version is None else ref.version
        self._published_updates = self._updates

    def check(self, ref: WeightsRef) -> None:
        """Raises UnknownName for weights that are not here."""
        if ref.name != NAME:
            raise UnknownName("weights", ref.name, [NAME])
        if ref.version is not None and ref.version != self.version:
            raise UnknownName("version of the weights", str(ref.version), [str(self.version)])

"""LiveWeights: the decoder that sampler and trainer share, which version of it is published, and the base beneath it.

The trainer changes the weights in place, so a sample taken between an optimiser step and its `publish` already comes
from the next version; it is stamped so. Caches are keyed by `key`, which changes with every update and every publish.
"""

from __future__ import annotations

from typing import NamedTuple

from ludus.engine.torch.decoder import Decoder
from ludus.engine.torch.files import tensors_hash
from ludus.errors import UnknownName
from ludus.protocols import BASE, CURRENT, WeightsRef


class WeightsKey(NamedTuple):
    """Equal keys mean equal weights; of one name only the newest matter."""

    name: str
    version: int = 0
    updates: int = 0


class LiveWeights:
    """One open set of weights; touched by the worker's thread only."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.version = 0
        self._updates = 0
        self._published_updates = 0
        self._base_hash = ""

    def stamp(self, ref: WeightsRef) -> int:
        """The version that tokens sampled now belong to; a base has but one, 0."""
        return 0 if ref.name == BASE else self.version + (self._updates != self._published_updates)

    def key(self, ref: WeightsRef) -> WeightsKey:
        """What caches of these weights go by."""
        return WeightsKey(BASE) if ref.name == BASE else WeightsKey(CURRENT, self.version, self._updates)

    def updated(self) -> None:
        """The trainer changed the weights."""
        self._updates += 1
        self.decoder.changed()

    def hash(self) -> str:
        """32 hex digits over all parameters; those beneath an adapter are read once, as they don't change."""
        decoder = self.decoder
        if decoder.adapter is None:
            return tensors_hash(decoder.named_parameters())
        self._base_hash = self._base_hash or tensors_hash(decoder.named_parameters())
        return tensors_hash(decoder.adapter.root.named_parameters(), self._base_hash)

    def publish(self, ref: WeightsRef) -> None:
        """Name the weights as they are now: the version asked for, or the next."""
        self.version = self.version + 1 if ref.version is None else ref.version
        self._published_updates = self._updates

    def check(self, ref: WeightsRef) -> None:
        """Raises UnknownName for weights that are not here."""
        known = [CURRENT] if self.decoder.adapter is None else [CURRENT, BASE]
        if ref.name not in known:
            raise UnknownName("weights", ref.name, known)
        version = 0 if ref.name == BASE else self.version
        if ref.version is not None and ref.version != version:
            raise UnknownName("version of the weights", str(ref.version), [str(version)])

"""One small random model folder for all tests of the torch engine, and engines over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ludus.engine.torch.engine import TorchEngine
from ludus.engine.torch.folder import load_decoder, save_decoder
from ludus.engine.torch.presets import init_model

MakeEngine = Callable[..., TorchEngine]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The preset as made: nearly uniform distributions."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    init_model(folder, "tiny", seed=0)
    return folder


@pytest.fixture(scope="session")
def sharp(tiny: Path) -> Path:
    """The preset with larger weights: distributions far from uniform that depend on every token before."""
    decoder = load_decoder(tiny)
    with torch.no_grad():
        for parameter in decoder.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    folder = tiny.parent / "sharp"
    save_decoder(decoder, folder, tokenizer_from=tiny)
    return folder


@pytest.fixture
def make_engine(sharp: Path) -> Iterator[MakeEngine]:
    """Engines that are closed at the end of the test."""
    engines: list[TorchEngine] = []

    def make(folder: Path = sharp, **options: Any) -> TorchEngine:
        engines.append(TorchEngine(folder, device="cpu", **options))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()

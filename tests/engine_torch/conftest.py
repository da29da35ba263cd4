"""One small random model folder for all tests of the torch engine, and engines over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ludus.engine.torch.config import DecoderConfig
from ludus.engine.torch.decoder import Decoder
from ludus.engine.torch.engine import TorchEngine
from ludus.engine.torch.folder import save_decoder
from ludus.engine.torch.presets import init_model

CONFIG = DecoderConfig(
    model_type="qwen3", vocab_size=366, hidden_size=128, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, head_dim=32, intermediate_size=256, max_position_embeddings=1024, tie_word_embeddings=True,
)  # fmt: skip
MakeEngine = Callable[..., TorchEngine]


@pytest.fixture(scope="session")
def peft() -> Any:
    """The package, which takes seconds to load, where a test uses it."""
    import peft

    return peft


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The preset as made: nearly uniform distributions."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    init_model(folder, "tiny", seed=0)
    return folder


@pytest.fixture(scope="session")
def random_decoder() -> Callable[[DecoderConfig, float], Decoder]:
    """Makes decoders whose matrices are normally distributed, of a standard deviation, and whose norms are 1."""

    def make(config: DecoderConfig, std: float) -> Decoder:
        decoder = Decoder(config)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in decoder.parameters():
                parameter.fill_(1.0)
                if parameter.ndim > 1:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
        return decoder

    return make


@pytest.fixture(scope="session")
def sharp(tiny: Path, random_decoder: Callable[[DecoderConfig, float], Decoder]) -> Path:
    """Random weights whose distributions are far from uniform and depend on every token before."""
    folder = tiny.parent / "sharp"
    save_decoder(random_decoder(CONFIG, 0.08), folder, tokenizer_from=tiny)
    return folder


@pytest.fixture
def make_engine(sharp: Path) -> Iterator[MakeEngine]:
    """Engines that are closed at the end of the test."""
    engines: list[TorchEngine] = []

    def make(folder: Path = sharp, **options: Any) -> TorchEngine:
        engines.append(TorchEngine(folder, device="cpu", **{"threads": 1, **options}))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()

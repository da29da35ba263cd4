"""Mixtures of experts: what sampling chose is recorded, and training replays it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ludus.engine.torch.config import DecoderConfig, Experts
from ludus.engine.torch.folder import save_decoder
from ludus.errors import UsageError
from ludus.protocols import Datum, Loss, SampleRequest
from ludus.types import Sampling

LAYERS, CHOSEN = 2, 2
CONFIG = DecoderConfig(
    model_type="qwen3_moe", vocab_size=366, hidden_size=64, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, head_dim=16, intermediate_size=96, max_position_embeddings=512, tie_word_embeddings=True,
    experts=Experts(8, CHOSEN, 24, norm_topk_prob=True, layers=(1, 2)),
)  # fmt: skip
PROMPT = list(range(40, 65))


@pytest.fixture(scope="module")
def mixture(tiny, random_decoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "mixture"
    save_decoder(random_decoder(CONFIG, 0.15), folder, tokenizer_from=tiny)
    return folder


async def sample(engine, tokens, session="", **sampling):
    request = SampleRequest(
        tokens=tokens, sampling=Sampling(**{"max_tokens": 10, "seed": 3, **sampling}), session=session
    )
    return [chunk async for chunk in engine.sampler.sample(request)][-1]


def routing_of(chunk):
    return np.frombuffer(chunk.routing, "<i2").reshape(-1, LAYERS, CHOSEN)


def datum(tokens, routing=b"", weight=1.0):
    return Datum(tokens_T=tokens, arrays={"weights": [0.0] + [weight] * (len(tokens) - 1)}, routing=routing)


async def test_the_whole_conversation_is_recorded_over_turns_and_shared_prompts(mixture, make_engine):
    engine = make_engine(mixture)
    first = await sample(engine, PROMPT, "a")
    assert routing_of(first).shape == (len(PROMPT) + 9, LAYERS, CHOSEN)
    longer = [*PROMPT, *first.tokens, 50, 51, 52]
    warm, cold = await sample(engine, longer, "a"), await sample(make_engine(mixture), longer)
    assert warm.tokens == cold.tokens
    assert np.array_equal(routing_of(warm), routing_of(cold))
    shared = await sample(engine, PROMPT, "b")  # its prompt is copied from a's cache
    assert np.array_equal(routing_of(shared), routing_of(first))


async def test_training_replays_what_was_chosen(mixture, make_engine):
    engine = make_engine(mixture)
    chunk = await sample(engine, PROMPT)
    tokens = PROMPT + chunk.tokens
    free, replayed = await engine.trainer.forward([datum(tokens), datum(tokens, chunk.routing)])
    assert replayed[len(PROMPT) :] == pytest.approx(chunk.logprobs, abs=1e-4)
    assert free == pytest.approx(replayed, abs=1e-4)
    other = ((routing_of(chunk) + 1) % 8).astype("<i2").tobytes()
    (forced,) = await engine.trainer.forward([datum(tokens, other)])
    assert np.abs(np.array(forced) - replayed).max() > 0.01


async def test_gradients_flow_through_replayed_choices(mixture, make_engine):
    tokens = PROMPT + (chunk := await sample(make_engine(mixture), PROMPT)).tokens
    engines = make_engine(mixture), make_engine(mixture)
    for engine, routing in zip(engines, (b"", chunk.routing), strict=True):
        await engine.trainer.forward_backward([datum(tokens, routing)], Loss("cross_entropy"))
    free, replayed = (engine.decoder.flat.gradients_N for engine in engines)
    torch.testing.assert_close(free, replayed, atol=1e-5, rtol=1e-3)
    assert engines[0].decoder.model.layers[1].mlp.gate.weight.grad.abs().max() > 0


async def test_routing_of_another_shape_is_refused(mixture, make_engine):
    with pytest.raises(UsageError, match="routing"):
        await make_engine(mixture).trainer.forward([datum(PROMPT, b"\0" * 10)])
    with pytest.raises(UsageError, match="routing"):
        await make_engine().trainer.forward([datum(PROMPT, b"\0" * 10)])

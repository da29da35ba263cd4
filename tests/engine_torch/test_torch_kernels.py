"""The kernels in C against PyTorch's operators, and what happens where they can't be compiled."""

from __future__ import annotations

import ctypes
import dataclasses
import logging
import os
import shutil
import stat
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch.nn import functional as F

from ludus.engine.torch import build
from ludus.engine.torch.cache import KVCache
from ludus.engine.torch.cached import CachedAttention, Span, arrange
from ludus.engine.torch.config import DecoderConfig, Experts
from ludus.engine.torch.draw import draw, uniforms
from ludus.engine.torch.folder import save_decoder
from ludus.engine.torch.kernels import load_kernels
from ludus.engine.torch.lora import LoraSettings
from ludus.engine.torch.operators import TorchOperators
from ludus.engine.torch.packed import PackedMatrix
from ludus.protocols import SampleRequest, WeightsRef
from ludus.types import Sampling

CPU = torch.device("cpu")
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2e-2}
CONFIG = DecoderConfig(
    model_type="qwen3", vocab_size=366, hidden_size=128, num_hidden_layers=3, num_attention_heads=6,
    num_key_value_heads=2, head_dim=32, intermediate_size=192, max_position_embeddings=512, tie_word_embeddings=True,
)  # fmt: skip
MODELS = {
    "qwen3": {},
    "qwen2": {"model_type": "qwen2", "qkv_bias": True, "tie_word_embeddings": False},
    "mistral": {"model_type": "mistral", "sliding_window": 20, "windowed_layers": (0, 1, 2)},
    "odd heads": {"model_type": "llama", "head_dim": 40, "num_attention_heads": 4},
    "experts": {"model_type": "qwen3_moe", "experts": Experts(6, 2, 48, True, (0, 2))},
}


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def kernels(request):
    found = loaded(request.param)
    found.dtype = request.param
    return found


def loaded(dtype=torch.float32):
    found = load_kernels(CPU, dtype)
    if found is None:
        pytest.skip("no C compiler")
    return found


def random(shape, dtype, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def close(found, expected):
    """Within a rounding or two of the type."""
    assert found.dtype == expected.dtype
    tolerance = TOLERANCE[found.dtype]
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("shape", [(1, 8), (3, 40), (300, 256)])
def test_norms(kernels, shape):
    x, weight = random((shape[0], shape[1] + 5), kernels.dtype)[:, : shape[1]], random(shape[1], kernels.dtype, 1)
    close(kernels.rms_norm(x, weight, 1e-6), TorchOperators().rms_norm(x, weight, 1e-6))


@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("size", [16, 40, 64, 128])
def test_rotations(kernels, size, normed):
    x = random((5, 7, size), kernels.dtype)[:, :6]  # rows with gaps, as a projection's outputs have
    scale = random((6, size), kernels.dtype, 1) if normed else None
    angles = torch.rand(5, size // 2) * 100
    cos, sin = angles.cos(), angles.sin()
    turn = [torch.cat(p, dim=-1)[:, None].to(kernels.dtype) for p in ((cos, cos), (-sin, sin))]
    close(kernels.rotate(x, scale, 1e-6, *turn), TorchOperators().rotate(x, scale, 1e-6, *turn))


def test_swiglu_of_small_and_huge_values(kernels):
    gates = torch.tensor([[0.0, -0.0, 1e-30, 5, -5, 88, -88, 300, -300, 3e4, -3e4, float("inf")]]).repeat(7, 1)
    x = torch.cat((gates, random(gates.shape, torch.float32)), dim=1).to(kernels.dtype)
    found, expected = kernels.swiglu(x), TorchOperators().swiglu(x)
    close(found, expected)
    assert not kernels.swiglu(torch.full((1, 4), float("nan")).to(kernels.dtype)).isfinite().any()


@pytest.mark.parametrize("window", [None, 1, 9])
@pytest.mark.parametrize(("heads", "size"), [((4, 2), 64), ((7, 1), 32), ((3, 3), 24), ((2, 1), 128)])
def test_attention_reads_each_slot_as_far_as_it_sees(kernels, heads, size, window):
    num_queries, num_keys = heads
    cached = [random((9, num_keys, 50, size), kernels.dtype, seed) for seed in (1, 2)]
    slots, positions = torch.tensor([7, 0, 3, 3]), torch.tensor([49, 0, 17, 18])
    q = random((4, num_queries + 2, size), kernels.dtype)[:, :num_queries]
    found = kernels.attend(q, *cached, slots, positions, window)
    for row, (slot, position) in enumerate(zip(slots.tolist(), positions.tolist(), strict=True)):
        first = 0 if window is None else max(0, position - window + 1)
        k, v = (c[slot : slot + 1, :, first : position + 1].float() for c in cached)
        expected = F.scaled_dot_product_attention(q[row : row + 1, :, None].float(), k, v, enable_gqa=True)
        close(found[row], expected[0, :, 0].to(kernels.dtype))


def test_logits_are_not_rounded(kernels):
    hidden, weight = random((2, 70), kernels.dtype), random((501, 70), kernels.dtype, 1)
    found, expected = kernels.logits(hidden, weight), hidden.double() @ weight.double().T
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


def test_more_rows_than_a_thread_takes(kernels):
    """Threads share the rows; nothing is computed twice or left out."""
    cached = [random((200, 2, 130, 64), kernels.dtype, seed) for seed in (1, 2)]
    slots, positions = torch.randperm(200), torch.randint(0, 130, (200,))
    q = random((200, 4, 64), kernels.dtype)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        together = kernels.attend(q, *cached, slots, positions, None)
    finally:
        torch.set_num_threads(before)
    alone = [kernels.attend(q[i : i + 1], *cached, slots[i : i + 1], positions[i : i + 1], None) for i in range(200)]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("window", [None, 12])
def test_attention_over_a_cache_with_and_without(kernels, window):
    """Arrivals long and short, and requests that decode, in one forward."""
    spans = [Span(0, 0, 40), Span(5, 30, 1), Span(2, 0, 7), Span(3, 61, 1), Span(1, 20, 3)]
    outputs = []
    for used in (kernels, None):
        cache = KVCache(dataclasses.replace(CONFIG, num_hidden_layers=1), CPU, kernels.dtype, 1 << 24)
        cache.reserve(64)
        cache._resize(8, 64)
        for index, layers in enumerate((cache.keys, cache.values)):
            layers[0].copy_(random(layers[0].shape, kernels.dtype, index))
        groups = arrange(spans, kernels=used is not None)
        order = [spans[i] for group in groups for i in group]
        slots = torch.tensor([span.slot for span in order for _ in range(span.count)])
        positions = torch.tensor([p for span in order for p in range(span.start, span.start + span.count)])
        # each token's own vectors, wherever it lies in the packed order
        rows = [int(slot) * 64 + int(position) for slot, position in zip(slots, positions, strict=True)]
        q, k, v = (random((8 * 64, heads, 32), kernels.dtype, 9)[rows] for heads in (6, 2, 2))
        attention = CachedAttention(cache, [[spans[i] for i in group] for group in groups], slots, positions, used)
        with torch.inference_mode():
            out = attention.attend(0, q, k, v, window)
        outputs.append(out[np.argsort(rows)])
    close(*outputs)


@given(
    st.lists(st.floats(-80, 80, width=32), min_size=1, max_size=700),
    st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    st.integers(0, 2**63),
)
@example([-2.220446049250313e-16, 0.0], 0.0, 0)
def test_draws_are_pytorchs(logits, temperature, seed):
    kernels = loaded()
    logits_BV = torch.tensor([logits])
    uniforms_B = torch.from_numpy(uniforms([seed], [0]))
    sampling = [Sampling(temperature=temperature)]
    token, logprob = draw(logits_BV.clone(), sampling, uniforms_B, kernels)
    expected, expected_logprob = draw(logits_BV.clone(), sampling, uniforms_B)
    logprobs = (logits_BV / (temperature or 1.0)).log_softmax(-1)[0]
    assert logprob.item() == pytest.approx(logprobs[token].item(), abs=1e-5)
    assert logprobs[token] > -100
    if token != expected:  # only where the uniform number falls on the border between two, to the last bits
        assert temperature
        first, last = sorted((token.item(), expected.item()))
        cdf = logprobs.double().exp().cumsum(-1)
        assert (cdf[last - 1] - cdf[first]).item() < 1e-5
        assert min(abs(uniforms_B.double().item() - c.item()) for c in (cdf[first], cdf[last - 1])) < 1e-5
    else:
        assert logprob.item() == pytest.approx(expected_logprob.item(), abs=1e-5)


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-23])
def test_no_token_without_probability_is_drawn(uniform):
    kernels = loaded()
    logits = torch.full((1, 1000), float("-inf"))
    logits[0, [400, 401]] = 1.0
    token, logprob = kernels.draw(logits, [1.0], torch.tensor([uniform]))
    assert token.item() in (400, 401)
    assert logprob.item() == pytest.approx(np.log(0.5))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_show_in_the_logprob(bad, temperature):
    kernels = loaded()
    logits = torch.zeros(1, 300)
    logits[0, 270] = bad
    _, logprob = kernels.draw(logits, [temperature], torch.tensor([0.5]))
    assert not logprob.item() > float("-inf")


def test_another_type_is_refused():
    kernels = loaded()
    with pytest.raises(TypeError, match="float64"):
        kernels.rms_norm(torch.ones(2, 2, dtype=torch.float64), torch.ones(2), 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_packed_matrices_multiply_as_others(dtype):
    weight, bias = random((24, 40), dtype, 1), random(24, dtype, 2)
    packed = PackedMatrix(weight)
    for rows in (1, 2, 33, 130):
        x = random((rows, 40), dtype)
        torch.testing.assert_close(packed.linear(x, bias), F.linear(x, weight, bias), atol=1e-4, rtol=2e-2)


@pytest.mark.parametrize(
    "name", ["qwen3", *(pytest.param(name, marks=pytest.mark.slow) for name in MODELS if name != "qwen3")]
)
async def test_an_engine_with_kernels_samples_as_one_without(name, tiny, random_decoder, make_engine, tmp_path):
    """Ragged prompts at once, two turns, a shared beginning, an adapter and its base."""
    config = dataclasses.replace(CONFIG, **MODELS[name])
    save_decoder(random_decoder(config, 0.05), tmp_path / "model", tokenizer_from=tiny)
    results = []
    targets = ("q_proj", "o_proj") if config.experts else ("q_proj", "down_proj")
    for used in (True, False):
        engine = make_engine(tmp_path / "model", lora=LoraSettings(rank=2, targets=targets), threads=2)
        engine.decoder.accelerate(loaded() if used else None, packing=used)
        results.append([await replies(engine, weights) for weights in ("current", "base")])
    for with_kernels, without in zip(*results, strict=True):
        for found, expected in zip(with_kernels, without, strict=True):
            assert found.tokens == expected.tokens
            assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-4)


async def replies(engine, weights):
    async def reply(tokens, session):
        request = SampleRequest(
            tokens=tokens, sampling=Sampling(max_tokens=12, seed=5), session=session, weights=WeightsRef(weights)
        )
        return [chunk async for chunk in engine.sampler.sample(request)][-1]

    prompts = [list(range(3, 3 + count)) for count in (1, 5, 40, 90)]
    first = [await reply(prompt, f"{i}") for i, prompt in enumerate(prompts)]
    again = [p + f.tokens + [7, 8] for p, f in zip(prompts, first, strict=True)]
    return first + [await reply(tokens, f"{i}") for i, tokens in enumerate(again)]


# --- where they can't be had ---------------------------------------------------------------------------------------


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """An empty cache folder, and nothing remembered."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(build.SWITCH, raising=False)
    monkeypatch.delenv("CC", raising=False)
    build.kernel_library.cache_clear()
    yield tmp_path
    build.kernel_library.cache_clear()


needs_compiler = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler")


@needs_compiler
@pytest.mark.slow
def test_the_library_is_compiled_once(fresh, monkeypatch):
    assert isinstance(build.kernel_library(), ctypes.CDLL)
    (library,) = (fresh / "cache" / "ludus").iterdir()
    assert stat.S_IMODE(library.parent.stat().st_mode) == 0o700
    build.kernel_library.cache_clear()
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: pytest.fail("compiled again"))
    assert isinstance(build.kernel_library(), ctypes.CDLL)


def test_without_a_compiler_it_is_said_once(fresh, monkeypatch, caplog):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with caplog.at_level(logging.WARNING):
        assert load_kernels(CPU, torch.float32) is None
        assert load_kernels(CPU, torch.float32) is None
    assert len(caplog.records) == 1
    assert "no C compiler" in caplog.text


def test_a_compiler_that_fails_is_quoted(fresh, monkeypatch, caplog):
    compiler = fresh / "broken-cc"
    compiler.write_text("#!/bin/sh\necho 'no such option' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    assert load_kernels(CPU, torch.bfloat16) is None
    assert "no such option" in caplog.text
    assert "LUDUS_KERNELS=off" in caplog.text
    assert not list((fresh / "cache" / "ludus").iterdir())


@needs_compiler
@pytest.mark.slow
def test_a_compiler_without_openmp_does(fresh, monkeypatch):
    compiler = fresh / "plain-cc"
    compiler.write_text('#!/bin/sh\ncase " $* " in *" -fopenmp "*) exit 1;; esac\nexec cc "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    kernels = load_kernels(CPU, torch.float32)
    x = random((9, 30), torch.float32)
    close(kernels.rms_norm(x, x[0], 1e-6), TorchOperators().rms_norm(x, x[0], 1e-6))


def test_it_can_be_switched_off(fresh, monkeypatch, caplog):
    monkeypatch.setenv("LUDUS_KERNELS", "off")
    assert load_kernels(CPU, torch.float32) is None
    assert not caplog.records


@needs_compiler
@pytest.mark.slow
def test_a_cache_that_cannot_be_written_is_no_obstacle(fresh, monkeypatch):
    (fresh / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(fresh / "file"))
    assert isinstance(build.kernel_library(), ctypes.CDLL)


@pytest.mark.slow
@needs_compiler
def test_processes_that_start_at_once_share_one_library(fresh):
    code = "from ludus.engine.torch.build import kernel_library; assert kernel_library() is not None"
    env = {**os.environ, "XDG_CACHE_HOME": str(fresh / "cache")}
    processes = [subprocess.Popen([sys.executable, "-c", code], env=env) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert len(list((fresh / "cache" / "ludus").iterdir())) == 1

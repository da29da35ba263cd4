"""The trainer: splits change nothing, resuming changes no bit, bad gradients leave no trace."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ludus.engine.torch.attention import PackedAttention
from ludus.engine.torch.folder import load_decoder
from ludus.engine.torch.head import head
from ludus.engine.torch.packing import families, micro_batches, predictions
from ludus.errors import ModelFolderError, UnknownName, UsageError
from ludus.protocols import AdamW, Datum, Loss

PPO = Loss("ppo", {"dual_clip": 3.0})


def make_data(count=9, seed=0, vocabulary=366):
    rng = random.Random(seed)
    data = []
    for _ in range(count):
        length = rng.randrange(2, 40)
        weights = [rng.choice([0.0, 0.25, 1.0]) for _ in range(length)]
        data.append(
            Datum(
                tokens_T=[rng.randrange(vocabulary) for _ in range(length)],
                arrays={
                    "weights": weights,
                    "advantages": [rng.gauss(0, 1) for _ in range(length)],
                    "logprobs": [-rng.random() * 6 for _ in range(length)],
                },
                temperature=rng.choice([1.0, 0.7]),
            )
        )
    return data


def gradients(engine):
    return {n: g.clone() for n, g in engine.decoder.flat.views(engine.decoder.flat.gradients_N)}


@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=8))
def test_packed_sequences_do_not_see_each_other(sharp, lengths):
    decoder = load_decoder(sharp)
    sequences = [
        torch.randint(0, 366, (length,), generator=torch.Generator().manual_seed(length)) for length in lengths
    ]
    positions = [torch.arange(length) for length in lengths]
    with torch.no_grad():
        packed = decoder(torch.cat(sequences), torch.cat(positions), PackedAttention(lengths))
        apart = [decoder(s, p, PackedAttention([len(s)])) for s, p in zip(sequences, positions, strict=True)]
    torch.testing.assert_close(packed, torch.cat(apart), atol=1e-4, rtol=1e-4)


async def test_micro_batches_change_nothing(make_engine):
    data = make_data()
    engines = [make_engine(micro_batch_tokens=size) for size in (10_000, 37, 1)]
    results = [await engine.trainer.forward_backward(data, PPO) for engine in engines]
    for engine, result in zip(engines[1:], results[1:], strict=True):
        assert result.loss == pytest.approx(results[0].loss, rel=1e-5)
        assert result.metrics == pytest.approx(results[0].metrics, rel=1e-4)
        np.testing.assert_allclose(result.logprobs, results[0].logprobs, atol=1e-4)
        np.testing.assert_allclose(result.entropies, results[0].entropies, atol=1e-4)
        for (name, one), other in zip(gradients(engines[0]).items(), gradients(engine).values(), strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
async def test_cores_side_by_side_change_nothing_and_add_up_to_the_same_bits(make_engine):
    data = make_data(200)
    alone, *together = (make_engine(threads=threads) for threads in (1, 3, 3))
    expected = await alone.trainer.forward_backward(data, PPO)
    results = [await engine.trainer.forward_backward(data, PPO) for engine in together]
    for _ in range(2):  # gradients of several calls accumulate
        await alone.trainer.forward_backward(data, PPO)
        for engine in together:
            await engine.trainer.forward_backward(data, PPO)
    assert results[0].loss == results[1].loss == pytest.approx(expected.loss, rel=1e-5)
    np.testing.assert_allclose(results[0].logprobs, expected.logprobs, atol=1e-4)
    for name, gradient in gradients(alone).items():
        torch.testing.assert_close(gradients(together[0])[name], gradient, atol=1e-3, rtol=1e-3)
        assert torch.equal(gradients(together[0])[name], gradients(together[1])[name])


def make_families(sizes, seed, vocabulary=366):
    """Datums of which each family shares a prompt; replies of 1 to 6 tokens, with unsampled ones in between."""
    rng = random.Random(seed)
    data = []
    for size in sizes:
        prompt = [rng.randrange(vocabulary) for _ in range(rng.choice([3, 12, 13, 30, 31, 60]))]
        for _ in range(size):
            reply = [rng.randrange(vocabulary) for _ in range(rng.randrange(1, 7))]
            weights = [1.0] + [rng.choice([0.0, 1.0]) for _ in reply[1:]]
            length = len(prompt) + len(reply)
            data.append(
                Datum(
                    tokens_T=prompt + reply,
                    arrays={
                        "weights": [0.0] * len(prompt) + weights,
                        "advantages": [rng.gauss(0, 1)] * length,
                        "logprobs": [-rng.random() * 6 for _ in range(length)],
                    },
                )
            )
    rng.shuffle(data)
    return data


@pytest.mark.parametrize("micro_batch_tokens", [10_000, 64])
@pytest.mark.parametrize("sizes", [[4], [1, 2, 8], [3, 3, 3, 3, 3, 1]])
@pytest.mark.slow
async def test_a_shared_prompt_is_run_once_and_changes_nothing(make_engine, micro_batch_tokens, sizes):
    data = make_families(sizes, seed=len(sizes))
    shared, alone = (make_engine(micro_batch_tokens=size) for size in (micro_batch_tokens, 10_000))
    result = await shared.trainer.forward_backward(data, PPO)
    apart = [await alone.trainer.forward_backward([datum], PPO) for datum in data]
    np.testing.assert_allclose(result.logprobs, np.concatenate([one.logprobs for one in apart]), atol=1e-4)
    np.testing.assert_allclose(result.entropies, np.concatenate([one.entropies for one in apart]), atol=1e-4)
    assert result.loss == pytest.approx(sum(one.loss for one in apart), rel=1e-4, abs=1e-4)
    for name, gradient in gradients(alone).items():
        torch.testing.assert_close(gradients(shared)[name], gradient, atol=1e-4, rtol=1e-3, msg=name)


def test_only_what_is_needed_is_packed():
    data = make_families([8], seed=3)  # a prompt of at least 12 tokens
    wanted = [predictions(datum, weighted=True) for datum in data]
    prompt = wanted[0][0]
    assert prompt >= 12
    (batch,) = micro_batches(data, wanted, families(data, wanted, 10_000), 10_000, torch.device("cpu"))
    assert len(batch.tokens_T) == prompt + sum(positions[-1] - prompt for positions in wanted)
    assert sum(segment.length for segment in batch.segments) == len(batch.tokens_T)
    assert len(batch.targets_P) == sum(map(len, wanted))


@pytest.mark.parametrize("tempered", [False, True])
def test_the_head_in_chunks_changes_nothing(sharp, tempered):
    decoder = load_decoder(sharp)
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(0, decoder.config.vocab_size, (20,), generator=generator)
    temperatures = torch.rand(20, generator=generator) + 0.5 if tempered else None
    outcomes = []
    for max_rows in (20, 7, 1):
        hidden = torch.randn(20, 128, generator=torch.Generator().manual_seed(1)).requires_grad_()
        logprobs, entropies = head(decoder, hidden, targets, temperatures, max_rows)
        gradients = torch.autograd.grad(logprobs.square().sum(), [hidden, decoder.head_weight])
        outcomes.append([logprobs, entropies, *gradients])
    for chunked in outcomes[1:]:
        torch.testing.assert_close(chunked, outcomes[0], atol=1e-4, rtol=1e-4)


async def test_logprobs_and_entropies_are_those_of_the_tempered_softmax(make_engine):
    engine = make_engine()
    data = make_data(3)
    result = await engine.trainer.forward_backward(data, Loss("cross_entropy"))
    logprobs, entropies = [], []
    for datum in data:
        tokens = torch.tensor(datum.tokens_T)
        with torch.no_grad():
            hidden = engine.decoder(tokens, torch.arange(len(tokens)), PackedAttention([len(tokens)]))
            rows = (engine.decoder.logits(hidden) / datum.temperature).log_softmax(-1)
        for t in range(1, len(tokens)):
            if datum.arrays["weights"][t]:
                logprobs.append(rows[t - 1, tokens[t]].item())
                entropies.append(-(rows[t - 1].exp() * rows[t - 1]).sum().item())
    np.testing.assert_allclose(result.logprobs, logprobs, atol=1e-4)
    np.testing.assert_allclose(result.entropies, entropies, atol=1e-4)


async def test_resuming_changes_no_bit(make_engine, tmp_path):
    straight, stopped, resumed = make_engine(), make_engine(), make_engine()

    async def step(engine, number):
        await engine.trainer.forward_backward(make_data(seed=number), PPO)
        return await engine.trainer.optim_step(AdamW(lr=1e-3, weight_decay=0.1))

    expected = [await step(straight, number) for number in range(3)]
    await step(stopped, 0)
    saved = await stopped.trainer.save(tmp_path / "state")
    assert saved.weights_hash == await stopped.trainer.weights_hash()
    await resumed.trainer.load(tmp_path / "state")
    assert [await step(resumed, number) for number in (1, 2)] == expected[1:]
    assert await resumed.trainer.weights_hash() == await straight.trainer.weights_hash()
    assert torch.equal(resumed.decoder.flat.values_N, straight.decoder.flat.values_N)


async def test_a_state_before_the_first_step_can_be_resumed(make_engine, tmp_path):
    first, second = make_engine(), make_engine()
    await first.trainer.save(tmp_path)
    await second.trainer.load(tmp_path)
    for engine in (first, second):
        await engine.trainer.forward_backward(make_data(), PPO)
        await engine.trainer.optim_step(AdamW(lr=1e-3))
    assert await first.trainer.weights_hash() == await second.trainer.weights_hash()


async def test_damaged_states_are_refused(make_engine, tmp_path):
    engine = make_engine()
    with pytest.raises(ModelFolderError, match=r"model\.safetensors is missing"):
        await engine.trainer.load(tmp_path)
    await engine.trainer.forward_backward(make_data(), PPO)
    await engine.trainer.optim_step(AdamW(lr=1e-3))
    await engine.trainer.save(tmp_path)
    (tmp_path / "optimizer.json").write_text(json.dumps({"steps": "many"}))
    with pytest.raises(ModelFolderError, match="a whole number under 'steps', got 'many'"):
        await engine.trainer.load(tmp_path)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
async def test_bad_losses_leave_weights_and_moments(make_engine, tmp_path, bad):
    engine = make_engine()
    await engine.trainer.forward_backward(make_data(), PPO)
    await engine.trainer.optim_step(AdamW(lr=1e-3))
    await engine.trainer.save(tmp_path / "before")
    poisoned = make_data()
    poisoned[0].arrays["weights"] = [bad] * len(poisoned[0].tokens_T)
    await engine.trainer.forward_backward(poisoned, PPO)
    step = await engine.trainer.optim_step(AdamW(lr=1e-3))
    assert (step["skipped"], step["update_norm_ratio"]) == (1.0, 0.0)
    await engine.trainer.save(tmp_path / "after")
    for name in ("model.safetensors", "optimizer.safetensors", "optimizer.json"):
        assert (tmp_path / "before" / name).read_bytes() == (tmp_path / "after" / name).read_bytes()


async def test_the_update_norm_is_that_of_the_change(make_engine):
    engine = make_engine()
    for number in range(3):
        await engine.trainer.forward_backward(make_data(seed=number), PPO)
        before = engine.decoder.flat.values_N.clone()
        step = await engine.trainer.optim_step(AdamW(lr=1e-3, weight_decay=0.1, max_grad_norm=0.5))
        after = engine.decoder.flat.values_N
        expected = (after - before).norm() / before.norm()
        assert step["update_norm_ratio"] == pytest.approx(expected.item(), rel=1e-2)


async def test_clipping_bounds_the_gradient(make_engine):
    """One step of plain SGD would tell directly; AdamW's first moment after one step is (1 - beta1) * gradient."""
    engine = make_engine()
    await engine.trainer.forward_backward(make_data(), PPO)
    norm = engine.decoder.flat.gradients_N.norm().item()
    step = await engine.trainer.optim_step(AdamW(lr=0.0, max_grad_norm=norm / 4))
    assert step["grad_norm"] == pytest.approx(norm, rel=1e-5)
    state = next(iter(engine.trainer._moments()._optimizer.state.values()))
    assert state["exp_avg"].norm().item() == pytest.approx(0.1 * norm / 4, rel=1e-4)


async def test_steps_equal_torchs_adamw_parameter_by_parameter(make_engine, sharp):
    engine, reference = make_engine(), load_decoder(sharp)
    reference.flat.zero_gradients()
    optimizer = torch.optim.AdamW(reference.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.01)
    for number in range(2):
        data = make_data(seed=number)
        await engine.trainer.forward_backward(data, Loss("cross_entropy"))
        for name, parameter in reference.named_parameters():
            parameter.grad.copy_(gradients(engine)[name])
        await engine.trainer.optim_step(AdamW(lr=1e-3, weight_decay=0.01, max_grad_norm=1e9))
        optimizer.step()
    for (name, ours), theirs in zip(engine.decoder.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


async def test_mistakes_are_named_and_leave_no_gradient(make_engine):
    engine = make_engine()
    tokens = [1, 2, 3]
    cases = [
        (Datum(tokens_T=tokens, arrays={"weights": [1.0] * 2}), "array 'weights' has 2 entries for 3 tokens"),
        (Datum(tokens_T=tokens, arrays={"weights": [1.0] * 3}), "the loss 'ppo' needs the array 'advantages'"),
        (Datum(tokens_T=tokens, arrays={"advantages": [1.0] * 3}), "needs the array 'weights'"),
        (Datum(tokens_T=[], arrays={"weights": []}), "0 tokens; expected 1 to 1024"),
        (Datum(tokens_T=[1, 10**6], arrays={"weights": [1.0] * 2}), r"outside of \[0, "),
        (Datum(tokens_T=tokens, arrays={"weights": [1.0] * 3}, temperature=-1), "temperature must be >= 0"),
    ]
    for datum, text in cases:
        with pytest.raises(UsageError, match=text):
            await engine.trainer.forward_backward([datum], PPO)
    with pytest.raises(UnknownName, match="unknown loss 'pppo'; did you mean 'ppo'"):
        await engine.trainer.forward_backward(make_data(), Loss("pppo"))
    assert (await engine.trainer.optim_step(AdamW(lr=1e-3)))["grad_norm"] == 0.0


async def test_training_while_sampling_takes_turns(make_engine):
    """A step between two turns of a batch: the trained weights are the ones sampled from, without a copy."""
    engine = make_engine()
    decoder = engine.decoder
    fused = decoder.model.layers[0].self_attn.qkv._weight
    await engine.trainer.forward_backward(make_data(), PPO)
    await engine.trainer.optim_step(AdamW(lr=1e-2))
    attention = decoder.model.layers[0].self_attn
    joined = torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight])
    assert torch.equal(fused, joined)

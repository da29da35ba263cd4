"""The arithmetic of memory against what is really allocated."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ludus.engine.torch.attention import Segment, attention_over
from ludus.engine.torch.config import DecoderConfig, Experts
from ludus.engine.torch.decoder import Decoder
from ludus.engine.torch.lora import Adapter, LoraSettings
from ludus.engine.torch.memory import active_parameters, memory, num_adapter_parameters, num_parameters

CONFIG = DecoderConfig(
    model_type="qwen3", vocab_size=300, hidden_size=128, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, head_dim=32, intermediate_size=384, max_position_embeddings=512, tie_word_embeddings=True,
)  # fmt: skip
SHAPES = {
    "qwen3": {},
    "qwen2": {"model_type": "qwen2", "qkv_bias": True, "tie_word_embeddings": False, "intermediate_size": 640},
    "llama": {"model_type": "llama", "hidden_size": 192, "num_attention_heads": 6, "mlp_bias": True},
    "experts": {"model_type": "qwen3_moe", "experts": Experts(6, 2, 48, True, (0, 2))},
}
LORA = LoraSettings(rank=8)
TOKENS = 400


@pytest.fixture(params=SHAPES)
def config(request):
    return dataclasses.replace(CONFIG, **SHAPES[request.param])


def kept_bytes(decoder, dtype, recompute):
    """What autograd holds after a forward, each storage once, the parameters apart."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in decoder.parameters()}
    kept = []

    def keep(tensor):
        kept.append(tensor)
        return tensor

    tokens = torch.randint(0, 300, (TOKENS,))
    attention = attention_over([Segment(0, 150), Segment(150, 250)])
    positions = torch.cat([torch.arange(150), torch.arange(250)])
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        decoder(tokens, positions, attention, recompute=recompute)
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in kept}
    return sum(size for pointer, size in storages.items() if pointer not in parameters)


def test_parameters_are_counted_exactly(config):
    decoder = Decoder(config)
    assert num_parameters(config) == sum(parameter.numel() for parameter in decoder.parameters())
    targets = LORA if config.experts is None else LoraSettings(rank=8, targets=("q_proj", "v_proj"))
    adapter = Adapter(decoder, targets)
    assert num_adapter_parameters(config, targets) == sum(p.numel() for p in adapter.root.parameters())
    if config.experts is None:
        matrices = [p for n, p in decoder.named_parameters() if p.ndim == 2 and "embed" not in n and "lm_head" not in n]
        assert active_parameters(config) == sum(p.numel() for p in matrices) + config.vocab_size * config.hidden_size


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("recompute", [False, True])
def test_activations_are_about_what_is_kept(config, dtype, recompute):
    decoder = Decoder(config, dtype=dtype)
    expected = memory(
        config, dtype, training=True, lora=None, micro_batch_tokens=TOKENS, recompute=recompute, head_elements=1
    ).activations
    found = kept_bytes(decoder, dtype, recompute)
    if recompute:  # of which one layer at a time is there again in the backward
        assert found < expected
    else:
        assert 0.7 < found / expected < 1.3


def test_what_a_choice_saves():
    def total(dtype=torch.bfloat16, lora=None, recompute=False, training=True):
        big = dataclasses.replace(CONFIG, hidden_size=1024, num_hidden_layers=24, intermediate_size=3072)
        return memory(
            big,
            dtype,
            training=training,
            lora=lora,
            micro_batch_tokens=4096,
            recompute=recompute,
            head_elements=1 << 26,
        )

    assert total(lora=LORA, recompute=True).total < total(lora=LORA).total < total().total
    assert total().masters == 4 * total().weights / 2
    assert total(lora=LORA).masters == 0
    assert set(total(training=False).parts()) == {"weights", "head"}

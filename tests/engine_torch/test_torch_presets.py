"""The presets: seeded weights, a tokenizer that loses nothing, a chat template that only ever extends."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from ludus.engine.torch.files import tensors_hash
from ludus.engine.torch.folder import load_decoder
from ludus.engine.torch.presets import EMBEDDING_STD, init_model
from ludus.engine.torch.tokenizer import build_tokenizer
from ludus.errors import UnknownName

TOOLS = [{"type": "function", "function": {"name": "add", "description": "é", "parameters": {"type": "object"}}}]
CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": 2}}}
CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "1 + 2?"},
    {"role": "assistant", "content": "", "reasoning_content": "A sum.", "tool_calls": [CALL]},
    {"role": "tool", "content": "3"},
    {"role": "assistant", "content": "3"},
    {"role": "user", "content": [{"type": "text", "text": "Sure?"}]},
    {"role": "assistant", "content": "Yes.", "reasoning_content": "Certain."},
]


@pytest.fixture(scope="module")
def tokenizer(tiny):
    return AutoTokenizer.from_pretrained(tiny)


def test_seeds_decide_the_weights(tiny, tmp_path):
    init_model(tmp_path / "same", "tiny", seed=0)
    init_model(tmp_path / "other", "tiny", seed=1)
    hashes = [
        tensors_hash(load_decoder(folder).named_parameters())
        for folder in (tiny, tmp_path / "same", tmp_path / "other")
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_sizes_and_scales(tiny, tmp_path):
    decoder = load_decoder(tiny)
    layer, layers = decoder.model.layers[0], decoder.config.num_hidden_layers
    assert layer.self_attn.q_proj.weight.std().item() == pytest.approx(decoder.config.hidden_size**-0.5, rel=0.05)
    residual = (2 * layers * decoder.config.intermediate_size) ** -0.5
    assert layer.mlp.down_proj.weight.std().item() == pytest.approx(residual, rel=0.05)
    assert decoder.model.embed_tokens.weight.std().item() == pytest.approx(EMBEDDING_STD, rel=0.05)
    assert torch.equal(decoder.model.norm.weight, torch.ones(decoder.config.hidden_size))
    init_model(tmp_path, "small")
    sizes = [sum(p.numel() for p in model.parameters()) for model in (decoder, load_decoder(tmp_path))]
    assert sizes[0] < sizes[1] < 1e6
    with pytest.raises(UnknownName, match="did you mean 'tiny'"):
        init_model(tmp_path, "tinny")


def test_special_tokens_are_known_to_transformers(tokenizer):
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|end|>", "<|pad|>")
    assert len(tokenizer) == build_tokenizer().get_vocab_size()
    ids = tokenizer.encode("<|user|><think>a</think><tool_call>{}</tool_call><|end|>")
    assert len(ids) == 9
    assert tokenizer.decode(ids) == "<|user|><think>a</think><tool_call>{}</tool_call><|end|>"
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<think>a</think><tool_call>{}</tool_call>"


def test_numbers_are_cut_in_twos_from_the_left(tokenizer):
    assert tokenizer.tokenize("12345+007") == ["12", "34", "5", "+", "00", "7"]


@settings(max_examples=100, deadline=None)
@given(text=st.text())
def test_any_text_survives(text):
    tokenizer = build_tokenizer()
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_template_golden(tokenizer):
    text = tokenizer.apply_chat_template(CONVERSATION, tools=TOOLS, tokenize=False)
    assert text == (
        "<|system|>Be brief.\n\n# Tools\nCall a tool with "
        '<tool_call>{"name": ..., "arguments": {...}}</tool_call>. The tools are:\n'
        '{"type": "function", "function": {"name": "add", "description": "é", "parameters": {"type": "object"}}}<|end|>'
        "<|user|>1 + 2?<|end|>"
        '<|assistant|><think>A sum.</think><tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call><|end|>'
        "<|tool|>3<|end|><|assistant|>3<|end|><|user|>Sure?<|end|>"
        "<|assistant|><think>Certain.</think>Yes.<|end|>"
    )


def test_arguments_may_be_json_text(tokenizer):
    call = {**CALL, "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}
    messages = [*CONVERSATION[:2], {**CONVERSATION[2], "tool_calls": [call]}]
    expected = tokenizer.apply_chat_template(CONVERSATION[:3], tokenize=False)
    assert tokenizer.apply_chat_template(messages, tokenize=False) == expected


def test_tools_without_a_system_message(tokenizer):
    text = tokenizer.apply_chat_template(CONVERSATION[1:2], tools=TOOLS, tokenize=False, add_generation_prompt=True)
    assert text.startswith("<|system|># Tools\n")
    assert text.endswith("<|user|>1 + 2?<|end|><|assistant|>")
    assert tokenizer.apply_chat_template(CONVERSATION[1:2], tokenize=False) == "<|user|>1 + 2?<|end|>"


def test_old_thinking_goes_when_asked(tokenizer):
    text = tokenizer.apply_chat_template(CONVERSATION, tokenize=False, keep_thinking=False)
    assert "A sum." not in text
    assert "<think>Certain.</think>" in text


def test_longer_conversations_extend_shorter_ones(tokenizer):
    def ids(messages, **options):
        return tokenizer.apply_chat_template(messages, tools=TOOLS, return_dict=False, **options)

    whole = ids(CONVERSATION)
    for end in range(1, len(CONVERSATION) + 1):
        shorter = ids(CONVERSATION[:end])
        assert whole[: len(shorter)] == shorter
        if end < len(CONVERSATION) and CONVERSATION[end]["role"] == "assistant":
            prompt = ids(CONVERSATION[:end], add_generation_prompt=True)
            assert whole[: len(prompt)] == prompt

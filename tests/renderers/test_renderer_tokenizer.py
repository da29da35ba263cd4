"""Tokenizers: exact text in, exact text out, and clear errors for broken folders."""

import json

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from ludus.errors import ModelFolderError
from ludus.renderers.tokenizer import ByteTokenizer, HFTokenizer

SPECIAL = ["<|end|>", "<|end|>x", "<think>"]


def save_tokenizer(folder, **config):
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=["<|end|>", "<s>"], show_progress=False
    )
    tokenizer.train_from_iterator(["the cat and the hat", "the bat and the rat"], trainer)
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.enable_truncation(4)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def ids_of_all(folder):
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab().values()


@given(st.text(st.characters(codec="utf-8")))
@settings(max_examples=50, deadline=None)
def test_bytes_round_trip(text):
    tokenizer = ByteTokenizer(SPECIAL)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.lists(st.integers(0, 300)))
@settings(max_examples=50, deadline=None)
def test_any_ids_decode(ids):
    assert isinstance(ByteTokenizer(SPECIAL).decode(ids), str)


def test_the_longest_special_token_wins():
    tokenizer = ByteTokenizer(SPECIAL, eos_token="<|end|>")
    assert tokenizer.encode("<|end|>xa<|end|>") == [257, 97, 256]
    assert tokenizer.eos_token_ids == (256,)
    assert tokenizer.vocab_size == 259


def test_eos_must_be_a_special_token():
    with pytest.raises(ValueError, match="'</s>' is not one of the special tokens"):
        ByteTokenizer(SPECIAL, eos_token="</s>")


def test_lone_surrogates_do_not_break_a_tokenizer(tmp_path):
    save_tokenizer(tmp_path)
    for tokenizer in (ByteTokenizer(), HFTokenizer(tmp_path)):
        assert tokenizer.decode(tokenizer.encode("a\ud800é")) == "a?é"


def test_nothing_is_added_or_cut_from_a_saved_tokenizer(tmp_path):
    save_tokenizer(tmp_path, eos_token={"content": "<|end|>", "lstrip": False})
    tokenizer = HFTokenizer(tmp_path)
    text = "the cat and the hat é<|end|>"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert ids[-1] == 0
    assert 1 not in ids
    assert tokenizer.eos_token_ids == (0,)
    assert tokenizer.special_ids == {0, 1}
    assert tokenizer.vocab_size == max(ids_of_all(tmp_path)) + 1


def test_generation_config_lists_stop_tokens(tmp_path):
    save_tokenizer(tmp_path, eos_token="<|end|>")
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [1, 0]}')
    assert HFTokenizer(tmp_path).eos_token_ids == (1, 0)


@pytest.mark.parametrize(
    ("file", "text", "match"),
    [
        ("tokenizer.json", "{}", "tokenizer.json: not a tokenizer"),
        ("tokenizer_config.json", "not json", "tokenizer_config.json: expected a JSON object"),
        ("tokenizer_config.json", "[1]", "expected a JSON object, got list"),
        ("tokenizer_config.json", '{"eos_token": "</s>"}', "eos_token is '</s>', which tokenizer.json does not have"),
        ("generation_config.json", '{"eos_token_id": "x"}', "expected eos_token_id to be an id or a list of ids"),
    ],
)
def test_broken_folders_are_named(tmp_path, file, text, match):
    save_tokenizer(tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(ModelFolderError, match=match):
        HFTokenizer(tmp_path)


def test_an_empty_folder(tmp_path):
    with pytest.raises(ModelFolderError, match=r"tokenizer\.json: no such file"):
        HFTokenizer(tmp_path)

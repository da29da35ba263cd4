"""Names and ids: enough of them, and of words that a small model reads as one token each."""

import random
from importlib.resources import files

import pytest

from ludus.environments.search.encyclopedia import Encyclopedia
from ludus.environments.search.names import LABELS, WORDS, Names, is_trained, plain_ids

TEXTS = files("ludus.environments.search")


def test_every_terse_encyclopedia_of_the_recipe_can_be_made():
    """Of the few names that are kept for tests, some beginnings have none left."""
    for number in range(120):
        assert len(Encyclopedia("test", number, 30, 2, True).things) == 30


def test_plain_ids_are_one_token_each_and_stand_in_no_plain_text():
    tokenizer = pytest.importorskip("ludus.engine.torch.tokenizer").build_tokenizer()
    assert all(len(tokenizer.encode(f" {label}").ids) == 1 for label in LABELS)
    words = {
        word for file in ("mail_terse.toml", "wiki_terse.toml") for word in TEXTS.joinpath(file).read_text().split()
    }
    assert not {*LABELS} & ({*WORDS} | {word.strip('",') for word in words})


def test_there_are_ids_for_as_many_as_there_may_be():
    assert all(len(set(plain_ids(number))) >= number for number in (1, 60, len(LABELS), len(LABELS) + 1, 1000))


@pytest.mark.slow
def test_names_are_drawn_until_nearly_all_are_taken():
    names = Names(random.Random(0), "test", plain=True)
    drawn = [names.draw() for _ in range(300)]
    assert len({*drawn}) == 300 and not any(map(is_trained, drawn))
    with pytest.raises(ValueError, match="so many names"):
        [names.draw() for _ in range(300)]

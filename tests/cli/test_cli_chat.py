import asyncio
import io
import sys

import pytest

from ludus.cli.chat import Talk, _converse
from ludus.engine.fake import FakeEngine, fake_renderer
from ludus.errors import ModelCallFailed
from ludus.recording.backend import TokenBackend
from ludus.types import Sampling


def talk(script, system="", **options):
    backend = TokenBackend("fake", FakeEngine(script, **options), fake_renderer())
    return Talk(backend, Sampling(max_tokens=200), system)


def say(conversation, monkeypatch, text):
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    with asyncio.Runner() as runner:
        _converse(conversation, runner, interactive=False)


def test_every_line_is_answered_in_one_conversation(monkeypatch, capsys):
    conversation = talk(
        lambda prompt, rng: f"{prompt.count('<|user|>')}{'s' if '<|system|>be kind' in prompt else ''}", "be kind"
    )
    say(conversation, monkeypatch, "a\n\nb\n/reset\nc\n")
    assert capsys.readouterr().out == "1s\n2s\n1s\n"


def test_a_conversation_is_one_sequence_of_tokens(monkeypatch, capsys):
    conversation = talk(lambda prompt, rng: "yes")
    say(conversation, monkeypatch, "a\nb\n")
    assert len(conversation._recorder.sequences) == 1


def test_what_the_model_says_can_not_write_on_the_terminal(monkeypatch, capsys):
    say(talk(lambda prompt, rng: "\x1b[2Jhi\x07"), monkeypatch, "a\n")
    out = capsys.readouterr().out
    assert "hi" in out and not {"\x1b", "\x07"} & set(out)


def test_a_conversation_that_is_too_long_is_an_error_where_nobody_can_answer(monkeypatch):
    conversation = talk(lambda prompt, rng: "x" * 30, context=64)
    with pytest.raises(ModelCallFailed, match="no room"):
        say(conversation, monkeypatch, "a" * 80)
    assert conversation._messages == []

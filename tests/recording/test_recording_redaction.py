"""A key is planted wherever one may be, and then looked for wherever anything is written."""

import logging

import pytest

import ludus
from ludus.engine.fake import FakeEngine, fake_renderer
from ludus.errors import ModelCallFailed
from ludus.recording.backend import TokenBackend
from ludus.recording.remote import RemoteBackend
from ludus.redaction import HIDDEN, SECRETS, Secrets

KEYS = {
    "BACKEND": "sk-backend-0123456789",
    "TOOL": "sk-tool-0123456789",
    "OPTION": "sk-option-0123456789",
    "HEADER": "sk-header-0123456789",
}


class Leaky(ludus.Environment):
    """Everything about it says its keys."""

    max_turns = 2

    def __init__(self, api_key: str = "") -> None:
        self.api_key = api_key

    def tasks(self, split):
        return [ludus.Task(prompt="go")]

    @ludus.tool
    def environment(self, ctx) -> str:
        """Print the environment."""
        import os

        return f"TOOL_API_KEY={os.environ['TOOL_API_KEY']} mine={self.api_key} model={ctx.model.api_key}"

    @ludus.reward
    def fine(self, rollout):
        logging.getLogger("ludus").warning("scored with %s", self.api_key)
        return 1.0


class Raises(Leaky):
    """Its exception says it too."""

    async def run(self, ctx):
        await ctx.model.chat([ludus.types.user("go")])
        raise RuntimeError(f"403 for {self.api_key} and {ctx.model.api_key}, header {KEYS['HEADER']}")


def assert_clean(*texts: str) -> None:
    for text in texts:
        for key in KEYS.values():
            assert key not in text


@pytest.fixture
def planted(monkeypatch):
    for name in ("TOOL", "HEADER"):
        monkeypatch.setenv(f"{name}_API_KEY", KEYS[name])


def policy(prompt: str, rng) -> str:
    return "done" if "<|tool|>" in prompt else '<tool_call>{"name": "environment", "arguments": {}}</tool_call>'


@pytest.mark.parametrize("env", [Leaky, Raises])
def test_no_key_is_in_a_run_folder_or_its_output(planted, tmp_path, capsys, env):
    seen = []
    engine = FakeEngine(lambda prompt, rng: (seen.append(prompt), policy(prompt, rng))[1])
    backend = TokenBackend("fake", engine, fake_renderer())
    run = tmp_path / "run"
    ludus.evaluate(env(api_key=KEYS["OPTION"]), backend, num_tasks=1, out=run)
    written = [path.read_bytes().decode(errors="replace") for path in run.rglob("*") if path.is_file()]
    assert len(written) > 2
    assert_clean(*written, *seen, *capsys.readouterr())
    assert any(HIDDEN in text for text in written)
    assert not any("ludus-" in prompt for prompt in seen)


async def test_a_server_that_quotes_the_key(caplog):
    """Its refusal is shown without it."""
    from openai import AsyncOpenAI

    class Quotes:
        name = "quotes"

        async def complete(self, messages, tools, sampling):
            raise ModelCallFailed(f"bad key {KEYS['BACKEND']}")

    SECRETS.add(KEYS["BACKEND"])
    backend = RemoteBackend("m", "http://127.0.0.1:1/v1", KEYS["BACKEND"], max_retries=0)
    with pytest.raises(ModelCallFailed) as failed:
        await backend.complete([{"role": "user", "content": "x"}], [], ludus.types.Sampling())
    assert_clean(str(failed.value), repr(failed.value.__cause__), caplog.text)
    await backend.close()
    from speaking import rollout

    async with (
        rollout(backend=Quotes()) as model,
        AsyncOpenAI(base_url=model.base_url, api_key=model.api_key, max_retries=0) as client,
    ):
        with pytest.raises(Exception, match="bad key") as failed:
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
        assert_clean(str(failed.value))


def test_what_is_taken_for_a_secret():
    secrets = Secrets()
    secrets.learn(
        {
            "A_KEY": "0123456789abc",
            "B_TOKEN": "short1",
            "C_PASSWORD": "only words here 1",
            "KEYBOARD": "0123456789xyz",
            "SSL_KEY": "/etc/ssl/0123456789",
            "D_SECRET": "nodigitsinhere",
            "E_KEY": 3,
            "URL_KEY": "https://x/0123456",
        }
    )
    text = "0123456789abc short1 0123456789xyz /etc/ssl/0123456789 nodigitsinhere"
    assert secrets.hide(text) == text.replace("0123456789abc", HIDDEN)
    assert secrets.hide({"a": [1, None, "x"]}) == {"a": [1, None, "x"]}


def test_options_are_named_more_exactly():
    secrets = Secrets()
    secrets.learn({"answer_key": "a0b1c2d3e4f5", "eos_token": "<|end_of_text_1|>", "token": "t0b1c2d3e4f5"})
    assert secrets.hide("a0b1c2d3e4f5 <|end_of_text_1|> t0b1c2d3e4f5") == f"a0b1c2d3e4f5 <|end_of_text_1|> {HIDDEN}"


def test_what_has_no_secret_is_not_copied():
    secrets, value = Secrets(), {"a": ["b", {"c": 1}]}
    secrets.add("0123456789abc")
    assert secrets.hide(value) is value
    assert secrets.hide({"a": ["b 0123456789abc", {"c": 1}]}) == {"a": [f"b {HIDDEN}", {"c": 1}]}
    assert secrets.found_in(b'{"a": "0123456789abc"}') and not secrets.found_in(b'{"a": "b"}')


def test_a_secret_inside_another_does_not_leave_its_rest():
    secrets = Secrets()
    secrets.add("abcdef", "abcdef-ghijkl")
    assert secrets.hide("abcdef-ghijkl abcdef") == f"{HIDDEN} {HIDDEN}"

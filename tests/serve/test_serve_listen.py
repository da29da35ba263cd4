import os
import re
import signal
import subprocess
import sys

import openai
import pytest

from ludus.errors import UsageError
from ludus.serve.listen import address, listen


def test_it_listens_on_loopback_and_says_where():
    with listen("127.0.0.1", 0) as bound:
        assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d*", address(bound))


def test_a_port_that_is_taken_is_refused():
    with listen("127.0.0.1", 0) as bound, pytest.raises(UsageError, match=r"choose another --host or --port"):
        listen("127.0.0.1", bound.getsockname()[1])


@pytest.mark.slow
def test_a_trained_model_is_served_on_a_socket(tmp_path):
    from ludus.engine.torch.presets import init_model

    init_model(tmp_path / "tiny")
    command = [sys.executable, "-m", "ludus", "serve", str(tmp_path / "tiny"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ) as server:
        try:
            line = server.stdout.readline()
            url = re.search(r"http://127\.0\.0\.1:\d+/v1", line)
            assert url, line
            with openai.OpenAI(base_url=url[0], api_key="none", max_retries=0, timeout=60) as api:
                name = api.models.list().data[0].id
                messages = [{"role": "user", "content": "1 to 9"}]
                chat = api.chat.completions.create(model=name, messages=messages, max_tokens=8)
                assert chat.usage.completion_tokens >= 1
                stream = api.completions.create(model=name, prompt="1 to 9", max_tokens=8, stream=True)
                assert [chunk.choices[0].finish_reason for chunk in stream][-1] in ("length", "stop")
                with pytest.raises(openai.BadRequestError, match="token ids"):
                    api.completions.create(model=name, prompt=[10**6])
        finally:
            server.send_signal(signal.SIGINT)
        assert server.wait(timeout=60) == 0
        assert "Traceback" not in server.stderr.read()

import json
import os
import re
import signal
import subprocess
import sys

import pytest


@pytest.mark.parametrize("protocol", ["openenv", pytest.param("ors", marks=pytest.mark.slow)])
def test_an_environment_is_served_until_it_is_interrupted(protocol):
    pytest.importorskip("websockets")
    httpx2 = pytest.importorskip("httpx2")
    command = [sys.executable, "-m", "ludus", "env", "serve", "guess", "--protocol", protocol, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ) as server:
        try:
            line = server.stdout.readline()
            url = re.search(r"http://127\.0\.0\.1:\d+", line)
            assert url, line + server.stderr.read()
            assert httpx2.get(f"{url[0]}/health", trust_env=False).status_code == 200
            if protocol == "openenv":
                from websockets.sync.client import connect

                with connect(url[0].replace("http", "ws") + "/ws", proxy=None) as socket:
                    socket.send('{"type": "reset", "data": {"seed": 1}}')
                    assert re.search(
                        r"\d+ to \d+", json.loads(socket.recv())["data"]["observation"]["messages"][0]["content"]
                    )
        finally:
            server.send_signal(signal.SIGINT)
        assert server.wait(timeout=60) == 0
        assert server.stdout.read().strip() == "stopped"
        assert "Traceback" not in server.stderr.read()


def test_what_cannot_be_served_is_said(ludus):
    assert "did you mean 'guess'" in ludus("env", "serve", "gues", code=2).stderr
    assert (
        "unknown split of guess 'trian'"
        in ludus("env", "serve", "guess", "--split", "trian", "--port", 0, code=2).stderr
    )
    assert "is not one of 'openenv', 'ors'" in ludus("env", "serve", "guess", "--protocol", "rest", code=2).stderr

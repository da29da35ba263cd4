"""An environment is served from a thread, and what can't be is said where that was asked for."""

import threading

import httpx2
import pytest
from served_worlds import Echo

from ludus.errors import UnknownName
from ludus.serve.environment import served


class Closed(Echo):
    """Can't be opened."""

    async def open(self):
        raise OSError("the port is taken")


@pytest.mark.parametrize(("protocol", "status"), [("openenv", "healthy"), ("ors", "ok")])
def test_served_for_as_long_as_it_is_wanted(protocol, status):
    pytest.importorskip("websockets")
    with served(Echo(), protocol) as url:
        assert httpx2.get(f"{url}/health", trust_env=False).json() == {"status": status}
        assert httpx2.get(f"{url}/echo/splits", trust_env=False).json()[1] == {"name": "test", "type": "test"}
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{url}/health", trust_env=False)
    assert not any(thread.name == "ludus-serve" for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("env", "options", "why"),
    [
        (Echo(), {"protocol": "opnenv"}, "did you mean 'openenv'"),
        (Echo(), {"protocol": "ors", "split": "tset"}, "did you mean 'test'"),
        (Closed(), {"protocol": "ors"}, "the port is taken"),
    ],
)
def test_what_cannot_be_served_is_raised_at_once(env, options, why):
    with pytest.raises((UnknownName, OSError), match=why), served(env, **options):
        pass
    assert not any(thread.name == "ludus-serve" for thread in threading.enumerate())

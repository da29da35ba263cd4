"""What is said where a package of games is not installed."""

import sys

import pytest

from ludus.environments.gymnasium import Gymnasium
from ludus.environments.textarena import TextArena
from ludus.errors import MissingExtra


@pytest.mark.parametrize(
    ("kind", "name", "modules"),
    [
        (TextArena, "textarena", ("textarena", "textarena.envs", "textarena.envs.registration")),
        (Gymnasium, "gymnasium", ("gymnasium",)),
    ],
)
def test_the_command_that_installs_it_is_named(monkeypatch, kind, name, modules):
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"(?i)^for .*{name}.*, install .*pip install 'ludus-rl\[{name}\]'$"):
        kind("TicTacToe-v0")

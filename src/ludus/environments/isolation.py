"""Other people's code, many pieces of it side by side, without what it does to the whole process.

It calls `random.shuffle` and seeds `random` for everybody, so that two games change each other's luck, and it prints into
what a command prints. In the modules of an isolated package the names `random` and `numpy` stand for whichever stream is
`drawn_from` at the moment, in this thread or coroutine, and for the real modules at any other time; `print` writes to the
log. A lock around a saved and restored global state would be simpler, but one game that hangs would hold up all others.

Not reached: what a function imports while it runs, and the order of sets of strings, which differs between processes.
"""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from types import ModuleType
from typing import Any
from weakref import WeakSet

log = logging.getLogger(__name__)


class Streams:
    """What one game draws from.

    Args:
        seed: equal seeds give equal numbers.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.python = random.Random(seed)

    @cached_property
    def numpy(self) -> Any:
        """Numpy's older generator, whose methods are the functions of `numpy.random`."""
        import numpy as np

        return np.random.RandomState(self._seed % 2**32)


_current: ContextVar[Streams | None] = ContextVar("streams", default=None)
_done: WeakSet[ModuleType] = WeakSet()


@contextmanager
def drawn_from(streams: Streams) -> Iterator[None]:
    """Let isolated packages draw from these streams inside the block."""
    token = _current.set(streams)
    try:
        yield
    finally:
        _current.reset(token)


def isolate(package: str) -> None:
    """Let the loaded modules of a package draw from the current streams, and print into the log; to be called again when
    more are loaded."""
    for name, module in list(sys.modules.items()):
        if (name == package or name.startswith(f"{package}.")) and module not in _done:
            _isolate_module(module)
            _done.add(module)


class _StandIn:
    """A module of random functions, as whoever runs at the moment sees it."""

    def __init__(self, module: ModuleType, pick: Callable[[Streams], Any]) -> None:
        self._module, self._pick = module, pick

    def __getattr__(self, name: str) -> Any:
        streams = _current.get()
        own = self._module if streams is None else self._pick(streams)
        return getattr(own if hasattr(own, name) else self._module, name)


class _NumpyRandom(_StandIn):
    def __init__(self, module: ModuleType) -> None:
        super().__init__(module, lambda streams: streams.numpy)

    def default_rng(self, seed: Any = None) -> Any:
        """A new generator; without a seed it would draw one from the operating system."""
        streams = _current.get()
        if seed is None and streams is not None:
            seed = streams.numpy.randint(2**31)
        return self._module.default_rng(seed)


class _Numpy:
    """Numpy with another `random`."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self.random = _NumpyRandom(module.random)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


_PYTHON = _StandIn(random, lambda streams: streams.python)
_GLOBAL = random.shuffle.__self__  # type: ignore[attr-defined] # the generator behind the functions of `random`


def _isolate_module(module: ModuleType) -> None:
    module.print = _print  # type: ignore[attr-defined] # before the built-in one
    numpy = sys.modules.get("numpy")
    for name, value in list(vars(module).items()):
        if value is random:
            setattr(module, name, _PYTHON)
        elif numpy is not None and value is numpy:
            setattr(module, name, _Numpy(numpy))
        elif numpy is not None and value is numpy.random:
            setattr(module, name, _NumpyRandom(value))
        elif getattr(value, "__self__", None) is _GLOBAL:  # from random import shuffle
            setattr(module, name, _function(value.__name__))


def _print(*values: object, **options: Any) -> None:
    log.debug("%s", " ".join(map(str, values)))


def _function(name: str) -> Callable[..., Any]:
    return lambda *args, **kwargs: getattr(_PYTHON, name)(*args, **kwargs)

"""What runs in the sandboxes of tests, on the standard library alone: code that is tested, and Python that tests it.

There are two sandboxes, and the host between them. In one, `Solution` loads the code and does what it is asked. In the
other, `Tests` run; what they use of the solution are stand-ins that ask. So tested code shares no process, memory or file
with its tests: all that it sees are the arguments of calls, and all that it can do is to answer. Plain values cross as
copies, so that no object of the solution's can call itself equal to what is expected; everything else as a number.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import importlib.util
import json
import operator
import os
import queue
import sys
import threading
import types
from collections.abc import Callable
from typing import Any, TextIO

MARK = "ludus tests: "
MOST = 500_000
"""Characters of an answer."""
PLAIN: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (bool, bool), (int, int.__int__), (float, float.__float__), (str, str.__str__),
)  # fmt: skip
"""By the base's own methods: what a subclass makes of them is left behind."""
COLLECTIONS = {"tuple": tuple, "set": set, "frozenset": frozenset}
OPERATIONS: dict[str, Callable[..., Any]] = {
    "bool": bool, "len": len, "iter": iter, "next": next, "str": str, "repr": repr, "getitem": operator.getitem,
    "setitem": operator.setitem, "enter": lambda it: it.__enter__(),
    "exit": lambda it, *_: it.__exit__(None, None, None),
}  # fmt: skip
"""What tests may do with an object of the solution, beside calling it and taking its attributes."""


@functools.cache
def nowhere() -> TextIO:
    """Where prints go; a file, as code may take it for one."""
    return open(os.devnull, "w")  # noqa: PTH123 - as long as the process lives


def encode(value: Any, keep: Callable[[Any], int]) -> Any:
    """A value as JSON can hold it; what is not plain is kept, and named by a number."""
    if value is None:
        return None
    for kind, plain in PLAIN:
        if isinstance(value, kind):
            return plain(value)
    if isinstance(value, list):
        return [encode(item, keep) for item in list.__iter__(value)]
    if isinstance(value, dict):
        return {"dict": [[encode(key, keep), encode(item, keep)] for key, item in dict.items(value)]}
    for name, collection in COLLECTIONS.items():
        if isinstance(value, collection):
            return {name: [encode(item, keep) for item in collection.__iter__(value)]}
    if isinstance(value, bytes | bytearray):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, type) and issubclass(value, BaseException):
        return {"error": value.__name__}
    return {"object": keep(value)}


def decode(data: Any, find: Callable[[Any], Any], error: Callable[[str], Any] = str) -> Any:
    """What `encode` was given. Raises ValueError, KeyError, TypeError for what it did not make."""
    if isinstance(data, list):
        return [decode(item, find, error) for item in data]
    if not isinstance(data, dict):
        return data
    ((kind, content),) = data.items()
    if kind == "object":
        return find(content)
    if kind == "error":
        return error(content)
    if kind == "dict":
        return {decode(key, find, error): decode(item, find, error) for key, item in content}
    if kind == "bytes":
        return bytes.fromhex(content)
    if kind == "complex":
        return complex(*content)
    return COLLECTIONS[kind](decode(item, find, error) for item in content)


def say(work: Callable[[], str]) -> None:
    """Print what some work gives, and nothing that is printed meanwhile."""
    out = sys.stdout
    with contextlib.redirect_stdout(nowhere()), contextlib.redirect_stderr(nowhere()):
        text = work()
    out.write(f"\n{MARK}{text}\n")
    out.flush()


class Solution:
    """The code that is tested."""

    def __init__(self) -> None:
        self.objects: list[Any] = []
        self.numbers: dict[int, int] = {}

    def answer(self, request: dict[str, Any]) -> str:
        """What became of a request, as JSON: the value, or what was raised."""
        try:
            reply = json.dumps({"value": encode(self._do(**request), self._keep)})
            if len(reply) > MOST:
                raise ValueError(f"the value is longer than {MOST} characters")
        except BaseException as error:  # noqa: BLE001 - whatever the code raises is its answer
            reply = json.dumps({"raised": type(error).__name__, "text": _text(error)})
        return reply

    def _do(self, do: str, *, target: int | None = None, name: str = "", args: Any = (), kwargs: Any = ()) -> Any:
        if do == "load":
            return self._load(name)
        owner: Any = sys.modules["solution"] if target is None else self.objects[target]
        given = [decode(value, self.objects.__getitem__) for value in args]
        named = {key: decode(value, self.objects.__getitem__) for key, value in dict(kwargs).items()}
        if do == "get":
            return getattr(owner, name)
        if do == "equal":
            return bool(owner == given[0])
        if do == "call":
            return (getattr(owner, name) if name else owner)(*given, **named)
        return OPERATIONS[do](owner, *given)

    def _load(self, path: str) -> dict[str, Any]:
        """Its public names. Raises what the code raises."""
        spec = importlib.util.spec_from_file_location("solution", path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} is no Python file")
        module = sys.modules["solution"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return {name: value for name, value in vars(module).items() if not name.startswith("_")}

    def _keep(self, value: Any) -> int:
        if id(value) not in self.numbers:
            self.numbers[id(value)] = len(self.objects)
            self.objects.append(value)
        return self.numbers[id(value)]


class Remote:
    """Stands in tests for an object of the solution. It equals no plain value, whatever the object says."""

    def __init__(self, ask: Callable[..., Any], number: int) -> None:
        self._ask, self._number = ask, number

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._ask("get", target=self._number, name=name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._ask("call", args, kwargs, target=self._number)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Remote) and self._ask("equal", [other], target=self._number) is True)

    __hash__ = object.__hash__


def _operation(name: str) -> Callable[..., Any]:
    return lambda self, *args: self._ask(name, () if name == "exit" else args, target=self._number)


for _name in OPERATIONS:
    setattr(Remote, f"__{_name}__", _operation(_name))


class Tests:
    """One test, in a thread of its own: it stops wherever it asks for something of the solution."""

    def __init__(self) -> None:
        self.said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.replies: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.remotes: dict[int, Remote] = {}
        self.errors: dict[str, type[Exception]] = {}

    def begin(self, source: str, test: str, names: Any) -> str:
        """Start; what it says first, as JSON: a request, or how it ended.

        Args:
            source: Python.
            test: the function in it to call, or "".
            names: the solution's, encoded.
        """
        threading.Thread(target=self._run, args=(source, test, names), daemon=True).start()
        return self.said.get()

    def step(self, reply: dict[str, Any]) -> str:
        """Go on with a reply; what it says next."""
        self.replies.put(reply)
        return self.said.get()

    def _run(self, source: str, test: str, names: Any) -> None:
        try:
            known = self._public(names)
            # else a function that is called `all` would judge itself
            bare = {name: value for name, value in known.items() if not hasattr(builtins, name)}
            module = sys.modules["solution"] = types.ModuleType("solution")
            vars(module).update(known, __all__=list(bare))
            space: dict[str, Any] = {**bare, "__name__": "tests"}
            exec(compile(source, "<tests>", "exec"), space)
            if test:
                space[test]()
            end = {"passed": True, "why": ""}
        except BaseException as error:  # noqa: BLE001 - it is what the test says
            end = {"passed": False, "why": f"{type(error).__name__}: {_text(error)}"}
        self.said.put(json.dumps(end))

    def _public(self, names: Any) -> dict[str, Any]:
        """The solution's names, whatever it says that they are: with one as `__builtins__` it would judge itself."""
        known = decode(names, self._remote, self._error).items()
        return {name: value for name, value in known if isinstance(name, str) and not name.startswith("_")}

    def _ask(self, do: str, args: Any = (), kwargs: Any = (), **about: Any) -> Any:
        given = [encode(value, _number) for value in args]
        named = {key: encode(value, _number) for key, value in dict(kwargs).items()}
        self.said.put(json.dumps({"do": do, "args": given, "kwargs": named, **about}))
        reply = self.replies.get()
        if "raised" in reply:
            raise self._raised(str(reply["raised"]), str(reply.get("text", "")))
        return decode(reply["value"], self._remote, self._error)

    def _remote(self, number: Any) -> Remote:
        return self.remotes.setdefault(int(number), Remote(self._ask, int(number)))

    def _error(self, name: str) -> type[Exception]:
        """An exception class of the solution's: Python's own where it has one of that name."""
        own = getattr(builtins, name, None)
        if isinstance(own, type) and issubclass(own, Exception):
            return own
        return self.errors.setdefault(name, type(name, (Exception,), {}))

    def _raised(self, name: str, text: str) -> Exception:
        try:
            return self._error(name)(text)
        except TypeError:  # some want more than a text
            return RuntimeError(f"{name}: {text}")


def _number(value: Any) -> int:
    if not isinstance(value, Remote):
        raise TypeError(f"a {type(value).__name__} can't be passed to the code that is tested")
    return value._number


def _text(error: BaseException) -> str:
    try:
        return str(error)[:500]
    except BaseException:  # noqa: BLE001 - an exception of the code's own that can't even be shown
        return ""

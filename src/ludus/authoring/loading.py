"""An environment by name: a registered one, a Python file, a module, or another ecosystem's behind a prefix."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from importlib.machinery import SourceFileLoader
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

import msgspec

from ludus import registry
from ludus.authoring.content import is_plain
from ludus.authoring.environment import Environment
from ludus.errors import ConfigError, UnknownName, UsageError
from ludus.types import EnvironmentRef


def load_environment(spec: str, options: Mapping[str, Any] | None = None) -> Environment:
    """Build the environment that `spec` names.

    Args:
        spec: a registered name, `path/to/file.py[:Class]`, `module:Class`, or `PREFIX:NAME` such as `rg:spell_backward`.
        options: keyword arguments of the environment.

    Raises:
        UnknownName: nothing of that name, with the nearest one.
        ConfigError: an option that does not exist or that the environment refused.
        UsageError: the module can't be imported or holds no environment.
    """
    kind, leading = _resolve(spec)
    options = dict(options or {})
    _check_options(spec, kind, leading, options)
    try:
        env = kind(*leading, **options)
    except UsageError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{spec} refused its options {options}: {error}") from error
    except (Exception, SystemExit) as error:
        if not leading:
            raise
        # behind a prefix is other people's code, in which whoever named it has nothing to mend
        raise UsageError(f"{spec} can't be built: {type(error).__name__}: {error}") from error
    given = {key: value for key, value in env.options.items() if is_plain(value)}
    for name in list(inspect.signature(kind).parameters)[: len(leading)]:
        given.pop(name, None)
    env.ref = EnvironmentRef(id=spec, options=given, version=env.version, hash=env.content_hash())
    return env


def rebuildable(env: Environment) -> bool:
    """Whether another process can build the same environment from its reference."""
    return env.ref is not None and all(is_plain(value) for value in env.options.values())


def _resolve(spec: str) -> tuple[type[Environment], tuple[str, ...]]:
    head, colon, rest = spec.partition(":")
    if head.endswith(".py"):
        return _pick(_module_from_file(Path(head)), rest, spec), ()
    adapters = registry.entries(registry.ADAPTERS)
    if colon and head in adapters:
        if not rest:
            raise UsageError(f"{head}: needs a name after the colon (ludus env list {head}: may list them)")
        return _load(adapters[head]), (rest,)
    if colon:
        try:
            module = importlib.import_module(head)
        except ModuleNotFoundError as error:
            if error.name and head.startswith(error.name):
                raise UnknownName("environment", spec, _names(), "ludus env list") from None
            raise UsageError(f"can't import {head}: {error}") from error
        return _pick(module, rest, spec), ()
    environments = registry.entries(registry.ENVIRONMENTS)
    if spec not in environments:
        raise UnknownName("environment", spec, _names(), "ludus env list")
    return _load(environments[spec]), ()


def _load(entry: EntryPoint) -> type[Environment]:
    """What is registered. Raises UsageError where that can't be imported, or is no environment."""
    try:
        found = entry.load()
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"{entry.name}: {entry.value} can't be imported: {type(error).__name__}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Environment)):
        raise UsageError(f"{entry.name}: {entry.value} is no class of environments")
    return found


def _names() -> list[str]:
    return [*registry.entries(registry.ENVIRONMENTS), *(f"{p}:" for p in registry.entries(registry.ADAPTERS))]


class _AsItIsNow(SourceFileLoader):
    """Reads what the file says, and leaves nothing beside it: what Python compiles and keeps is taken for that of a file
    edited within the same second, if its size is the same."""

    def path_stats(self, path: str) -> Any:
        """Nothing, so that nothing compiled is looked for or kept."""
        raise OSError


def _module_from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"no such environment file: {path}")
    name = f"ludus_file_{path.stem}_{hashlib.blake2b(str(path.resolve()).encode(), digest_size=4).hexdigest()}"
    spec = importlib.util.spec_from_file_location(name, path, loader=_AsItIsNow(name, str(path)))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pickling and type hints look it up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UsageError(f"{path} can't be imported: {type(error).__name__}: {error}") from error
    return module


def _pick(module: ModuleType, name: str, spec: str) -> type[Environment]:
    found = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Environment) and value is not Environment
    }
    own = {key: value for key, value in found.items() if value.__module__ == module.__name__}
    if name:
        if name not in found:
            raise UnknownName(f"environment class in {spec.partition(':')[0]}", name, found)
        return found[name]
    if len(own) != 1:
        listed = ", ".join(own) or "none"
        raise UsageError(f"{spec} must name one environment class, as {spec}:Class (it holds: {listed})")
    return next(iter(own.values()))


def _check_options(spec: str, kind: type[Environment], leading: tuple[str, ...], options: Mapping[str, Any]) -> None:
    if kind.__init__ is object.__init__:
        parameters: dict[str, inspect.Parameter] = {}
    else:
        parameters = dict(list(inspect.signature(kind.__init__).parameters.items())[1 + len(leading) :])
    _check_types(spec, kind, parameters, options)
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for name in options:
        if name not in parameters:
            if not parameters:
                raise ConfigError(f"{spec} has no options, got {name!r}")
            raise UnknownName(f"option of {spec}", name, parameters)


def _check_types(
    spec: str, kind: type[Environment], parameters: Mapping[str, inspect.Parameter], options: Mapping[str, Any]
) -> None:
    """Raises ConfigError for a plain value that is not what its parameter is annotated with."""
    named = {key: value for key, value in options.items() if key in parameters and is_plain(value)}
    if not named:
        return
    from pydantic import TypeAdapter, ValidationError
    from pydantic.errors import PydanticUserError

    try:
        hints = get_type_hints(kind.__init__, include_extras=True)
    except (NameError, TypeError):
        return  # names that are there for type checkers alone
    for name, value in named.items():
        if name not in hints or parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            continue
        try:
            # as JSON: there an array is a list, a tuple or a set, and a path is a text
            TypeAdapter(hints[name]).validate_json(msgspec.json.encode(value), strict=True)
        except PydanticUserError:
            continue  # no type that could be checked
        except ValidationError as error:
            problem = error.errors()[0]
            where = "".join(f"[{place}]" for place in problem["loc"] if isinstance(place, int))
            msg = problem["msg"].removeprefix("Input ")
            raise ConfigError(f"{spec}: the option {name}{where} {msg}, got {value!r}") from None

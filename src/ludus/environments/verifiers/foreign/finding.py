"""Find the module, and tell which of the two kinds of environment it holds.

v0 (verifiers before 0.4) has a function `load_environment`; v1 (from 0.4 on) exports a `Taskset` in `__all__`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.metadata import PackageNotFoundError, distributions, packages_distributions, version
from pathlib import Path
from types import ModuleType
from typing import Any

from .trouble import Trouble

TASKSETS = "verifiers.v1.tasksets"
"""Where those are that come with verifiers."""


def load(name: str, folder: str, options: dict[str, Any], strict: bool) -> Any:
    """The environment, behind the interface of `v0.Side` and `v1.Side`. Raises Trouble."""
    if importlib.util.find_spec("verifiers") is None:
        raise Trouble(
            f"there is no verifiers in {sys.executable}: name a Python that has it (python=...), or what to install in a "
            "virtual environment made for it, such as install='verifiers==0.3.1'",
            "usage",
        )
    if folder:
        sys.path.insert(0, folder)
    wanted = _module_name(name)
    found = False
    for candidate in (wanted, f"{TASKSETS}.{wanted.lower()}"):
        if not _exists(candidate):
            continue
        found, module = True, _import(candidate)
        if callable(getattr(module, "load_environment", None)):
            from . import v0

            return v0.Side(module, options, strict)
        if _has_taskset(module):
            from . import v1

            return v1.Side(module, options)
    if not found:
        raise Trouble("verifiers environment", "unknown", name=name, valid=names())
    raise Trouble(f"the module {wanted} has neither a function load_environment nor a Taskset in its __all__", "usage")


def describe(module: ModuleType) -> str:
    """The versions of the module's distribution and of verifiers."""
    top = module.__name__.partition(".")[0]
    owners = packages_distributions().get(top, [])
    return ", ".join(f"{name} {version(name)}" for name in dict.fromkeys([*owners[:1], "verifiers"]))


def _module_name(name: str) -> str:
    """As verifiers reads it: `owner/my-env@1.0` is the module my_env. Raises Trouble."""
    wanted = name.rsplit("/", 1)[-1].partition("@")[0].replace("-", "_")
    if not wanted.isidentifier():
        raise Trouble(f"expected the name of a module, got {name!r}", "usage")
    return wanted


def _import(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise Trouble(f"{module} can't be imported: {type(error).__name__}: {error}{_hint()}", "usage") from error


def names() -> list[str]:
    """Modules of installed distributions that require verifiers, those beside the current ones, and its own."""
    dependents = _dependents()
    found = {module for module, owners in packages_distributions().items() if dependents & set(owners)} - {"verifiers"}
    if sys.path and Path(sys.path[0]).is_dir():
        beside = Path(sys.path[0])
        found |= {path.stem for path in beside.glob("*.py")}
        found |= {path.parent.name for path in beside.glob("*/__init__.py")}
    if _exists(TASKSETS):
        tasksets = importlib.import_module(TASKSETS)
        found |= {path.parent.name for root in tasksets.__path__ for path in Path(root).glob("*/__init__.py")}
    return sorted(name for name in found if not name.startswith("_"))


def _dependents() -> set[str]:
    return {
        found.metadata["Name"]
        for found in distributions()
        if any(need.replace(" ", "").startswith("verifiers") for need in found.requires or [])
    }


def _has_taskset(module: ModuleType) -> bool:
    if not _exists("verifiers.v1"):
        return False
    kind = importlib.import_module("verifiers.v1").Taskset
    exported = [getattr(module, name, None) for name in getattr(module, "__all__", ())]
    return any(isinstance(item, type) and issubclass(item, kind) and item is not kind for item in exported)


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _hint() -> str:
    """Most published packages were written for a version that pip no longer takes by itself."""
    try:
        found = version("verifiers")
    except PackageNotFoundError:
        return ""
    if _exists("verifiers.legacy") or not _exists("verifiers.v1"):
        return ""
    return f" (verifiers {found} dropped what packages for versions before 0.4 need: install='... verifiers==0.3.1')"

"""The content hash of an environment: equal on every machine and in every process, another one when code or data change.

It covers, of the environment's class: the file of its module, or everything in its package (Python files and packaged
data; no caches, no hidden files) with what the package requires; the files of the bases it inherits from elsewhere; the
versions of the distributions it names in `depends_on`; and its options. Not covered: files outside the package, such as
data named by an option, and modules beside a single file.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from ludus import registry
from ludus.types import content_hash

OURS = "ludus"
"""Environments that come with Ludus stand for themselves: one more beside them doesn't change them."""
CACHES = ("__pycache__",)
CACHE_SUFFIXES = (".pyc", ".pyo")
Piece = tuple[str, bytes]
"""A name that is the same everywhere, and content."""


def environment_hash(kind: type, options: Mapping[str, Any]) -> str:
    """16 hex digits over code, packaged data and options; "" where the class has no source that can be read.

    Args:
        kind: the environment's class.
        options: those that JSON can't hold are left out.
    """
    code = code_hash(kind)
    return content_hash([code, {key: value for key, value in options.items() if is_plain(value)}]) if code else ""


@functools.lru_cache(maxsize=128)
def code_hash(kind: type) -> str:
    """16 hex digits over code and packaged data, computed once per class; "" without source."""
    digest = hashlib.blake2b(digest_size=8)
    seen: set[Piece] = set()
    for piece in _pieces(kind):
        if piece is None:
            return ""
        if piece not in seen:
            seen.add(piece)
            for part in (piece[0].encode(), piece[1]):
                digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def is_plain(value: Any) -> bool:
    """Whether JSON can hold a value."""
    try:
        msgspec.json.encode(value)
    except (TypeError, ValueError):
        return False
    return True


def _pieces(kind: type) -> Iterator[Piece | None]:
    """Everything that is hashed, in an order that is the same everywhere; None for what can't be read."""
    own = kind.__module__.partition(".")[0]
    for base in kind.__mro__:
        top = base.__module__.partition(".")[0]
        if top in sys.stdlib_module_names or base.__module__ == f"{OURS}.authoring.environment":
            continue
        root = _package_root(base.__module__) if top == own and top != OURS else None
        yield from _package(top, root) if root else [_single(base)]
    for name in getattr(kind, "depends_on", ()):
        yield f"version of {name}", _version(name).encode()


def _package(name: str, root: Path) -> Iterator[Piece]:
    """Every file of a package, and what its distribution requires."""
    files = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    for relative in sorted(files):
        parts = relative.split("/")
        hidden = any(part.startswith(".") or part in CACHES for part in parts)
        if not hidden and not relative.endswith(CACHE_SUFFIXES):
            yield relative, files[relative].read_bytes()
    yield "requires", "\n".join(sorted(_requirements(name))).encode()


def _single(kind: type) -> Piece | None:
    """The file of a class's module, whatever it is called; in a notebook, what can be found of the class itself."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    if file is not None and Path(file).is_file():
        return "file", Path(file).read_bytes()
    source = _source(kind)
    return None if source is None else (kind.__qualname__, source.encode())


def _source(kind: type) -> str | None:
    """A class without a file: its source, or that of its methods with its plain attributes; None without."""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        pass  # Python looks for the source of a class in the file of its module, which a notebook does not have
    parts = []
    for name, value in sorted(vars(kind).items()):
        function = inspect.unwrap(getattr(value, "fget", None) or getattr(value, "__func__", value))
        if inspect.isfunction(function):
            try:
                parts.append(inspect.getsource(function))
            except (OSError, TypeError):
                return None
        elif not name.startswith("__") and is_plain(value):
            parts.append(f"{name} = {value!r}")
    return "\n".join(parts)


def _package_root(module: str) -> Path | None:
    """The folder of the outermost package that a module is in; None for a module of its own."""
    names = module.split(".")
    for end in range(1, len(names) + 1):
        file = getattr(sys.modules.get(".".join(names[:end])), "__file__", None)
        if file is not None and Path(file).stem == "__init__":
            return Path(file).parent
    return None


def _requirements(package: str) -> list[str]:
    """What the distribution requires that registers the package's environments; [] where none does."""
    for entry in (*registry.entries(registry.ENVIRONMENTS).values(), *registry.entries(registry.ADAPTERS).values()):
        if entry.module.partition(".")[0] == package and entry.dist is not None:
            return entry.dist.requires or []
    return []


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""

"""Names of packages that are about to be written."""

from __future__ import annotations

import importlib.util
import keyword
import re
from pathlib import Path

from ludus.errors import FileProblem, UsageError

NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")


def check_package_name(name: str, into: Path) -> str:
    """The name of the module that a package of this name has, where both are free.

    Args:
        name: of the package and the environment: lower-case words with - or _ between them.
        into: the folder in which its own folder is to be made.

    Raises:
        UsageError: the name can't be that of a package, or is taken.
        FileProblem: the folder is there already.
    """
    module = name.replace("-", "_")
    if not NAME.fullmatch(name) or keyword.iskeyword(module):
        raise UsageError(f"expected a name of lower-case words with - between them, such as my-env; got {name!r}")
    if (into / name).exists():
        raise FileProblem(f"{into / name} is there already; choose another name")
    if importlib.util.find_spec(module) is not None:
        raise UsageError(f"there is a module {module!r} already, which the new one would hide; choose another name")
    return module

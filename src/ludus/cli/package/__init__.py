"""`ludus env new`: a complete package around a small environment, from the templates beside this file."""

from __future__ import annotations

from pathlib import Path

from ludus.errors import FileProblem
from ludus.programs.package_name import check_package_name


def write_package(name: str, into: Path) -> tuple[Path, Path]:
    """Write the package.

    Args:
        name: of the package and the environment: lower-case words with - or _ between them.
        into: the folder in which its own folder is made.

    Returns:
        Its folder, and the file with the environment.

    Raises:
        UsageError: the name can't be that of a package, or is taken.
        FileProblem: the folder is there already, or can't be made.
    """
    package = check_package_name(name, into)
    folder = into / name
    files = {
        "pyproject.toml": "pyproject.toml.j2",
        "README.md": "README.md.j2",
        f"src/{package}/__init__.py": "environment.py.j2",
        f"tests/test_{package}.py": "test.py.j2",
    }
    try:
        for path, template in files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(_render(template, name, package), encoding="utf-8")
    except OSError as error:
        raise FileProblem(f"can't write {folder}: {error}") from None
    return folder, folder / "src" / package / "__init__.py"


def _render(template: str, name: str, package: str) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # What is rendered is source code, so nothing is escaped.
    environment = Environment(loader=PackageLoader(__name__, ""), undefined=StrictUndefined, keep_trailing_newline=True)
    kind = "".join(word.capitalize() for word in package.split("_"))
    return environment.get_template(template).render(name=name, package=package, kind=kind)

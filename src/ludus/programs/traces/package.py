"""The files of a traced environment's package that are code and words, from the templates beside this file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ludus.programs.traces.build import Built

FILES = {
    "pyproject.toml": "pyproject.toml.j2",
    "README.md": "README.md.j2",
    "src/{module}/__init__.py": "environment.py.j2",
    "tests/test_{module}.py": "test.py.j2",
}


def finish_package(folder: Path, name: str, built: Built) -> None:
    """Write them. Raises OSError."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # What is rendered is source code and Markdown, so nothing is escaped.
    templates = Environment(
        loader=PackageLoader(__name__.rpartition(".")[0], "templates"), undefined=StrictUndefined,
        keep_trailing_newline=True, trim_blocks=True,
    )  # fmt: skip
    module = name.replace("-", "_")
    kind = "".join(word.capitalize() for word in module.split("_"))
    for path, template in FILES.items():
        target = folder / path.format(module=module)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = templates.get_template(template).render(name=name, module=module, kind=kind, **_counts(built))
        target.write_text(text, encoding="utf-8")


def _counts(built: Built) -> dict[str, Mapping[str, int] | int]:
    return {"tasks": built.tasks, "skipped": built.skipped, "mended": built.mended, "redacted": built.redacted,
            "labels": built.labels, "num_lines": built.num_lines, "num_tools": built.num_tools}  # fmt: skip

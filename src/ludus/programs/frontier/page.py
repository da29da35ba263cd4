"""`frontier(runs)`: models side by side, as a page that needs no network and runs no script, and as pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ludus.errors import MissingExtra
from ludus.programs.frontier.chart import axes_of, draw_axis, draw_png, draw_svg
from ludus.programs.frontier.compared import AXES, Section, compared
from ludus.programs.frontier.measured import Measured
from ludus.programs.frontier.table import method, table
from ludus.programs.prices import Price
from ludus.programs.report.page import template
from ludus.store.durable import disk_errors, write_atomically

PAGE = "models.html"


@dataclass(frozen=True)
class Frontier:
    """What was compared, and the files that were written."""

    sections: list[Section]
    page: Path
    pictures: list[Path]

    def to_dict(self) -> dict[str, Any]:
        """Plain values; NaN becomes None."""
        return {
            "page": str(self.page),
            "pictures": [str(path) for path in self.pictures],
            "sections": [
                {
                    "title": section.title,
                    "models": [_plain(section, model) for model in section.models],
                    "notes": section.notes,
                }
                for section in self.sections
            ],
        }


def frontier(
    runs: Sequence[Path], out: Path, prices: Mapping[str, Price] | None = None, *, named: Iterable[str] = ()
) -> Frontier:
    """Write models.html, and models.png and models.svg of each environment (models-2.png of the second), into a folder.

    Args:
        runs: run folders of evaluations; of training runs, the last evaluation counts.
        out: the folder, made where it is not there.
        prices: by model; "" is everybody else's who runs behind an API.
        named: models of which something was said, so that they have to be there.

    Raises:
        RunFolderError: not a run folder, one that is damaged, or a folder that can't be written to.
        UsageError: see `compared`.
    """
    sections = compared(runs, prices, named=named)
    charts, pictures, missing = _drawn(sections)
    page = template("models.html.j2", "ludus.programs.frontier").render(
        title=_title(sections),
        sections=[(own, drawn, table(own), method(own)) for own, drawn in zip(sections, charts, strict=True)],
        missing=missing,
    )
    with disk_errors(f"write into {out}"):
        out.mkdir(parents=True, exist_ok=True)
        for name, data in {PAGE: page.encode(), **pictures}.items():
            write_atomically(out / name, data)
    return Frontier(sections, out / PAGE, [out / name for name in pictures])


def _title(sections: Sequence[Section]) -> str:
    models = dict.fromkeys(model.model for section in sections for model in section.models)
    return f"{len(models)} models" if len(models) > 1 else next(iter(models))


def _drawn(sections: Sequence[Section]) -> tuple[list[list[Markup]], dict[str, bytes], str]:
    """Charts of each section, files by name, and why there are none."""
    charts: list[list[Markup]] = []
    pictures: dict[str, bytes] = {}
    style = _variables()
    try:
        for number, section in enumerate(sections, 1):
            axes, name = axes_of(section), "models" if number == 1 else f"models-{number}"
            charts.append([Markup(draw_axis(section, axis)) for axis in axes])
            if axes:
                pictures[f"{name}.png"] = draw_png(section)
                pictures[f"{name}.svg"] = draw_svg(section, style).encode()
    except MissingExtra as error:
        return [[] for _ in sections], {}, str(error)
    return charts, pictures, ""


def _variables() -> str:
    """The colours of the reports' style, light and dark."""
    style: str = template("style.css.j2").render()
    return style[: style.index("* {")]


def _plain(section: Section, model: Measured) -> dict[str, Any]:
    values: dict[str, Any] = _without_nan(asdict(model))
    return {**values, "run": str(model.run), "front": [a.name for a in AXES if model.model in section.front(a)]}


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

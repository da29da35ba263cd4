"""What was measured: `results.json` for machines, and from it the tables of `RESULTS.md`.

A ratio says how many times better ours is than the peer, so more is better; a limit is a figure of our own that must
not be larger. Only ratios are compared between runs: absolute times belong to one machine.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
JSON, PAGE = HERE / "results.json", HERE / "RESULTS.md"
TOLERANCE = 0.25
"""Share by which a ratio may be lower than the committed one: what two runs on a quiet machine differ by, doubled."""


@dataclass(frozen=True)
class Ratio:
    """Peer over ours for times, ours over peer for rates."""

    ratio: float
    target: float | None = None
    """What it is meant to be at least."""


@dataclass(frozen=True)
class Limit:
    """A figure of our own, and the most that it may be."""

    value: float
    most: float


@dataclass(frozen=True)
class Table:
    title: str
    columns: list[str]
    rows: list[list[Any]]
    note: str = ""


@dataclass
class Section:
    """One benchmark's outcome."""

    tables: list[Table] = field(default_factory=list)
    ratios: dict[str, Ratio] = field(default_factory=dict)
    limits: dict[str, Limit] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def save(name: str, section: Section, machine: Mapping[str, Any], others: float) -> None:
    """Put a section into results.json, and all of them into RESULTS.md.

    Args:
        name: of the benchmark.
        section: what was measured.
        machine: that it was measured on.
        others: cores that other processes kept busy meanwhile.
    """
    known = read()
    about = {"machine": dict(machine), "date": time.strftime("%Y-%m-%d"), "other_busy_cores": round(others, 2)}
    known[name] = about | plain(section)
    JSON.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    _write_page(known)


def _write_page(known: Mapping[str, Any]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for section_name, values in known.items():
        page = _between_markers(page, section_name, "\n".join(markdown(section_name, values)))
    PAGE.write_text(page, encoding="utf-8")


def plain(section: Section) -> dict[str, Any]:
    """As JSON has it, floats to five digits: more is noise, and makes differences of committed files unreadable."""
    rounded: dict[str, Any] = _rounded(asdict(section))
    return rounded


def read() -> dict[str, Any]:
    """results.json; {} where there is none."""
    return json.loads(JSON.read_text(encoding="utf-8")) if JSON.exists() else {}


def markdown(name: str, values: Mapping[str, Any]) -> Iterator[str]:
    """Lines of a section."""
    machine = values["machine"]
    versions = ", ".join(f"{package} {version}" for package, version in sorted(values["versions"].items()))
    python = f"Python {machine['python']}{'; ' if versions else ''}{versions}"
    yield f"`python -m benchmarks.run {name}` on {values['date']}: {machine['processor']}, {machine['cores']} cores,"
    yield f"{machine['memory_gib']} GiB, {python}. Other processes kept"
    yield f"{values['other_busy_cores']} cores busy meanwhile.\n"
    for table in values["tables"]:
        yield f"### {table['title']}\n\n{table['note']}\n" if table["note"] else f"### {table['title']}\n"
        yield from _table(table["columns"], table["rows"])
    compared = [[key, r["ratio"], _met(r["ratio"], r["target"])] for key, r in values["ratios"].items()]
    if compared:
        yield "### Ratios\n"
        yield from _table(["", "times as good", "bar"], compared)
    limited = [
        [key, v["value"], f"{v['most']:g}", _mark(v["value"] <= v["most"])] for key, v in values["limits"].items()
    ]
    if limited:
        yield "### Limits\n"
        yield from _table(["", "measured", "at most", ""], limited)


def compare(name: str, section: Section) -> tuple[list[str], bool]:
    """Lines that say how ratios moved since they were committed, and whether one got worse by more than TOLERANCE."""
    committed = read().get(name, {}).get("ratios", {})
    lines, worse = [], False
    for key, now in section.ratios.items():
        if key not in committed:
            lines.append(f"  new     {key}: {now.ratio:.2f}")
            continue
        before = committed[key]["ratio"]
        change = now.ratio / before - 1
        verdict = "WORSE" if change < -TOLERANCE else "better" if change > TOLERANCE else "same"
        worse |= verdict == "WORSE"
        lines.append(f"  {verdict:7} {key}: {before:.2f} -> {now.ratio:.2f} ({change:+.0%})")
    return lines, worse


def _table(columns: list[str], rows: list[list[Any]]) -> Iterator[str]:
    numeric = [all(isinstance(row[i], int | float) for row in rows) for i in range(len(columns))]
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "|".join(" ---: " if number else " --- " for number in numeric) + "|"
    for row in rows:
        yield "| " + " | ".join(_shown(cell) for cell in row) + " |"
    yield ""


def _shown(cell: Any) -> str:
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.3g}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def _met(ratio: float, target: float | None) -> str:
    return "" if target is None else f"{_mark(ratio >= target)}: {target:g}"


def _mark(met: bool) -> str:
    return "met" if met else "**missed**"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(v) for key, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, list | tuple) else value


def _between_markers(page: str, name: str, text: str) -> str:
    begin, end = f"<!-- {name}: written by benchmarks/run.py -->", f"<!-- end of {name} -->"
    block = f"{begin}\n\n{text}\n{end}"
    if begin not in page:
        return f"{page.rstrip()}\n\n## {name.capitalize()}\n\n{block}\n"
    return re.sub(re.escape(begin) + ".*?" + re.escape(end), lambda found: block, page, flags=re.DOTALL)

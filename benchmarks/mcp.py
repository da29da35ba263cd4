"""Hundreds of rollouts on one MCP server: does any of them lose it, and what does a call cost?"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.results import Limit, Section, Table
from benchmarks.side import Side

TRANSPORTS = {"stdio": "standard input and output", "http": "streamable HTTP"}
ROLLOUTS, CALLS = 1024, 4
IN_FLIGHT = (64, 512)


def measure(quick: bool) -> Section:
    """CPU milliseconds of a tool call, and rollouts that failed."""
    section, rows = Section(), []
    rollouts = ROLLOUTS // 2 if quick else ROLLOUTS
    for transport, title in TRANSPORTS.items():
        with Side(
            f"ludus, MCP over {transport}", "ludus_mcp.py", Path(sys.executable), {"transport": transport}
        ) as side:
            section.versions |= side.about["versions"]
            side.ask(rollouts=IN_FLIGHT[0], in_flight=IN_FLIGHT[0])
            for in_flight in IN_FLIGHT:
                answer = side.ask(rollouts=rollouts, in_flight=in_flight)
                failed = answer.values["failures"]
                rows.append(
                    [title, in_flight, 1000 * answer.cpu_s / (rollouts * CALLS), rollouts * CALLS / answer.wall_s]
                )
                section.limits[f"failed rollouts, {title}, {in_flight} in flight"] = Limit(failed, 0)
                if failed:
                    print(f"{transport}, {in_flight} in flight: {answer.values['first'][0]}", file=sys.stderr)
    columns = ["", "in flight", "CPU ms a call", "calls/s"]
    section.tables.append(Table("Calls of one MCP server's tool", columns, rows, NOTE))
    return section


NOTE = (
    f"{ROLLOUTS:,} rollouts of {CALLS} calls and a reply, one server made with the official SDK, one connection that all "
    "share; a model that answers at once. CPU is of both processes, the rollouts and their records included."
)

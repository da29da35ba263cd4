"""The report of a run: one self-contained HTML file."""

from ludus.programs.report.page import report as report

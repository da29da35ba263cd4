"""An encyclopedia in SQLite: pages with a title, and a full-text index over title and text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ludus.environments.search.fts import Database, match_any

SCHEMA = """
CREATE TABLE pages (id INTEGER PRIMARY KEY, page_id TEXT UNIQUE, title TEXT, text TEXT);
CREATE VIRTUAL TABLE pages_fts USING fts5(title, text, content='pages', content_rowid='id');
"""
TITLE_WEIGHT = 10.0
"""Of a word in a title, beside one in the text."""


@dataclass(frozen=True)
class Page:
    """One page."""

    page_id: str
    title: str
    text: str


class PageIndex:
    """All pages of one encyclopedia."""

    def __init__(self, pages: Sequence[Page]) -> None:
        self._database = Database(SCHEMA)
        rows = [(n, page.page_id, page.title, page.text) for n, page in enumerate(pages)]
        self._database.fill("INSERT INTO pages VALUES (?, ?, ?, ?)", rows)
        self._database.fill("INSERT INTO pages_fts(rowid, title, text) VALUES (?, ?, ?)", [
            (n, page.title, page.text) for n, page in enumerate(pages)
        ])  # fmt: skip

    def search(self, query: str, most: int) -> list[tuple[str, str]]:
        """Id and title of the pages that match best: those of that very title, then by BM25 over any of its words."""
        expression = match_any(query.split())
        if not expression:
            return []
        found = self._database.rows(
            "SELECT p.page_id, p.title FROM pages_fts JOIN pages p ON p.id = pages_fts.rowid WHERE pages_fts MATCH ? "
            "ORDER BY lower(p.title) != lower(?), bm25(pages_fts, ?, 1.0), p.id LIMIT ?",
            (expression, query.strip(), TITLE_WEIGHT, most),
        )
        return [(page_id, title) for page_id, title in found]

    def read(self, page_id: str) -> str | None:
        """The text of a page; None where there is no such page."""
        rows = self._database.rows("SELECT text FROM pages WHERE page_id = ?", (page_id,))
        return str(rows[0][0]) if rows else None

    def close(self) -> None:
        """Free its memory."""
        self._database.close()

"""SQLite's full-text search: one database in memory for each inbox or encyclopedia, shared by rollouts."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from typing import Any

from ludus.errors import UsageError

LONGEST_QUERY = 50
"""Words; SQLite's parser bounds how many may stand in one expression."""


class Database:
    """A database in memory, read by any thread, one at a time.

    Args:
        schema: SQL that makes the tables.

    Raises:
        UsageError: Python's SQLite was built without FTS5.
    """

    def __init__(self, schema: str) -> None:
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(":memory:", check_same_thread=False)
        try:
            self._connection.executescript(schema)
        except sqlite3.OperationalError as error:
            self._connection.close()
            raise UsageError(f"searching needs SQLite with FTS5, which this Python lacks: {error}") from None

    def fill(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Insert many rows."""
        with self._lock, self._connection:
            self._connection.executemany(statement, rows)

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """What a query finds. Lone surrogates in its values, which SQLite can't take, are left out."""
        clean = [value.encode(errors="ignore").decode() if isinstance(value, str) else value for value in values]
        with self._lock:
            return self._connection.execute(query, clean).fetchall()

    def close(self) -> None:
        """Free its memory; so does the last one to let go of it."""
        with self._lock:
            self._connection.close()

    __del__ = close


def match_all(words: Sequence[str]) -> str:
    """An FTS5 expression for texts that have every one of the words or phrases; "" for no words at all.

    >>> match_all(["budget", 'the "old" one'])
    '"budget" "the ""old"" one"'
    """
    return " ".join(_quoted(words))


def match_any(words: Sequence[str]) -> str:
    """An FTS5 expression for texts that have at least one of the words.

    >>> match_any(["river", "of"])
    '"river" OR "of"'
    """
    return " OR ".join(_quoted(words))


def _quoted(words: Sequence[str]) -> list[str]:
    # NUL ends SQLite's text early, and lone surrogates can't be encoded; neither is in any text.
    clean = (word.replace("\0", " ").encode(errors="ignore").decode() for word in words)
    return ['"' + word.replace('"', '""') + '"' for word in clean if any(map(str.isalnum, word))][:LONGEST_QUERY]

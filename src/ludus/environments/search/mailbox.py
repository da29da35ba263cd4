"""An inbox in SQLite: mails, their recipients, and a full-text index over subject and body."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ludus.environments.search.fts import Database, match_all

SCHEMA = """
CREATE TABLE emails (
    id INTEGER PRIMARY KEY, message_id TEXT UNIQUE, subject TEXT, from_address TEXT, date TEXT, body TEXT
);
CREATE TABLE recipients (email_id INTEGER REFERENCES emails(id), address TEXT, kind TEXT);
CREATE INDEX recipients_of_email ON recipients(email_id);
CREATE INDEX emails_by_date ON emails(date);
CREATE VIRTUAL TABLE emails_fts USING fts5(subject, body, content='emails', content_rowid='id');
"""
SNIPPET_WORDS = 15


@dataclass(frozen=True)
class Mail:
    """One mail."""

    message_id: str
    sender: str
    to: tuple[str, ...]
    cc: tuple[str, ...]
    date: str
    """ISO, to the minute: `2025-03-03 09:15`."""
    subject: str
    body: str


class Mailbox:
    """All mails of one inbox. Answers are as of a day: later mails have not come yet.

    Args:
        mails: in any order.
    """

    def __init__(self, mails: Sequence[Mail]) -> None:
        self._database = Database(SCHEMA)
        rows = [(n, m.message_id, m.subject, m.sender, m.date, m.body) for n, m in enumerate(mails)]
        self._database.fill("INSERT INTO emails VALUES (?, ?, ?, ?, ?, ?)", rows)
        recipients = [
            (n, address, kind)
            for n, mail in enumerate(mails)
            for kind, addresses in (("to", mail.to), ("cc", mail.cc))
            for address in addresses
        ]
        self._database.fill("INSERT INTO recipients VALUES (?, ?, ?)", recipients)
        self._database.fill(
            "INSERT INTO emails_fts(rowid, subject, body) VALUES (?, ?, ?)",
            [(n, mail.subject, mail.body) for n, mail in enumerate(mails)],
        )

    def search(
        self,
        keywords: Iterable[str],
        today: str,
        *,
        from_addr: str | None = None,
        to_addr: str | None = None,
        sent_after: str | None = None,
        sent_before: str | None = None,
        most: int = 10,
    ) -> list[tuple[str, str]]:
        """Message id and an excerpt of mails that have all keywords, newest first; [] where no keyword has a letter.

        Args:
            keywords: words or phrases.
            today: ISO date of the last day whose mails are there.
            from_addr: part of the sender's address.
            to_addr: part of the address of somebody in to or cc.
            sent_after: first ISO date.
            sent_before: ISO date before which it was sent.
            most: results.
        """
        expression = match_all(list(keywords))
        if not expression:
            return []
        conditions, values = ["emails_fts MATCH ?", "date(e.date) <= ?"], [expression, today]
        if from_addr is not None:
            conditions.append("instr(lower(e.from_address), lower(?))")
            values.append(from_addr)
        if to_addr is not None:
            conditions.append(
                "EXISTS (SELECT 1 FROM recipients r WHERE r.email_id = e.id AND instr(lower(r.address), lower(?)))"
            )
            values.append(to_addr)
        if sent_after is not None:
            conditions.append("e.date >= ?")
            values.append(sent_after)
        if sent_before is not None:
            conditions.append("e.date < ?")
            values.append(sent_before)
        numbers = [
            number
            for (number,) in self._database.rows(
                f"SELECT e.id FROM emails_fts JOIN emails e ON e.id = emails_fts.rowid WHERE {' AND '.join(conditions)} "
                f"ORDER BY e.date DESC, e.id DESC LIMIT ?",
                [*values, most],
            )
        ]
        return [self._excerpt(number, expression) for number in numbers]

    def _excerpt(self, number: int, expression: str) -> tuple[str, str]:
        """Of one mail that an expression matches: made for all that match, excerpts would take most of a search."""
        rows = self._database.rows(
            f"SELECT e.message_id, snippet(emails_fts, -1, '', '', ' ... ', {SNIPPET_WORDS}) FROM emails_fts "
            "JOIN emails e ON e.id = emails_fts.rowid WHERE emails_fts MATCH ? AND emails_fts.rowid = ?",
            (expression, number),
        )
        message_id, text = rows[0]
        return message_id, text

    def read(self, message_id: str, today: str) -> dict[str, Any] | None:
        """The whole mail, recipients included; None where none of that id has come."""
        rows = self._database.rows(
            "SELECT id, message_id, date, subject, from_address, body FROM emails "
            "WHERE message_id = ? AND date(date) <= ?",
            (message_id, today),
        )
        if not rows:
            return None
        number, *values = rows[0]
        mail = dict(zip(("message_id", "date", "subject", "from", "body"), values, strict=True))
        # by the mail's number: recipients don't hold message ids
        recipients = self._database.rows("SELECT kind, address FROM recipients WHERE email_id = ?", (number,))
        return mail | {kind: [address for of, address in recipients if of == kind] for kind in ("to", "cc")}

    def close(self) -> None:
        """Free its memory."""
        self._database.close()

"""A SQLite index of the rollout log: find rollouts by purpose, task or reward and read them by seeking.

The segments are the truth and the index only follows: opening it indexes what was appended since (one transaction), and
rebuilds it where it disagrees with the segments or is damaged. So the run that writes rollouts never waits for SQLite,
and deleting `index.db` loses nothing. In a folder that can't be written to, the index lives in memory.
"""

from __future__ import annotations

import logging
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import msgspec

from ludus.errors import UnknownName
from ludus.store.rollout_log import Location, RolloutLog
from ludus.types import Rollout

logger = logging.getLogger(__name__)

_BATCH = 1000
_NEAREST_OF = 2000


class IndexRow(msgspec.Struct, frozen=True):
    """What the index knows of a rollout."""

    id: str
    group: str
    purpose: str
    split: str
    task: str
    visit: int
    """How many times its task had come up before."""
    sample: int
    attempt: int
    reward: float
    num_turns: int
    tokens: int
    """Completion tokens of all its model calls."""
    seconds: float
    stop: str
    boundary: str | None
    """Where it failed; None where it did not."""
    blame: str | None
    sandboxes: str
    """Tiers of its sandboxes, with commas between them; "" where it had none."""
    segment: str
    offset: int
    length: int

    @property
    def excluded(self) -> bool:
        """Failed through no fault of the policy."""
        return self.blame not in (None, "policy")


class PurposeSummary(msgspec.Struct, frozen=True):
    """The rollouts of one purpose, counted: of each sample, the last attempt."""

    purpose: str
    num_rollouts: int
    num_tasks: int
    num_excluded: int
    num_policy_failures: int
    num_retried: int
    """Earlier attempts, which are in none of the other numbers."""
    num_truncated: int
    """Ended because a reply hit its token limit."""
    mean_reward: float | None
    """Of those not excluded; None without any."""
    sandboxes: list[str] = []
    """Tiers of their sandboxes."""


COLUMNS = IndexRow.__struct_fields__
LAYOUT = zlib.crc32(",".join(COLUMNS).encode()) >> 1
"""Kept in the file: an index with other columns is made anew."""

_TEXT = {"id", "group", "purpose", "split", "task", "stop", "boundary", "blame", "sandboxes", "segment"}
_REAL = {"reward", "seconds"}
_RETRIED = """EXISTS (
    SELECT 1 FROM rollouts AS later WHERE later."group" = rollouts."group" AND later.purpose = rollouts.purpose
    AND later.sample = rollouts.sample AND later.attempt > rollouts.attempt)"""


class RolloutIndex:
    """The index of one run folder, up to date when it opens.

    Args:
        folder: the run folder.

    Raises:
        RunFolderError: the log itself is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "index.db"
        self.log = RolloutLog(folder / "rollouts", writable=False)
        try:
            self._start(str(self.path))
        except sqlite3.OperationalError as error:
            logger.info("%s can't be used (%s); indexing in memory", self.path, error)
            self._start(":memory:")
        except sqlite3.DatabaseError as error:
            logger.warning("%s is damaged (%s); rebuilding it from the rollouts", self.path, error)
            self.path.unlink()
            self._start(str(self.path))

    def refresh(self) -> None:
        """Index what was appended since; everything, where the segments are not those that were indexed."""
        sizes = {path.name: path.stat().st_size for path in self.log.segments()}
        done = dict(self._db.execute("SELECT name, bytes FROM segments"))
        if any(sizes.get(name, -1) < indexed for name, indexed in done.items()):
            self.rebuild()
            return
        behind = {name: done.get(name, 0) for name, size in sizes.items() if size > done.get(name, 0)}
        if behind:
            with _transaction(self._db):
                for segment, start in behind.items():
                    self._index(segment, start)

    def rebuild(self) -> None:
        """Forget everything and index the whole log, in one transaction."""
        with _transaction(self._db):
            self._db.execute("DELETE FROM rollouts")
            self._db.execute("DELETE FROM segments")
            for path in self.log.segments():
                self._index(path.name, 0)

    def get(self, rollout_id: str) -> Rollout:
        """The rollout with this id.

        Raises:
            UnknownName: no such rollout, with the nearest id.
            RunFolderError: its record is damaged.
        """
        row = self._db.execute("SELECT segment, offset, length FROM rollouts WHERE id = ?", (rollout_id,)).fetchone()
        if row is None:
            ids = self._db.execute("SELECT id FROM rollouts LIMIT ?", (_NEAREST_OF,))
            raise UnknownName("rollout", rollout_id, (found for (found,) in ids))
        return self.log.get(Location(*row))

    def query(
        self,
        *,
        purpose: str | None = None,
        split: str | None = None,
        task: str | None = None,
        group: str | None = None,
        blame: str | None = None,
        last_attempts: bool = False,
        order_by: str = "recorded",
        descending: bool = False,
        limit: int | None = None,
    ) -> list[IndexRow]:
        """The rollouts that match.

        Args:
            purpose, split, task, group, blame: exact values; None matches all.
            last_attempts: without the attempts that were retried: what counts in scores.
            order_by: a column, or "recorded" for the order of the log; ties keep the order of the log.
            descending: largest first.
            limit: at most so many; None is all.

        Raises:
            UnknownName: no such column.
        """
        if order_by not in (*COLUMNS, "recorded"):
            raise UnknownName("column", order_by, (*COLUMNS, "recorded"))
        wanted = {"purpose": purpose, "split": split, "task": task, "group": group, "blame": blame}
        given = {name: value for name, value in wanted.items() if value is not None}
        where = " AND ".join(f'"{name}" = ?' for name in given) or "1"
        where += f" AND NOT {_RETRIED}" if last_attempts else ""
        direction = "DESC" if descending else "ASC"
        first = f"segment {direction}, offset {direction}" if order_by == "recorded" else f'"{order_by}" {direction}'
        statement = f"SELECT {_names(COLUMNS)} FROM rollouts WHERE {where} ORDER BY {first}, segment, offset LIMIT ?"
        rows = self._db.execute(statement, (*given.values(), -1 if limit is None else limit))
        return [IndexRow(*row) for row in rows]

    def purposes(self) -> list[PurposeSummary]:
        """What was recorded for each purpose, in the order in which their first rollouts were recorded."""
        statement = f"""
            SELECT purpose, sum(NOT retried), count(DISTINCT task), sum(excluded AND NOT retried),
                   sum(blame IS 'policy' AND NOT retried), sum(retried), sum(stop = 'length' AND NOT retried),
                   avg(CASE WHEN NOT excluded AND NOT retried THEN reward END), group_concat(DISTINCT sandboxes)
            FROM (SELECT *, blame IS NOT NULL AND blame != 'policy' AS excluded, {_RETRIED} AS retried FROM rollouts)
            GROUP BY purpose ORDER BY min(segment || printf('%012d', offset))
        """
        rows = self._db.execute(statement)
        return [PurposeSummary(*row[:-1], _tiers(row[-1])) for row in rows]  # type: ignore[call-arg] # one a field

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> RolloutIndex:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _start(self, path: str) -> None:
        self._db = sqlite3.connect(path, timeout=30, isolation_level=None)
        try:
            _make_tables(self._db)
            self.refresh()
        except BaseException:
            self._db.close()
            raise

    def _index(self, segment: str, start: int) -> None:
        """Insert the records of a segment from an offset on. A torn last record is left for the next time."""
        end, rows = start, []
        insert = f"INSERT OR REPLACE INTO rollouts ({_names(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
        for place, rollout in self.log.scan(segment, start=start):
            rows.append(msgspec.structs.astuple(_row(place, rollout)))
            end = place.offset + place.length
            if len(rows) >= _BATCH:
                self._db.executemany(insert, rows)
                rows.clear()
        self._db.executemany(insert, rows)
        self._db.execute("INSERT OR REPLACE INTO segments VALUES (?, ?)", (segment, end))


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _make_tables(db: sqlite3.Connection) -> None:
    if db.execute("PRAGMA user_version").fetchone() == (LAYOUT,):
        return
    with _transaction(db):
        if db.execute("PRAGMA user_version").fetchone() == (LAYOUT,):  # another process was faster
            return
        db.execute("DROP TABLE IF EXISTS rollouts")
        db.execute("DROP TABLE IF EXISTS segments")
        db.execute(f"CREATE TABLE rollouts ({', '.join(_column(name) for name in COLUMNS)})")
        db.execute("CREATE INDEX rollouts_purpose ON rollouts (purpose, task)")
        db.execute('CREATE INDEX rollouts_attempt ON rollouts ("group", sample, attempt)')
        db.execute("CREATE TABLE segments (name TEXT PRIMARY KEY, bytes INTEGER)")
        db.execute(f"PRAGMA user_version = {LAYOUT}")


def _column(name: str) -> str:
    kind = "TEXT" if name in _TEXT else "REAL" if name in _REAL else "INTEGER"
    return f'"{name}" {kind}' + (" PRIMARY KEY" if name == "id" else "")


def _tiers(joined: str) -> list[str]:
    return sorted(set(filter(None, joined.split(","))))


def _names(columns: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


def _row(place: Location, rollout: Rollout) -> IndexRow:
    failure = rollout.failure
    return IndexRow(
        id=rollout.id,
        group=rollout.group,
        purpose=rollout.purpose,
        split=rollout.split,
        task=rollout.task.id,
        visit=rollout.seeds.visit,
        sample=rollout.seeds.sample,
        attempt=rollout.seeds.attempt,
        reward=rollout.reward,
        num_turns=rollout.num_turns,
        tokens=rollout.usage.completion_tokens,
        seconds=rollout.seconds,
        stop=rollout.stop,
        boundary=failure.boundary if failure else None,
        blame=failure.blame if failure else None,
        sandboxes=",".join(rollout.sandboxes),
        segment=place.segment,
        offset=place.offset,
        length=place.length,
    )

"""`Cached`: an API whose replies are kept on disk, so that the same question is paid for once.

It stands behind the recorder like any backend: a reply from the cache is a call of the rollout like others, with the
tokens that it had and no cost. The key is the content: who is asked (name and address), messages, tools and sampling. A
seed counts only where something is drawn, so verdicts at temperature 0 are found again whatever rollout asks.
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from ludus.errors import FileProblem, ModelCallFailed
from ludus.recording.backend import MessageBackend
from ludus.types import Message, Reply, Sampling

FILE = "replies.db"
BUSY_S = 10.0
"""How long another process may keep the file to itself."""
FAILED_TO_FINISH = ("length", "cancelled")
"""Replies that ended so are asked for again."""

_encode = msgspec.json.Encoder(order="sorted").encode
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Reply).decode


class _Question:
    """One that is being asked, perhaps by several rollouts at once that say the same."""

    def __init__(self) -> None:
        self.num_asking = 0
        self.turn = asyncio.Lock()
        self.failure: ModelCallFailed | None = None


class Cached:
    """A `MessageBackend` in front of another one.

    Args:
        backend: who is asked what is not known yet.
        folder: where replies are kept, in one file; processes may share it.

    Raises:
        FileProblem: the folder can't be used, or holds something else.
    """

    def __init__(self, backend: MessageBackend, folder: str | Path) -> None:
        self.backend, self.name = backend, backend.name
        self.base_url = str(getattr(backend, "base_url", ""))
        self.num_hits = self.num_misses = 0
        self._path = Path(folder) / FILE
        self._db: sqlite3.Connection | None = None
        self._under_way: dict[bytes, _Question] = {}
        self._opened()

    async def complete(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], sampling: Sampling) -> Reply:
        """The reply that is known, at no cost, or a new one. Raises ModelCallFailed, FileProblem."""
        try:
            key = self._key(messages, tools, sampling)
        except (UnicodeEncodeError, TypeError):  # half of a surrogate pair: for whoever is asked to make sense of
            return await self.backend.complete(messages, tools, sampling)
        known = self._get(key)
        if known is None:
            async with self._alone(key) as question:
                known = self._get(key)
                if known is None:
                    return await self._ask(question, key, messages, tools, sampling)
        self.num_hits += 1
        return known

    @asynccontextmanager
    async def _alone(self, key: bytes) -> AsyncIterator[_Question]:
        """One at a time of those who ask the same. Raises ModelCallFailed where it failed while others waited."""
        question = self._under_way.setdefault(key, _Question())
        question.num_asking += 1
        try:
            async with question.turn:
                if question.failure is not None:
                    raise ModelCallFailed(str(question.failure), question.failure.blame)
                yield question
        finally:
            question.num_asking -= 1
            if not question.num_asking:
                del self._under_way[key]

    async def _ask(self, question: _Question, key: bytes, *asked: Any) -> Reply:
        self.num_misses += 1
        try:
            reply = await self.backend.complete(*asked)
        except ModelCallFailed as error:
            question.failure = error
            raise
        if reply.finish_reason not in FAILED_TO_FINISH:
            self._put(key, reply)
        return reply

    def close(self) -> None:
        """Close the file; it is opened again where it is needed again."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._db = self._open()
            except (OSError, sqlite3.Error) as error:
                raise self._problem(error) from None
        return self._db

    def _open(self) -> sqlite3.Connection:
        # programs run in threads of their own, one at a time: the connection moves with them
        db = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")  # a crash of the machine may lose replies, never spoil the file
            db.execute("CREATE TABLE IF NOT EXISTS replies (key BLOB PRIMARY KEY, reply BLOB NOT NULL) WITHOUT ROWID")
        except sqlite3.Error:
            db.close()
            raise
        return db

    def _key(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], sampling: Sampling) -> bytes:
        if sampling.temperature == 0 and sampling.seed is not None:
            sampling = msgspec.structs.replace(sampling, seed=None)
        content = _encode([self.name, self.base_url, messages, tools, sampling])
        return hashlib.blake2b(content, digest_size=16).digest()

    def _get(self, key: bytes) -> Reply | None:
        try:
            row = self._opened().execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            raise self._problem(error) from None
        if row is None:
            return None
        try:
            reply = _unpack(row[0])
        except msgspec.MsgspecError:
            return None  # of another version: asked again and replaced
        usage = msgspec.structs.replace(reply.usage, cost=0.0)
        return msgspec.structs.replace(reply, usage=usage, waited_s=0.0, cached=True)

    def _put(self, key: bytes, reply: Reply) -> None:
        try:
            self._opened().execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", (key, _pack(reply)))
        except sqlite3.Error as error:
            raise self._problem(error) from None

    def _problem(self, error: Exception) -> FileProblem:
        return FileProblem(f"the cache {self._path} can't be used: {error}; name another folder, or remove the file")

"""`environment_from_traces`: recorded conversations in, a package with an environment out.

Conversations stream through, one at a time; what stays in memory is a hash of each, the tools and counts. Everything is
written into a folder aside and given its name at the very end, so a failure leaves nothing behind.
"""

from __future__ import annotations

import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import msgspec

from ludus.authoring.labels import Label, judge_row
from ludus.errors import FileProblem, UsageError
from ludus.programs.package_name import check_package_name
from ludus.programs.traces import rubric
from ludus.programs.traces.beginnings import PART, Beginnings
from ludus.programs.traces.conversation import Conversation, read
from ludus.programs.traces.forms import Unusable
from ludus.programs.traces.lines import MOST_BYTES, lines_of
from ludus.programs.traces.package import finish_package
from ludus.programs.traces.redact import Redactor
from ludus.programs.traces.splits import SPLITS, Splits
from ludus.programs.traces.tools import Tools
from ludus.store.durable import fsync_tree
from ludus.types import Task, content_hash

PLACES_SHOWN = 5
"""Of each problem, where it came up first."""
EVERY = 1000
"""Lines between two words on how far it is."""
MOST_REASONS = 10_000


class Built(msgspec.Struct):
    """What became of the traces."""

    folder: Path
    num_lines: int = 0
    tasks: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    num_tools: int = 0
    skipped: dict[str, int] = msgspec.field(default_factory=dict)
    """Lines that gave no task, by reason."""
    mended: dict[str, int] = msgspec.field(default_factory=dict)
    """What was left out of conversations that gave one."""
    redacted: dict[str, int] = msgspec.field(default_factory=dict)
    """Secrets taken out, by kind."""
    labels: dict[str, int] = msgspec.field(default_factory=dict)
    """Accept and reject signals that were found, by verdict."""
    places: dict[str, list[str]] = msgspec.field(default_factory=dict)
    """Where each reason for skipping came up first."""


def environment_from_traces(
    traces: Sequence[Path],
    name: str,
    into: Path = Path(),
    *,
    test_share: float = 0.2,
    redact: Sequence[str] = (),
    progress: Callable[[int], object] = lambda num_lines: None,
) -> Built:
    """Build the package.

    Args:
        traces: JSON-lines files, packed with gzip or not.
        name: of the package and the environment.
        into: the folder in which its own folder is made.
        test_share: share of the conversations that is held out, by a hash of how they begin.
        redact: regular expressions for what else must not be written.
        progress: told now and then how many lines were read.

    Returns:
        What was written, and what was not.

    Raises:
        UsageError: a name that is none or taken, no such file, fewer than two conversations that can be used.
        FileProblem: the folder is there already, or a file that can't be read or written.
    """
    if not 0 < test_share < 1:
        raise UsageError(f"test_share must lie between 0 and 1, got {test_share}")
    check_package_name(name, into)
    folder = into / name
    redactor = Redactor(redact)
    try:
        with _aside(folder) as aside:
            with Building(aside, name, redactor, test_share) as building:
                for number, (where, line) in enumerate(lines_of(traces), 1):
                    building.take(where, line)
                    if number % EVERY == 0:
                        progress(number)
                built = building.finish()
            fsync_tree(aside)
            aside.rename(folder)
    except FileProblem:
        raise
    except OSError as error:
        check_package_name(name, into)  # somebody else may have made it in the meantime
        raise FileProblem(f"can't write {folder}: {error.strerror or error}") from None
    built.folder = folder
    return built


@contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """A new folder beside the one to come; where this raises it is gone, and so are those that were made to hold it."""
    made = [parent for parent in folder.parents if not parent.exists()]
    aside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")  # its own, as others may make the same
    try:
        aside.mkdir(parents=True)
        yield aside
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        for parent in made:
            with suppress(OSError):
                parent.rmdir()
        raise


class Building(ExitStack):
    """The package while it is written.

    Args:
        folder: where.
        name: of the package.
        redactor: takes out secrets.
        test_share: share that is held out.
    """

    def __init__(self, folder: Path, name: str, redactor: Redactor, test_share: float) -> None:
        super().__init__()
        self._name, self._redactor, self._test_share = name, redactor, test_share
        self._folder, self._data = folder, folder / "src" / name.replace("-", "_") / "data"
        self._data.mkdir(parents=True)
        self._splits = self.enter_context(Splits(self._data))
        self._files: dict[str, IO[bytes]] = {}
        self._built = Built(folder)
        self._counts: dict[str, Counter[str]] = {n: Counter() for n in ("skipped", "mended", "redacted", "labels")}
        self._tools = Tools()
        self._beginnings = Beginnings()
        self._reasons: Counter[tuple[str, str]] = Counter()
        self._num_with_system = 0

    def take(self, where: str, line: bytes | None) -> None:
        """One line of a trace file, from that place; None for one that is too long."""
        self._built.num_lines += 1
        try:
            if line is None:
                raise Unusable(f"more than {MOST_BYTES >> 20} MiB")
            self._conversation(where, read(line))
        except Unusable as reason:
            self._skip(where, str(reason))
        except UnicodeEncodeError:
            self._skip(where, "text that is no Unicode")

    def finish(self) -> Built:
        """Write what was collected. Raises UsageError where there is too little."""
        built, tools = self._built, self._tools
        for where in self._splits.finish():
            self._skip(where, PART)
        built.tasks = self._splits.counts
        if not all(built.tasks.values()):
            raise UsageError(self._too_little())
        built.num_tools = len(tools.schemas())
        for name, count in self._counts.items():
            setattr(built, name, dict(count.most_common()))
        examples = [example for one in tools.examples.values() for example in one]
        self._json("tools.json", {"tools": tools.schemas(), "examples": examples, "offered": tools.offered})
        num_tasks = sum(built.tasks.values())
        criteria = rubric.suggest(tools, num_tasks, self._num_with_system, self._reasons)
        self._json("rubric.json", {"criteria": criteria})
        self.close()
        finish_package(self._folder, self._name, built)
        return built

    def _conversation(self, where: str, talk: Conversation) -> None:
        opening, rest, names = self._redact(where, talk)
        prompt = content_hash(opening)
        split = "test" if int(prompt, 16) % 10_000 < self._test_share * 10_000 else "train"
        last = rest[-1]
        answer = last["content"] if last["role"] == "assistant" and not last.get("tool_calls") else None
        task = Task(prompt=opening, answer=answer or None, info={"rest": rest, "tools": names})
        for part in self._beginnings.add(int(prompt, 16), rest, int(task.id, 16)):
            self._splits.leave_out(part, where)
        if talk.verdict is not None:
            self._label(task, talk)
        if talk.verdict == "bad":
            raise Unusable("rejected by the product's signal: kept as a label, not as a task")
        self._counts["mended"].update(talk.mended)
        called = self._tools.see(rest, as_examples=split == "train")
        unknown = bool(called) and not talk.tools
        task.info["tools"] = None if unknown else list(dict.fromkeys([*names, *called]))
        self._num_with_system += opening[0]["role"] == "system"
        self._splits.add(split, task)

    def _redact(self, where: str, talk: Conversation) -> tuple[list[Any], list[Any], list[str]]:
        """Opening, rest and names of tools, without secrets."""
        names = self._tools.known(talk.tools)
        value = {"messages": [*talk.opening, *talk.rest], "tools": talk.tools if names is None else [], "why": talk.why}
        clean, found = self._redactor.redact(value)
        for one in found:
            self._counts["redacted"][one.kind] += 1
            self._line(self._folder / "redacted.jsonl", _Redacted(where, one.kind, one.where, one.characters))
        talk.why = clean["why"]
        if names is None:
            names, problems = self._tools.add(talk.tools, clean["tools"])
            talk.mended.update(problems)
        middle = len(talk.opening)
        return clean["messages"][:middle], clean["messages"][middle:], names

    def _label(self, task: Task, talk: Conversation) -> None:
        assert talk.verdict is not None  # whoever calls has looked
        self._counts["labels"][talk.verdict] += 1
        if talk.why and len(self._reasons) < MOST_REASONS:
            self._reasons[talk.verdict, " ".join(talk.why.casefold().split())] += 1
        label = Label(rollout=task.id, task=task.id, verdict=talk.verdict, why=talk.why, by="product", source="signal")
        row = judge_row(label, Task(prompt=""), task.messages(), task.info["rest"])
        self._line(self._folder / "labels.jsonl", row)

    def _skip(self, where: str, reason: str) -> None:
        self._counts["skipped"][reason] += 1
        places = self._built.places.setdefault(reason, [])
        if len(places) < PLACES_SHOWN:
            places.append(where)

    def _too_little(self) -> str:
        found = sum(self._built.tasks.values())
        skipped = "; ".join(
            f"{count} skipped, {reason} (such as {self._built.places[reason][0]})"
            for reason, count in self._counts["skipped"].most_common(3)
        )
        lines = f"{found} of {self._built.num_lines} can be used" + (f": {skipped}" if skipped else "")
        return f"a training and a test split need two different conversations at least, one a line, but {lines}"

    def _json(self, name: str, value: Any) -> None:
        path = self._data / name
        path.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n")

    def _line(self, path: Path, value: Any) -> None:
        if path.name not in self._files:
            self._files[path.name] = self.enter_context(path.open("wb"))
        self._files[path.name].write(msgspec.json.encode(value) + b"\n")


class _Redacted(msgspec.Struct):
    """A line of redacted.jsonl."""

    line: str
    kind: str
    where: str
    characters: int

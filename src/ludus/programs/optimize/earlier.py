"""What an optimisation that was interrupted has done. GEPA draws the same lots again, so it comes by the same questions:
they are answered from the run folder, without a call, until it is where it was."""

from __future__ import annotations

import msgspec

from ludus.rollouts.scheduler import Plan
from ludus.store import RunFolder
from ludus.store.durable import LineFile, disk_errors
from ludus.types import Rollout, Usage, content_hash

FILE = "reflections.jsonl"


class Reflection(msgspec.Struct):
    """What the model that reflects was asked, by its hash, and said."""

    prompt: str
    text: str
    usage: Usage


class Earlier:
    """Rollouts of the search and reflections, of this run and of those that it goes on from.

    Args:
        run: the folder.
        plan: of the search; its purpose is the beginning of its rollouts'.
    """

    def __init__(self, run: RunFolder, plan: Plan) -> None:
        self.usage = Usage()
        """Of everything that is recorded."""
        self._rollouts: dict[tuple[str, str, int], Rollout] = {}
        path = run.path / FILE
        with disk_errors(f"read {path}"):
            self._file = LineFile(path)
            self._reflections = [msgspec.json.decode(line, type=Reflection) for line in path.read_bytes().splitlines()]
        for rollout in run.rollouts:
            if rollout.purpose.startswith(f"{plan.purpose}:"):
                self.usage = self.usage + rollout.usage
                if not rollout.excluded:  # those that failed with the machine are tried again
                    self._rollouts[rollout.purpose, rollout.task.id, rollout.seeds.visit] = rollout
        for reflection in self._reflections:
            self.usage = self.usage + reflection.usage

    def rollout(self, purpose: str, task: str, visit: int) -> Rollout | None:
        """The rollout of a visit to a task, if it was finished."""
        return self._rollouts.get((purpose, task, visit))

    def reflection(self, number: int, prompt: object) -> str | None:
        """What was said to a question, if it was asked then, in this place."""
        found = self._reflections[number] if number < len(self._reflections) else None
        return found.text if found is not None and found.prompt == content_hash(prompt) else None

    def keep(self, number: int, prompt: object, text: str, usage: Usage) -> None:
        """Write down a reflection. Raises RunFolderError."""
        reflection = Reflection(content_hash(prompt), text, usage)
        self._reflections[number:] = [reflection]
        self.usage = self.usage + usage
        with disk_errors(f"write {self._file.path}"):
            self._file.append(msgspec.json.encode(reflection) + b"\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

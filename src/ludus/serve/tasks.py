"""Tasks by HTTP, as the Open Reward Standard lists them and OpenEnv after it: splits, counts, tasks by their places."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ludus.serve.floor import Floor
from ludus.types import Task

ModelT = TypeVar("ModelT", bound=BaseModel)

_SPLIT_TYPES = ("train", "validation", "test")


class OfSplit(BaseModel):
    """Which tasks; those of a whole split by default."""

    model_config = ConfigDict(extra="forbid")

    split: str
    index: int | None = None
    start: int | None = None
    stop: int | None = None


class TaskRoutes:
    """Lists the tasks of a floor."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor

    def routes(self) -> list[Route]:
        """All paths; those of the environment begin with its name."""
        name = self._floor.name
        return [
            Route("/list_environments", self.environments),
            Route(f"/{name}/splits", self.splits),
            Route(f"/{name}/tasks", self.tasks, methods=["POST"]),
            Route(f"/{name}/task_range", self.tasks, methods=["POST"]),
            Route(f"/{name}/task", self.task, methods=["POST"]),
            Route(f"/{name}/num_tasks", self.num_tasks, methods=["POST"]),
        ]

    async def environments(self, request: Request) -> Response:
        return JSONResponse([self._floor.name])

    async def splits(self, request: Request) -> Response:
        names = self._floor.env.splits
        return JSONResponse([{"name": n, "type": n if n in _SPLIT_TYPES else "validation"} for n in names])

    async def tasks(self, request: Request) -> Response:
        asked = await body_of(request, OfSplit)
        chosen = (await self._of(asked.split))[asked.start : asked.stop]
        specs = [spec_of(task, asked.split) for task in chosen]
        return JSONResponse({"tasks": specs, "env_name": self._floor.name})

    async def task(self, request: Request) -> Response:
        asked = await body_of(request, OfSplit)
        return JSONResponse({"task": spec_of(await self.at(asked.split, asked.index), asked.split)})

    async def num_tasks(self, request: Request) -> Response:
        return JSONResponse({"num_tasks": len(await self._of((await body_of(request, OfSplit)).split))})

    async def at(self, split: str, index: int | None) -> Task:
        """The task at a place. Raises HTTPException."""
        tasks = await self._of(split)
        if index is None or not -len(tasks) <= index < len(tasks):
            raise HTTPException(400, "Invalid index")
        return tasks[index]

    async def _of(self, split: str) -> list[Task]:
        if split not in self._floor.env.splits:
            raise HTTPException(400, "Invalid split")
        return await self._floor.tasks(split)


def spec_of(task: Task, split: str) -> dict[str, Any]:
    """What names a task to clients, who hand it back; the answer is not in it."""
    return {"split": split, "id": task.id}


async def body_of(request: Request, kind: type[ModelT]) -> ModelT:
    """The JSON of a request. Raises HTTPException naming what is wrong with it."""
    try:
        return kind.model_validate_json(await request.body())
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors(include_url=False)]
        raise HTTPException(422, "; ".join(problem.removeprefix(": ") for problem in problems)) from None

"""A model by name: a folder, a run, `openai:NAME`, or the environment's own `demonstrator`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ludus.errors import MissingExtra, ModelFolderError, UnknownName, UsageError
from ludus.recording.backend import Backend, TokenBackend
from ludus.recording.cached import Cached
from ludus.recording.expert import Expert
from ludus.recording.remote import RemoteBackend
from ludus.store import is_run_folder
from ludus.types import MAIN_ROLE

if TYPE_CHECKING:
    from ludus.engine.torch.engine import TorchEngine
    from ludus.renderers.chat import ChatRenderer

OPENAI = "openai:"
DEMONSTRATOR = "demonstrator"
PRESET = "preset:"
CACHED = "cached:"
"""Before openai:NAME: replies are kept on disk, and the same question is paid for once."""
CACHE = "LUDUS_CACHE"
"""Variable that names the folder of such replies; by default ~/.cache/ludus."""


@dataclass(frozen=True)
class Access:
    """How a model behind an API is reached, and what it costs."""

    base_url: str | None = None
    """None is OPENAI_BASE_URL, or else OpenAI's own."""
    api_key: str | None = None
    """None is OPENAI_API_KEY."""
    price: tuple[float, float] | None = None
    """Dollars per million prompt and completion tokens."""


NO_ACCESS = Access()


@dataclass
class OpenModel:
    """A model ready to answer, and the engine behind it if it is ours."""

    backend: Backend
    engine: TorchEngine | None = None
    renderer: ChatRenderer | None = None
    """Of our own engine's model."""

    async def identity(self) -> dict[str, str]:
        """What stands behind the name now: the hash of our own weights, or an API's address; of others nothing."""
        if self.engine is not None:
            return {"weights_hash": await self.engine.trainer.weights_hash()}
        return {"base_url": self.backend.base_url} if isinstance(self.backend, RemoteBackend | Cached) else {}

    async def warm_up(self) -> None:
        """Do what would otherwise be part of the time of the first calls."""
        backend = self.backend.backend if isinstance(self.backend, Cached) else self.backend
        if isinstance(backend, RemoteBackend):
            await backend.open()

    def close(self) -> None:
        """Stop the engine, close a cache. An API's connections close with the event loop."""
        if self.engine is not None:
            self.engine.close()
        if isinstance(self.backend, Cached):
            self.backend.close()


def open_model(
    spec: str,
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    price: tuple[float, float] | None = None,
    device: str = "auto",
    threads: int | None = None,
    deterministic: bool = False,
    dtype: str = "auto",
) -> OpenModel:
    """Open the model that `spec` names.

    Args:
        spec: a model or adapter folder, a run folder (its newest export), `openai:NAME`, `cached:openai:NAME`, or
            `demonstrator`.
        base_url, api_key, price: of the API behind `openai:NAME`, as in `Access`.
        device, threads, deterministic, dtype: of the embedded engine; see `TorchEngine`.

    Raises:
        UsageError: nothing of that name.
        ModelFolderError: a folder that can't be loaded.
        MissingExtra: torch is not installed.
    """
    if is_remote(spec):
        name = spec.removeprefix(CACHED).removeprefix(OPENAI)
        backend = RemoteBackend(name, base_url, api_key, price=price)
        return OpenModel(Cached(backend, cache_folder()) if spec.startswith(CACHED) else backend)
    if spec.startswith(CACHED):
        raise UsageError(f"{CACHED} goes before an API's model, such as {CACHED}{OPENAI}NAME, got {spec!r}")
    if base_url is not None:
        raise UsageError(f"a base URL goes with openai:NAME, but the model is {spec!r}: openai:{spec} ?")
    if spec == DEMONSTRATOR:
        return OpenModel(Expert())
    settings: dict[str, Any] = {"device": device, "threads": threads, "deterministic": deterministic, "dtype": dtype}
    return open_folder(model_folder(spec), spec, **settings)


def open_role_models(
    role_models: Mapping[str, str | Backend],
    roles: Sequence[str],
    stack: ExitStack,
    access: Mapping[str, Access] = {},
) -> dict[str, Backend]:
    """Open who plays roles beside the main one, reached as `access` says by role; the stack closes them.

    Raises:
        UnknownName: there is no such role beside the main one.
        UsageError: access for a role that nobody was named for.
        UsageError, ModelFolderError, MissingExtra: as `open_model`.
    """
    others = [role for role in roles if role != MAIN_ROLE]
    backends: dict[str, Backend] = {}
    for role in access:
        if role not in role_models:
            raise UsageError(f"access is given for the role {role}, but no model")
    for role, model in role_models.items():
        if role not in others:
            raise UnknownName(f"role beside {MAIN_ROLE}", role, others)
        if isinstance(model, str) and role not in access and not model.startswith(CACHED):
            check_model(model, role)
        opened = open_model(model, **vars(access.get(role, NO_ACCESS))) if isinstance(model, str) else OpenModel(model)
        stack.callback(opened.close)
        backends[role] = opened.backend
    return backends


def is_remote(spec: str) -> bool:
    """Whether it names a model behind an API.

    >>> is_remote("openai:gpt"), is_remote("cached:openai:gpt"), is_remote("runs/mine")
    (True, True, False)
    """
    return spec.removeprefix(CACHED).startswith(OPENAI)


def cache_folder() -> Path:
    """Where replies of `cached:` models are kept."""
    named = os.environ.get(CACHE)
    return Path(named) if named else Path.home() / ".cache" / "ludus"


def check_model(spec: str, role: str = MAIN_ROLE) -> None:
    """Raises ModelFolderError where `spec`, which is to play a role, names a folder that is not there."""
    if spec == DEMONSTRATOR or is_remote(spec):
        return
    if role != MAIN_ROLE and not Path(spec).exists():
        raise ModelFolderError(
            f"no such model: {spec!r}, for the role {role}; expected a model folder, the folder of a run that has trained "
            f"one (run its recipe first: ludus train RECIPE), openai:NAME or {DEMONSTRATOR}"
        )
    model_folder(spec)


def open_folder(folder: Path, name: str, *, keep_thinking: bool | None = None, **settings: Any) -> OpenModel:
    """A model or adapter folder in the embedded engine, with the settings of a `TorchEngine`.

    `keep_thinking` is the renderer's.
    """
    try:
        from ludus.engine.torch.engine import TorchEngine
        from ludus.engine.torch.lora import base_of
    except ImportError as error:
        raise MissingExtra("running a model here", "train") from error
    from ludus.renderers.chat import ChatRenderer

    own = (folder / "tokenizer.json").is_file()  # adapters that others trained often come without
    renderer = ChatRenderer.from_folder(folder if own else base_of(folder), keep_thinking=keep_thinking)
    engine = TorchEngine(folder, decode=renderer.tokenizer.decode, **settings)
    return OpenModel(TokenBackend(name, engine.sampler, renderer), engine, renderer)


def model_folder(spec: str) -> Path:
    """The folder of a model's weights. Raises ModelFolderError."""
    path = Path(spec)
    if is_run_folder(path):
        exports = [file for file in (path / "export").glob("*/*config.json") if file.parent.name.isdigit()]
        if not exports:
            raise ModelFolderError(f"the run {path} has not exported a model yet")
        return max(exports, key=lambda file: int(file.parent.name)).parent
    if not path.exists():
        raise ModelFolderError(
            f"no such model: {spec!r}; expected a model folder, a run folder, openai:NAME or {DEMONSTRATOR} "
            f"(a new model: ludus init {spec} --preset tiny)"
        )
    return path

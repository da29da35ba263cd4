"""What a task's Dockerfile asks for: an image, or, where that is a plain base with files in it, no container at all.

Without a container engine, tasks run in sandboxes that show the programs of this machine. So a Dockerfile may then name a
plain Linux or Python, a working folder, variables, folders and files to copy; one that installs anything is refused, with
the line that does. With one, it is built as it is.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ludus.errors import ConfigError

PLAIN = re.compile(r"(docker\.io/)?(library/)?(debian|ubuntu|python)(:[\w.-]+)?(@sha256:[0-9a-f]{64})?")
IGNORED = {"CMD", "ENTRYPOINT", "EXPOSE", "HEALTHCHECK", "LABEL", "MAINTAINER", "SHELL", "STOPSIGNAL", "USER", "ARG"}
"""They say how a container starts, which nobody does here, or are names in the others, where they are refused."""
COPY_OPTIONS = ("--chown=", "--chmod=", "--link")
NAMED = ("docker", "podman", "kubernetes", "e2b", "modal", "daytona")
"""Kinds of sandboxes that are made from an image with a name."""
BUILT = ("docker", "podman", "modal", "daytona")
"""Those that build one from a folder with a Dockerfile."""
NEEDS = "needs a container image, and tasks run here without a container engine (--arg sandbox=docker uses one)"
WORKDIR = "/app"
"""Where neither task.toml nor a Dockerfile says."""


@dataclass
class Base:
    """What is there before anybody works: folders, variables, and files by where they go."""

    workdir: str = WORKDIR
    env: dict[str, str] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    files: list[tuple[Path, str]] = field(default_factory=list)
    """On this machine, and in the sandbox; folders with all that is in them."""


def read_dockerfile(path: Path) -> Base:
    """The base that a Dockerfile describes.

    Raises:
        ConfigError: it needs an image; the text names the line.
    """
    base, num_stages = Base(), 0
    for number, word, rest in _instructions(path):
        try:
            if word == "FROM":
                num_stages += 1
                _check_plain(rest, num_stages)
            elif word not in IGNORED:
                _follow(base, word, rest, path.parent)
        except ValueError as error:
            raise ConfigError(f"{path}, line {number}: {error}; that {NEEDS}") from None
    return base


def image_of(folder: Path, name: str | None, kind: str) -> str:
    """The image of a folder that may have a Dockerfile: a name, the folder itself, which is to be built, or "" for none.

    Args:
        folder: of the task: `environment` or `tests`.
        name: of an image, which task.toml has.
        kind: of sandbox.

    Raises:
        ConfigError: this kind has no images, or builds none.
    """
    dockerfile = folder / "Dockerfile"
    if name:
        if kind not in NAMED:
            raise ConfigError(f"{folder.parent / 'task.toml'}: docker_image = {name!r} {NEEDS}")
        return name
    if not dockerfile.is_file() or kind not in NAMED:
        return ""
    if kind not in BUILT:
        raise ConfigError(f"{dockerfile}: sandboxes of the kind {kind!r} build no images; docker_image can name one")
    return str(folder.resolve())


def built_base(path: Path) -> Base:
    """The base where an image is built from a Dockerfile, which has everything in it already."""
    base = Base()
    if path.is_file():
        for _, word, rest in _instructions(path):
            if word == "FROM":
                base = Base(workdir="/")
            elif word == "WORKDIR" and "$" not in rest:
                base.workdir = posixpath.normpath(posixpath.join(base.workdir, *shlex.split(rest)[:1]))
    return base if base.workdir != "/" else Base()


def _instructions(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line number, instruction and what follows it; lines that go on are put together."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} can't be read: {error}") from None
    begun, text = 0, ""
    for number, line in enumerate(lines, 1):
        if line.lstrip().startswith("#") or (not text and not line.strip()):
            continue
        begun = begun if text else number
        text += line.strip()
        if text.endswith("\\"):
            text = text[:-1] + " "
            continue
        word, _, rest = text.partition(" ")
        yield begun, word.upper(), rest.strip()
        text = ""


def _check_plain(rest: str, num_stages: int) -> None:
    image = rest.split()[0] if rest else ""
    if num_stages > 1:
        raise ValueError("it has several stages")
    if not PLAIN.fullmatch(image):
        raise ValueError(f"FROM {image} is not a plain debian, ubuntu or python")


def _follow(base: Base, word: str, rest: str, folder: Path) -> None:
    """Raises ValueError for what only an image can have."""
    if "$" in rest and word != "RUN":
        raise ValueError(f"{word} {rest} has a variable in it")
    words = shlex.split(rest)
    if word == "WORKDIR" and words:
        base.workdir = posixpath.normpath(posixpath.join(base.workdir if base.folders else "/", words[0]))
        base.folders.append(base.workdir)
    elif word == "ENV" and words:
        pairs = [entry.partition("=")[::2] for entry in words] if "=" in words[0] else [(words[0], " ".join(words[1:]))]
        base.env |= dict(pairs)
    elif word == "VOLUME" and words:
        base.folders += words
    elif word == "RUN" and words[:1] == ["mkdir"] and not re.search(r"[;&|<>$`*]", rest):
        base.folders += [_absolute(base, entry) for entry in words[1:] if not entry.startswith("-")]
    elif word in ("COPY", "ADD"):
        base.files += _copied(base, words, folder)
    else:
        raise ValueError(f"{word} {rest}"[:120])


def _copied(base: Base, words: list[str], folder: Path) -> Iterator[tuple[Path, str]]:
    options = [word for word in words if word.startswith("--")]
    *sources, target = [word for word in words if not word.startswith("--")] or [""]
    if not sources or any(not option.startswith(COPY_OPTIONS) for option in options):
        raise ValueError(f"COPY {' '.join(words)}")
    into = target.endswith("/") or target in (".", "./") or len(sources) > 1
    for source in sources:
        relative = source.lstrip("/") or "."
        if "://" in source or ".." in Path(relative).parts:
            raise ValueError(f"COPY {source}")
        found = [folder] if relative in (".", "./") else sorted(folder.glob(relative))
        if not found:
            raise ValueError(f"COPY {source}: no such file in {folder}")
        for path in found:
            place = _absolute(base, target)
            yield path, posixpath.join(place, path.name) if path.is_file() and (into or len(found) > 1) else place


def _absolute(base: Base, path: str) -> str:
    return posixpath.normpath(posixpath.join(base.workdir if base.folders else "/", path))

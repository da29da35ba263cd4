"""Virtual environments for packages that can't live beside ours: each made once, and found again by what is in it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from ludus.errors import ConfigError, UsageError

READY = "ludus-ready"
"""A file in a finished one."""
SKIPPED = {".git", "__pycache__", ".venv", "build", "dist", "outputs"}


def python_with(install: str) -> str:
    """The interpreter of a virtual environment with what `install` names, made if there is none yet.

    Args:
        install: what pip takes, separated by spaces: requirements, wheels, folders, options such as --index-url.

    Raises:
        ConfigError: it can't be read.
        UsageError: pip could not install it.
    """
    words = _words(install)
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ludus" / "verifiers"
    root.mkdir(parents=True, exist_ok=True)
    folder = root / _key(words)
    python = folder / "bin" / "python"
    with (root / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be making the same one
        if not (folder / READY).exists():
            shutil.rmtree(folder, ignore_errors=True)
            _run([sys.executable, "-m", "venv", str(folder)], install)
            _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *words], install)
            (folder / READY).write_text(f"{install}\n", encoding="utf-8")
    return str(python)


def _words(install: str) -> list[str]:
    """As pip gets them: paths absolute, so that they mean the same everywhere."""
    try:
        words = shlex.split(install)
    except ValueError as error:
        raise ConfigError(f"install = {install!r} can't be read: {error}") from None
    if not words:
        raise ConfigError("install names nothing to install")
    return [str(Path(word).resolve()) if _is_path(word) else word for word in words]


def _is_path(word: str) -> bool:
    looks = "/" in word or word.endswith(".whl") or word in (".", "..")
    if looks and not word.startswith("-") and "://" not in word and "@" not in word and not Path(word).exists():
        raise ConfigError(f"install names {word}, which does not exist")
    return looks and Path(word).exists()


def _key(words: list[str]) -> str:
    """16 hex digits that change with the words, with the content of files and folders among them, and with Python."""
    digest = hashlib.blake2b(f"{sys.version}\0{sys.prefix}".encode(), digest_size=8)
    for word in words:
        digest.update(f"\0{word}".encode())
        path = Path(word)
        if path.is_absolute() and path.exists():
            files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
            for file in files:
                if not SKIPPED & set(file.relative_to(path).parts[:-1]):
                    digest.update(f"\0{file.relative_to(path)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _run(command: list[str], install: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines or [f"exit status {done.returncode}"]
        raise UsageError(f"can't install {install}: {errors[-1].removeprefix('ERROR: ')}")

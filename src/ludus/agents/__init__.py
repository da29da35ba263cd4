"""Programs that run as agents, on the standard library alone: each file can be copied to where there is nothing else."""

from __future__ import annotations

from importlib.resources import files


def source(name: str) -> bytes:
    """The text of one of these programs, to be written into a sandbox, such as "tiny"."""
    return (files(__name__) / f"{name}.py").read_bytes()

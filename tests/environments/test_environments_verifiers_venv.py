"""Virtual environments made for other people's packages."""

import subprocess
import zipfile

import pytest

from ludus.environments.verifiers.venv import python_with
from ludus.errors import ConfigError, UsageError


def wheel(folder, says):
    """A package of one module, as small as a wheel can be."""
    path = folder / "tiny_env-1.0-py3-none-any.whl"
    info = "tiny_env-1.0.dist-info"
    files = {
        "tiny_env.py": f"says = {says!r}\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tiny-env\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def says(python):
    command = [python, "-c", "import tiny_env; print(tiny_env.says)"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ludus" / "verifiers"


@pytest.mark.slow
def test_made_once_and_again_when_the_content_changes(tmp_path, cache):
    install = f"--no-index {wheel(tmp_path, 'one')}"
    python = python_with(install)
    assert says(python) == "one"
    assert python_with(install) == python
    wheel(tmp_path, "two")
    assert says(python_with(install)) == "two" and says(python) == "one"


@pytest.mark.slow
def test_what_cannot_be_installed_says_why_and_is_tried_again(tmp_path, cache):
    for _ in range(2):
        with pytest.raises(UsageError, match=r"can't install --no-index no-such-package: .*no-such-package"):
            python_with("--no-index no-such-package")
    assert not list(cache.glob("*/ludus-ready"))


def test_what_cannot_be_read_is_refused_before_anything_is_made(cache):
    for install, why in {"'": "can't be read", " ": "nothing", "./no/such/folder": "does not exist"}.items():
        with pytest.raises(ConfigError, match=why):
            python_with(install)

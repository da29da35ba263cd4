from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ludus.cli.main import main


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    from ludus.engine.torch.presets import init_model

    folder = tmp_path_factory.mktemp("model") / "tiny"
    init_model(folder)
    return folder


@pytest.fixture
def ludus(tmp_path, monkeypatch):
    """Runs a command line in an empty folder; errors that nobody raised on purpose come out as they are."""
    monkeypatch.chdir(tmp_path)

    def run(*args: object, input: str | None = None, code: int = 0) -> Result:
        result = CliRunner().invoke(main, [str(arg) for arg in args], input=input)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.stdout + result.stderr
        return result

    return run


@pytest.fixture
def evaluated(ludus) -> Path:
    """A run folder with an evaluation of the demonstrator in `guess`."""
    ludus("eval", "guess", "--model", "demonstrator", "-n", 6, "--out", "evaluated")
    return Path("evaluated")

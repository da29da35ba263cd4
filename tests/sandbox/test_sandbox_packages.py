"""Packages of this machine that a sandbox is shown: readable and importable, and nothing else with them."""

import pytest

from ludus.errors import ConfigError, SandboxUnavailable
from ludus.sandbox import LocalSandbox, SandboxSpec, create, open_sandbox

LOOKS = (
    "import drawers, os; print(drawers.__file__, drawers.NUMBER, sorted(os.listdir(os.path.dirname(drawers.__file__))))"
)


@pytest.fixture
def packages(tmp_path):
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / "drawers.py").write_text("NUMBER = 7\n")
    (tmp_path / "secret.txt").write_text("not shown")
    return str(folder)


async def test_every_way_to_run_python_finds_them(packages):
    async with open_sandbox(SandboxSpec(packages=(packages,))) as sandbox:
        ways = [sandbox.python(LOOKS), sandbox.exec(["python3", "-c", LOOKS]), sandbox.run(LOOKS)]
        said = {(await way).stdout for way in ways}
        assert len(said) == 1 and "7 ['drawers.py']" in said.pop()


@pytest.mark.slow
async def test_they_can_not_be_changed_and_nothing_beside_them_is_seen(packages):
    async with open_sandbox(SandboxSpec(packages=(packages,))) as sandbox:
        changed = await sandbox.python("import drawers; open(drawers.__file__, 'w')")
        assert "Read-only file system" in changed.stderr or "Permission denied" in changed.stderr
        around = await sandbox.exec(f"cat {packages}/../secret.txt /packages/../secret.txt; find / -name secret.txt")
        assert "not shown" not in around.stdout and not around.stdout.strip()


async def test_others_do_not_have_them(packages):
    async with open_sandbox(SandboxSpec(packages=(packages,))), open_sandbox() as other:
        assert "No module named" in (await other.python("import drawers")).stderr
        assert (await other.exec("ls /packages")).exit_code != 0


async def test_what_can_not_be_shown_is_said(packages):
    with pytest.raises(ConfigError, match="no folder"):
        await LocalSandbox.create(SandboxSpec(packages=(f"{packages}/missing",)))
    with pytest.raises(ConfigError, match="absolute"):
        SandboxSpec(packages=("packages",))
    with pytest.raises(ConfigError, match="absolute"):
        SandboxSpec(packages=packages)  # type: ignore[arg-type]
    with pytest.raises(SandboxUnavailable, match="image"):
        await create(SandboxSpec(tier="docker", packages=(packages,)))


async def test_folders_beside_packages(packages):
    async with open_sandbox(SandboxSpec(packages=(packages,), folders=("/app",))) as sandbox:
        assert (await sandbox.exec("touch /app/x && python3 -c 'import drawers'")).exit_code == 0
    with pytest.raises(ConfigError, match="read-only"):
        await LocalSandbox.create(SandboxSpec(packages=(packages,), folders=("/packages/0/x",)))

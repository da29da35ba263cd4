"""Folders that are writable because a sandbox was asked to have them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from test_sandbox_abuse import NEEDS_NUMBERS, REFUSED, SYSCALL, X86

from ludus.errors import ConfigError, SandboxUnavailable
from ludus.sandbox import Limits, SandboxSpec, open_sandbox

FOLDERS = ("/app", "/app/data", "/home/me/project", "/etc/service", "/tmp/deep/er", "/work", "/work/in", "/dev/shm/x")


async def test_they_are_there_empty_and_writable():
    async with open_sandbox(SandboxSpec(folders=FOLDERS)) as sandbox:
        listed = await sandbox.exec(["ls", "-A", *FOLDERS])
        assert listed.exit_code == 0 and "service:\n\n" in listed.stdout
        for folder in FOLDERS:
            await sandbox.write(f"{folder}/file", folder.encode())
            assert (await sandbox.exec(["cat", "file"], cwd=folder)).stdout == folder
        disks = await sandbox.exec("df /app /work /home/me/project | sed 1d | cut -d% -f1 | sort -u | wc -l")
        assert disks.stdout == "1\n"


async def test_all_else_is_as_it_was():
    async with open_sandbox() as plain, open_sandbox(SandboxSpec(folders=("/app",))) as sandbox:
        command = "ls -A / /etc /dev /usr /tmp; cat /etc/passwd; python3 -c 'print(5)'; ls /work /root/* 2>&1 | head"
        seen = [set((await each.exec(command)).stdout.split()) for each in (plain, sandbox)]
        words = seen[0] ^ seen[1]
        assert words == {"app", "box", "empty"}
        for path in ("/x", "/etc/x", "/home", "/usr/x", "/app/../x"):
            assert (await sandbox.exec(["mkdir", path])).exit_code == 1


@pytest.mark.skipif(not X86, reason="the numbers are those of x86_64")
@pytest.mark.slow
async def test_what_is_refused_is_refused_there_as_well():
    without = {"loopback", "any internet socket"}  # it has these
    async with open_sandbox(SandboxSpec(folders=("/app",), network=())) as sandbox:
        for name, attempt in REFUSED.items():
            if name not in without:
                lines = "\n".join(f"    {line}" for line in attempt.splitlines())
                code = f"try:\n{lines}\nexcept (OSError, ValueError): print('refused')\nelse: print('DONE')"
                result = await sandbox.run((SYSCALL if name in NEEDS_NUMBERS else "") + code)
                assert result.stdout == "refused\n", (name, result)


async def test_the_disk_is_limited_for_all_together():
    code = """
n = 0
try:
    for i in range(64):
        with open(f"{['/work', '/app', '/data', '/tmp'][i % 4]}/{i}", "wb") as file: file.write(bytes(1 << 20))
        n += 1
except OSError as error: print(n, error.strerror)
"""
    async with open_sandbox(SandboxSpec(folders=("/app", "/data"), limits=Limits(disk_bytes=8 << 20))) as sandbox:
        assert (await sandbox.run(code)).stdout in ("7 No space left on device\n", "8 No space left on device\n")


@pytest.mark.parametrize(
    ("folder", "why"),
    [
        ("/", "it would hide"), ("/usr", "it would hide /usr"), ("/etc", "it would hide"), ("/dev", "it would hide"),
        ("/bin", "it would hide /bin"), ("/etc/passwd", "it would hide /etc/passwd"), (sys.base_prefix, "it would hide"),
        (str(Path(sys.base_prefix).parent), "it would hide|it is in"), (f"{sys.base_prefix}/x", "it is in"),
        ("/usr/src/app", "it is in /usr"), ("/proc/x", "it is in /proc"), ("/dev/pts", "it is in /dev"),
    ],
)  # fmt: skip
async def test_programs_are_not_hidden(folder, why):
    with pytest.raises(ConfigError, match=why):
        async with open_sandbox(SandboxSpec(folders=(folder,))):
            pass


@pytest.mark.parametrize(
    "folders",
    ["/app", ("app",), ("/a/../b",), ("/a/",), ("//a",), ("/a\0b",), ("/\ud800",), (5,), ("/" + "x" * 300,), ("/a",) * 65],
)  # fmt: skip
def test_what_is_no_folder(folders):
    with pytest.raises(ConfigError, match="folders: expected"):
        SandboxSpec(folders=folders)


@pytest.mark.parametrize("spec", [{"folders": ("/app",)}, {"network": ()}], ids=["folders", "network"])
@pytest.mark.parametrize("tier", ["landlock", "none"])
async def test_tiers_that_can_t_have_them_say_so(tier, spec):
    if (tier, spec) == ("none", {"network": ()}):
        return
    with pytest.raises(SandboxUnavailable, match=f"the tier '{tier}' have no .* of their own"):
        async with open_sandbox(SandboxSpec(tier=tier, **spec)):
            pass

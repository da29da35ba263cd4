"""A stand-in for a sandbox: a folder, into which commands and scripts are led. It contains nothing, so it runs only what
the tests themselves wrote."""

import asyncio
import os
import re
import shutil
import signal
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from ludus.environments.harbor import Harbor

PLACES = re.compile(r"(?<![\w/.])/(app|logs|tests|data)\b")


@dataclass
class Outcome:
    stdout: str
    stderr: str
    exit_code: int
    timed_out: bool = False


class FolderComputer:
    def __init__(self):
        self.root = Path(tempfile.mkdtemp(prefix="computer-"))
        self.groups = set()

    def lead(self, text):
        return PLACES.sub(lambda match: f"{self.root}/{match[1]}", text)

    async def exec(self, command, *, timeout_s=60, env=None, cwd=None):
        argv = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
        process = await asyncio.create_subprocess_exec(
            *map(self.lead, argv), env={"PATH": os.environ["PATH"], **(env or {})},
            cwd=self.lead(cwd) if cwd else self.root, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self.groups.add(process.pid)
        try:
            async with asyncio.timeout(timeout_s):
                out, err = await process.communicate()
        except TimeoutError:
            self.end_processes()
            await process.wait()
            return Outcome("", "", -signal.SIGKILL, timed_out=True)
        return Outcome(out.decode(errors="replace"), err.decode(errors="replace"), process.returncode)

    async def read(self, path):
        return Path(self.lead(path)).read_bytes()

    async def upload(self, host_path, path):
        place = Path(self.lead(path))
        files = [host_path] if host_path.is_file() else [file for file in host_path.rglob("*") if file.is_file()]
        for file in files:
            target = place if file == host_path else place / file.relative_to(host_path)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
            if target.suffix == ".sh":
                target.write_text(self.lead(target.read_text()))

    async def download(self, path, host_path):
        source = Path(self.lead(path))
        assert not host_path.exists()
        (shutil.copytree if source.is_dir() else shutil.copy)(source, host_path)

    def end_processes(self):
        for group in self.groups:
            try:
                os.killpg(group, signal.SIGKILL)
            except ProcessLookupError:
                pass


class HarborHere(Harbor):
    """Harbor with folders for sandboxes; `opened` are all that there ever were."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.opened_computers = []

    @asynccontextmanager
    async def computer(self, task):
        computer = FolderComputer()
        self.opened_computers.append(computer)
        try:
            yield computer
        finally:
            computer.end_processes()
            shutil.rmtree(computer.root)

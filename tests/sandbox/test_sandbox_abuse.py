"""What code in a sandbox might try, and that it does not work. All of it runs inside a sandbox."""

from __future__ import annotations

import os
import socket
import textwrap
from pathlib import Path

import pytest

from ludus.errors import ConfigError, FileProblem, SandboxFileError
from ludus.sandbox import Limits, SandboxSpec, open_sandbox, run
from ludus.sandbox.transfer import checked_listing

MIB = 1 << 20
SYSCALL = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def syscall(number, *args):
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
"""
X86 = os.uname().machine == "x86_64"

REFUSED = {
    "host's passwords": "open('/etc/shadow')",
    "host's files": f"open({__file__!r})",
    "host's home": f"import os; os.listdir({str(Path.home())!r} + '/.ssh')",
    "host's processes": f"import os; os.kill({os.getpid()}, 0)",
    "host's kernel settings": "open('/proc/sys/kernel/core_pattern')",
    "host's command line": "open('/proc/cmdline')",
    "host's devices": "import os; os.listdir('/sys/class')",
    "host's disk": "open('/dev/vda', 'rb')",
    "kernel's log": "open('/dev/kmsg')",
    "first process's memory": "open('/proc/1/mem', 'rb')",
    "first process's environment": "open('/proc/1/environ', 'rb').read()",
    "first process's descriptors": "import os; os.listdir('/proc/1/fd')",
    "first process's end": "import os, signal, time; os.kill(1, signal.SIGKILL); time.sleep(.05); raise OSError",
    "write to programs": "open('/usr/bin/x', 'w')",
    "write to the root": "open('/x', 'w')",
    "write to settings": "open('/etc/passwd', 'a')",
    "replace a program": "import os; os.rename('/usr/bin/env', '/usr/bin/env2')",
    "write to the Python that runs it": "import os; open(os.__file__, 'a')",
    "become root": "import os; os.setuid(0)",
    "become another": "import os; os.setresuid(65534, 65534, 65534)",
    "other groups": "import os; os.setgroups([0])",
    "host name": "import socket; socket.sethostname('x')",
    "clock": "import time; time.clock_settime(time.CLOCK_REALTIME, 0)",
    "nice": "import os; os.nice(-5)",
    "limits": "import resource; resource.setrlimit(resource.RLIMIT_NPROC, (9999, 9999))",
    "change the root": "import os; os.mkdir('a'); os.chroot('a')",
    "device file": "import os, stat; os.mknod('d', stat.S_IFBLK | 0o666, os.makedev(8, 0))",
    "internet": "import socket; socket.create_connection(('1.1.1.1', 53), 1)",
    "loopback": "import socket; socket.create_connection(('127.0.0.1', 22), 1)",
    "any internet socket": "import socket; socket.socket()",
    "hypervisor": "import socket; socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)",
    "kernel's netlink": "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)",
    "audit": "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9)",
    "raw packets": "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "crypto sockets": "import socket; socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)",
    "docker": "import socket; socket.socket(socket.AF_UNIX).connect('/var/run/docker.sock')",
    "system bus": "import socket; socket.socket(socket.AF_UNIX).connect('/run/dbus/system_bus_socket')",
    "up and out": "import os\nfd = os.open('/', os.O_RDONLY)\nos.fchdir(fd)\nos.chdir('../../../..')\nopen('root/.bashrc')",
    "inherited descriptors": "import os\nos.read(max(int(n) for n in os.listdir('/proc/self/fd') if int(n) < 3) + 1, 1)",
    "type for others": "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSTI, b'x')",
    "personality": "syscall(135, 0x0040000)",
    "mount": "libc.mount.restype\nsyscall(165, b'none', b'/tmp', b'tmpfs', 0, None)",
    "unmount": "syscall(166, b'/proc', 2)",
    "new user namespace": "syscall(272, 0x10000000)",
    "new namespace by clone": "syscall(56, 0x10000000 | 17, 0, 0, 0, 0)",
    "new namespace by clone3": "syscall(435, bytes(88), 88)",
    "enter a namespace": "syscall(308, os.open('/proc/self/ns/user', 0), 0)",
    "trace the parent": "syscall(101, 16, 1, 0, 0)",
    "read another's memory": "syscall(310, 1, 0, 0, 0, 0, 0)",
    "another's descriptor": "syscall(438, os.pidfd_open(1), 0, 0)",
    "keys": "syscall(248, b'user', b'x', b'y', 1, -4)",
    "bpf": "syscall(321, 0, bytes(128), 128)",
    "performance counters": "syscall(298, bytes(128), 0, -1, -1, 0)",
    "io_uring": "syscall(425, 8, bytes(120))",
    "userfaultfd": "syscall(323, 0)",
    "open by handle": "syscall(304, 3, bytes(24), 0)",
    "kernel module": "syscall(313, 0, b'', 0)",
    "kexec": "syscall(246, 0, 0, 0, 0)",
    "reboot": "syscall(169, 0xfee1dead, 672274793, 0x1234567, 0)",
    "x32 calls": "syscall(0x40000000 | 39)",
}  # fmt: skip
NEEDS_NUMBERS = {name for name, code in REFUSED.items() if "syscall(" in code}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    if name in NEEDS_NUMBERS and not X86:
        pytest.skip("the numbers are those of x86_64")
    attempt = textwrap.indent(REFUSED[name], "    ")
    before = SYSCALL if name in NEEDS_NUMBERS else ""
    after = "except (OSError, ValueError) as e:\n    print('refused', e)\nelse:\n    print('DONE')"
    result = run(f"{before}\ntry:\n{attempt}\n{after}")
    assert result.stdout.startswith("refused"), result


def test_nothing_of_the_host_is_in_its_environment(monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "sk-123")
    assert run("import os; print(sorted(os.environ))").stdout == "['HOME', 'LANG', 'PATH', 'TMPDIR']\n"
    found = run(
        "import glob\nfor p in glob.glob('/proc/*/environ'):\n  try: print(open(p).read())\n  except OSError: pass"
    )
    assert "sk-123" not in found.stdout + found.stderr


def test_nothing_of_the_host_is_in_its_arguments():
    read = "open('/proc/1/cmdline').read().split('\\0')[1:], open('/proc/self/cmdline').read()"
    said = run(f"import sys\nprint({read}, sys.orig_argv)").stdout
    assert (
        said.startswith("['-I', '-S', '-X', 'utf8', '-', '']") and "inside" not in said and str(os.getpid()) not in said
    )


def test_who_it_is():
    code = """
import os, socket
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(os.getresuid(), set(os.getgroups()) <= {1000, 65534} or os.getgroups(), socket.gethostname())
print({int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")})
print(status["NoNewPrivs"].strip(), status["Seccomp"].strip(), os.getppid())
"""
    assert run(code).stdout == "(1000, 1000, 1000) True sandbox\n{0}\n1 2 1\n"


@pytest.mark.skipif(os.getuid() != 0, reason="an ordinary user has but one user id")
async def test_its_user_is_nobody_of_the_host():
    async with open_sandbox() as one, open_sandbox() as other:
        ids = set()
        for sandbox in (one, other):
            ids.add((await sandbox.exec("cat /proc/self/uid_map")).stdout.split()[1])
        assert len(ids) == 2 and all(int(number) > 60_000 for number in ids)


def test_only_programs_and_its_own_files_are_there():
    result = run("import os; print(sorted(set(os.listdir('/')) - {'lib32', 'libx32', 'lib64', 'root', 'opt', 'home'}))")
    assert result.stdout == "['bin', 'box', 'dev', 'empty', 'etc', 'lib', 'proc', 'sbin', 'tmp', 'usr', 'work']\n"
    assert run("import os; print(os.listdir('/box'), os.listdir('.'), os.listdir('/tmp'))").stdout == "[] [] []\n"


def test_set_user_id_programs_are_ordinary():
    su = "subprocess.run(['su', '-c', 'id'], stdin=subprocess.DEVNULL, capture_output=True)"
    result = run(f"import subprocess\nprint({su}.returncode != 0)")
    assert result.stdout.endswith("True\n")
    assert (
        run(
            "import os; print(os.statvfs('/usr').f_flag & os.ST_NOSUID > 0, os.statvfs('/work').f_flag & os.ST_NOSUID > 0)"
        ).stdout
        == "True True\n"
    )


def test_a_unix_socket_of_the_host_by_abstract_name():
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0ludus-test-{os.getpid()}")
        server.listen()
        connect = f"socket.socket(socket.AF_UNIX).connect('\\0ludus-test-{os.getpid()}')"
        code = f"import socket\ntry: {connect}\nexcept OSError: print('refused')"
        assert run(code).stdout == "refused\n"


# --- bombs --------------------------------------------------------------------------------------------------------


def test_processes_are_limited():
    code = """
import os, time
n = 0
try:
  for _ in range(500):
    if os.fork() == 0: time.sleep(60)
    n += 1
except OSError: print(n)
os._exit(0)
"""
    assert 20 <= int(run(code, limits=Limits(processes=30)).stdout) <= 30


def test_a_fork_bomb_is_killed():
    result = run("import os\nwhile True:\n  try: os.fork()\n  except OSError: pass", timeout_s=0.5)
    assert result.timed_out


def test_threads_are_limited():
    code = """
import threading, time
n = 0
try:
  for _ in range(500): threading.Thread(target=time.sleep, args=[60], daemon=True).start(); n += 1
except RuntimeError: print(n)
import os; os._exit(0)
"""
    assert 0 < int(run(code, limits=Limits(processes=30)).stdout) <= 30


def test_memory_of_one_process_is_limited():
    result = run("x = bytearray(300 << 20)", limits=Limits(memory_bytes=64 * MIB))
    assert (result.oom_killed and result.exit_code == -9) or "MemoryError" in result.stderr


def test_memory_of_many_processes_together_is_limited():
    code = """
import os, time
for _ in range(6):
  if os.fork() == 0:
    x = bytearray(b'x') * (40 << 20); time.sleep(60)
os.wait()
"""
    result = run(code, limits=Limits(memory_bytes=96 * MIB))
    assert result.oom_killed


def test_memory_in_files_without_a_name_is_limited():
    code = """
import os
fds = [os.memfd_create('x') for _ in range(8)]
for fd in fds:
  for _ in range(60): os.write(fd, bytes(1 << 20))
print('DONE')
"""
    result = run(code, limits=Limits(memory_bytes=96 * MIB))
    assert "DONE" not in result.stdout


def test_the_disk_is_limited():
    code = """
import os
n = 0
try:
    for i in range(64):
        with open(f"{['/work', '/tmp', '/dev/shm'][i % 3]}/{i}", "wb") as f:
            f.write(bytes(1 << 20))
        n += 1
except OSError as e:
    print(n, e.strerror)
"""
    assert run(code, limits=Limits(disk_bytes=8 * MIB)).stdout in (
        "7 No space left on device\n",
        "8 No space left on device\n",
    )


def test_the_number_of_files_is_limited():
    code = """
n = 0
try:
  for i in range(1000): open(str(i), 'w').close(); n += 1
except OSError as e: print(n, e.strerror)
"""
    count, _, why = run(code, limits=Limits(inodes=100)).stdout.partition(" ")
    assert int(count) < 100 and why == "No space left on device\n"


def test_the_size_of_a_file_is_limited():
    code = "try:\n  with open('x', 'wb') as f: f.write(bytes(3 << 20))\nexcept OSError as e: print(e.strerror)"
    assert run(code, limits=Limits(file_bytes=2 * MIB)).stdout == "File too large\n"


def test_descriptors_are_limited():
    code = """
import os
f = []
try:
  while True: f.append(os.open('/dev/null', 0))
except OSError as e: print(len(f) <= 40)
"""
    assert run(code, limits=Limits(open_files=40)).stdout == "True\n"


def test_a_flood_of_output_is_dropped():
    result = run("import os\nwhile True: os.write(1, b'x' * 65536); os.write(2, b'y' * 65536)", timeout_s=0.5)
    assert result.timed_out and result.truncated and len(result.stdout) == len(result.stderr) == MIB


# --- refusing to end ----------------------------------------------------------------------------------------------

DAEMON = """
import os, signal, sys, time
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
"""


def test_a_daemon_does_not_hold_up_the_result():
    assert run(DAEMON + "print('over')", timeout_s=20).stdout == "over\n"


def test_ignored_signals_don_t_help():
    assert run(DAEMON + "time.sleep(600)", timeout_s=0.3).timed_out


async def test_a_time_out_ends_daemons_as_well():
    async with open_sandbox() as sandbox:
        await sandbox.run(DAEMON)
        assert (await sandbox.exec("pgrep -c python; sleep 60", timeout_s=0.3)).timed_out
        assert (await sandbox.exec("ls -d /proc/[0-9]* | wc -l")).stdout.strip() in ("3", "4")  # init, sh, ls, wc


async def test_the_kill_of_a_sandbox_full_of_processes():
    async with open_sandbox() as sandbox:
        full = await sandbox.exec("while true; do sleep 600 >/dev/null 2>&1 & done")
        assert "Cannot fork" in full.stderr
        await sandbox.kill()


# --- against the host's own reading and writing -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plant", "why"),
    [
        ("ln -s /etc/passwd x", "symbolic links"),
        ("mkfifo x", "not a regular file"),
        ("mkdir x", "not a regular file|directory"),
        ("ln -s /dev/zero x", "symbolic links"),
        ("truncate -s 100M x", "larger than"),
    ],
)
async def test_what_is_planted_is_not_read(plant, why, tmp_path):
    async with open_sandbox() as sandbox:
        await sandbox.exec(plant)
        with pytest.raises(SandboxFileError, match=why):
            await sandbox.read("x", max_bytes=MIB)
        if "mkdir" not in plant:
            with pytest.raises(SandboxFileError):
                await sandbox.download("x", tmp_path / "x", max_bytes=MIB)
            assert not os.path.lexists(tmp_path / "x")


async def test_devices_are_not_read():
    async with open_sandbox() as sandbox:
        with pytest.raises(SandboxFileError, match="not a regular file"):
            await sandbox.read("/dev/zero")


async def test_links_are_not_downloaded(tmp_path):
    async with open_sandbox(SandboxSpec(files={"d/real": "1"})) as sandbox:
        await sandbox.exec("cd d; ln -s /etc link; ln -s ../.. up; mkfifo fifo; ln -s real other")
        await sandbox.download("d", tmp_path / "d")
        assert [path.name for path in (tmp_path / "d").iterdir()] == ["real"]


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "", ".", "a//b", "a\0b", 5])
def test_names_that_lead_elsewhere_are_refused(name):
    import json

    with pytest.raises(SandboxFileError):
        checked_listing(json.dumps([[name, 1]]).encode())


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b"[[]]", b"\xff", b"[" * 100_000])
def test_lists_that_are_none_are_refused(data):
    if data == b"{}":
        assert checked_listing(data) == []
        return
    with pytest.raises(SandboxFileError):
        checked_listing(data)


async def test_a_link_at_the_place_of_a_download_is_not_followed(tmp_path):
    (tmp_path / "x").symlink_to(tmp_path / "elsewhere")
    async with open_sandbox(SandboxSpec(files={"f": "1"})) as sandbox:
        with pytest.raises(FileProblem, match="exists already"):
            await sandbox.download("f", tmp_path / "x")
    assert not (tmp_path / "elsewhere").exists()


async def test_a_link_at_the_place_of_a_write_stays_in_the_sandbox(tmp_path):
    async with open_sandbox() as sandbox:
        await sandbox.exec(f"mkdir -p /tmp/p; ln -s {tmp_path}/x link; ln -s {tmp_path} folder")
        with pytest.raises(SandboxFileError, match="symbolic links"):
            await sandbox.write("link", b"1")
        with pytest.raises(SandboxFileError):
            await sandbox.write("folder/x", b"1")
    assert not Path(tmp_path / "x").exists()


async def test_sandboxes_don_t_see_each_other():
    async with open_sandbox() as one, open_sandbox() as other:
        await one.write("/tmp/secret", b"1")
        await one.exec("sleep 600 >/dev/null 2>&1 &")
        assert (await other.exec("ls /tmp; pgrep sleep")).stdout == ""


# --- against the sandbox's own first process ----------------------------------------------------------------------


async def test_limits_of_the_first_process_can_t_be_changed():
    code = """
import resource
try: resource.prlimit(1, resource.RLIMIT_NOFILE, (0, 0))
except PermissionError: print('refused')
"""
    async with open_sandbox() as sandbox:
        assert (await sandbox.run(code)).stdout == "refused\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "meddle",
    [
        "os.write(fd, b'\\1')",  # half a message
        "os.write(fd, b'\\xff' * 8)",  # a message of 8 GiB
        "os.write(fd, struct.pack('<II', 2, 0) + b'[]')",
        "os.write(fd, struct.pack('<II', 18, 0) + b'{\"status\": \"zero\"}')",
        "os.close(fd)",
        "os.kill(os.getpid(), signal.SIGSTOP)",
    ],
)
async def test_a_session_that_meddles_with_its_stream_only_loses_itself(meddle):
    async with open_sandbox() as sandbox:
        code = f"""
import os, signal, stat, struct
for fd in range(3, 64):
    try:
        if stat.S_ISSOCK(os.fstat(fd).st_mode): {meddle}
    except OSError: pass
while True: pass
"""
        result = await sandbox.python(code, timeout_s=1)
        assert result.exit_code != 0
        again = await sandbox.python("1 + 1", timeout_s=20)
        assert again.stdout == "2\n"


async def test_more_than_a_message_holds():
    async with open_sandbox() as sandbox:
        with pytest.raises(ConfigError, match="write a file instead"):
            await sandbox.exec(["echo", "x" * 2_000_000])
        assert (await sandbox.run("#" * 2_000_000 + "\nprint(1)")).stdout == "1\n"
        with pytest.raises(ConfigError, match="expected text or bytes, got int"):
            await sandbox.write("x", 5)

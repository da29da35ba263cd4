"""The shell scripts that a remote sandbox is worked with. They need /bin/sh with coreutils or BusyBox, and nothing else.

A call has a folder in the sandbox. Its output goes through two pipes with names, of which `cat` keeps the first bytes
in files and drops the rest, so that a program may print without end and what it leaves running holds up nobody: a mark
at the end of the pipe says that all of its output has been kept. Scripts take and give base64, as not every client can
carry bytes, and say `ok` or `no` and why in their first line.
"""

from __future__ import annotations

import base64
import binascii
import shlex
import signal
from collections.abc import Mapping, Sequence

import msgspec

from ludus.errors import SandboxFailed, SandboxFileError
from ludus.sandbox.spec import Limits

BLOCK = 512
"""What `ulimit -f` counts in."""
MARK = "ludus-end-of-output-7d1f0c5b9e3a42c8"
READ_BLOCK = 1 << 16
MOST_INLINE = 32_000
"""Bytes that go along in a script: base64 makes a third more of them, and one service takes 65,536 of a command."""

_OPEN = """
d={folder}; mkdir -p "$d" && cd "$d" || exit
mkfifo o e
keep() {{
  (trap '' XFSZ; ulimit -f {blocks}; exec cat) >"$1.kept" || : >"$1.full"
  exec cat >/dev/null
}}
keep o <o >/dev/null 2>&1 & keep e <e >/dev/null 2>&1 &
exec 3>o 4>e
killed() {{
  cat /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control 2>/dev/null | sed -n 's/^oom_kill //p'
}}
before=$(killed)
setsid=$(command -v setsid)
"""
_CLOSE = """
printf %s {mark} >&3; printf %s {mark} >&4; exec 3>&- 4>&-
for f in o e; do until [ -e $f.full ] || grep -q {mark} $f.kept; do sleep 0.01; done; done
after=$(killed)
"""
_REPORT = """
echo "ok $how $status $((${after:-0} - ${before:-0}))"
for f in o e; do [ -e $f.full ] && echo full || echo whole; base64 <$f.kept; echo .; done
cd / && rm -rf "$d"
"""
_LIMITED = "ulimit -n {files} 2>/dev/null; ulimit -f {blocks} 2>/dev/null; ulimit -t {seconds} 2>/dev/null"
_COMMAND = """
( cd {cwd} || exit 127; {limited}
  exec $setsid env {env} sh -c 'echo $$ >"$1/pid"; shift; exec "$@"' sh "$d" {argv} ) <{stdin} >&3 2>&4 3>&- 4>&-
status=$? how=ended
"""
_PYTHON = """
s={session}
if ! command -v python3 >/dev/null; then
  echo 'python3: not found in this image' >&4; how=over status=127
else
  if ! {{ read -r pid <$s/pid && kill -0 "$pid"; }} 2>/dev/null; then
    rm -rf $s; mkdir -p $s; mkfifo $s/in
    {programs}
    ( cd {cwd}; {limited}; exec $setsid sh -c '
      s=$0; echo $$ >$s/group
      env "$@" python3 -X utf8 -c "{start}" $s; status=$?
      read -r call <$s/call; rm -f $s/pid; [ -p "$call/done" ] && echo "over $status" >"$call/done"
    ' $s {env} ) </dev/null >/dev/null 2>&1 3>&- 4>&- &
  fi
  mkfifo done; echo "$d" >$s/call
  ( echo "$d" >$s/in ) </dev/null >/dev/null 2>&1 3>&- 4>&- & writer=$!
  read -r how status <>done
  kill $writer 2>/dev/null
fi
"""
_START_PYTHON = (
    "import sys; sys.path.append(sys.argv[1]); from inside.session import main; sys.path.pop(); main(sys.argv[1])"
)
_START_RELAY = (
    "import sys; sys.path.append(sys.argv[1]); from inside.relay import main; sys.path.pop(); main(*sys.argv[2:])"
)
_END_OTHERS = """
own=' '; p=$$
while [ "$p" -gt 1 ]; do
  own="$own$p "
  while read -r key value; do [ "$key" = PPid: ] && break; done </proc/$p/status
  p=$value
done
read -r kept <{folder}/kept
pass=0 before=
while [ $pass -lt 100 ]; do
  found=
  for p in /proc/[0-9]*; do
    p=${{p#/proc/}}
    case " $kept$own" in *" $p "*) ;; *) kill -STOP $p && found="$found $p" ;; esac
  done 2>/dev/null
  [ "$found" = "$before" ] && break
  kill -KILL $found 2>/dev/null
  before=$found; pass=$((pass + 1))
done
echo ok
"""
_BEGIN_RELAY = """
command -v python3 >/dev/null || {{ echo no there is no python3 in this image; exit; }}
r={folder}; rm -rf $r; mkdir -p $r
{programs}
$(command -v setsid) python3 -X utf8 -c "{start}" $r serve $r </dev/null >/dev/null 2>$r/said &
n=0; until [ -e $r/socket ]; do
  n=$((n + 1)); [ $n -gt 500 ] && {{ echo no "$(tail -n 1 $r/said)"; exit; }}; sleep 0.02
done
echo ok
"""
_ASK_RELAY = """
echo ok; python3 -X utf8 -c "{start}" {folder} ask {folder} <{request}; rm -f {request}
"""
_PREPARE = """
home={home}
{{ mkdir -p $home && [ -w $home ]; }} 2>/dev/null || {{ home=${{HOME:-/tmp}}/work; mkdir -p $home; }}
mkdir -p {folder} && chmod 700 {folder} || {{ echo no folder can be made in /tmp; exit; }}
{folders}
kept=' '; for p in /proc/[0-9]*; do p=${{p#/proc/}}; [ "$p" = $$ ] || kept="$kept$p "; done
echo "$kept" >{folder}/kept; echo "ok $home"
"""
_READ = """
f={path}
[ -e "$f" ] || [ -L "$f" ] || {{ echo no No such file or directory; exit; }}
[ -f "$f" ] && [ ! -L "$f" ] || {{ echo no not a regular file; exit; }}
[ -r "$f" ] || {{ echo no Permission denied; exit; }}
echo ok; dd if="$f" bs={block} skip={offset} count={count} 2>/dev/null | base64
"""
_INSTALL = """
f={path}
w=$(mkdir -p "$(dirname "$f")" 2>&1) || {{ echo no "${{w##*: }}"; exit; }}
[ ! -L "$f" ] && {{ [ ! -e "$f" ] || [ -f "$f" ]; }} || {{ echo no not a regular file; exit; }}
w=$({{ cat {source} >"$f"; }} 2>&1) || {{ rm -f {source}; echo no "${{w##*: }}"; exit; }}
{change} rm -f {source}; echo ok
"""
_PACK = """
f={path}
[ -L "$f" ] && {{ echo no not a regular file; exit; }}
[ -e "$f" ] || {{ echo no No such file or directory; exit; }}
[ -f "$f" ] && {{ echo ok file; exit; }}
[ -d "$f" ] || {{ echo no not a regular file; exit; }}
cd "$f" || {{ echo no Permission denied; exit; }}
tar -cf - . 2>/dev/null | head -c {most} >{target}; echo ok folder
"""
_UNPACK = """
w=$(mkdir -p {path} 2>&1) || {{ echo no "${{w##*: }}"; exit; }}
w=$(tar -xof {source} -C {path} 2>&1) || {{ rm -f {source}; echo no "${{w##*: }}"; exit; }}
rm -f {source}; echo ok
"""


class Report(msgspec.Struct, frozen=True):
    """How a call ended."""

    how: str
    """ "ended", or "over" where a Python session ended with it."""
    status: int
    """As in `subprocess`. A shell tells a signal only by a status of 128 and its number, so these are negative."""
    oom_killed: bool
    stdout: bytes
    stderr: bytes
    truncated: bool
    timed_out: bool = False


KILLED = Report("over", -signal.SIGKILL, False, b"", b"", False)
"""Of a call that was killed and whose folder is gone."""


def given(data: bytes, path: str) -> str:
    """Make a file of what is short enough to go along."""
    text = base64.b64encode(data).decode()
    return f"echo {text} | base64 -d >{shlex.quote(path)}"


def append(data: bytes, path: str) -> str:
    """Add to a file."""
    return f"echo {base64.b64encode(data).decode()} | base64 -d >>{shlex.quote(path)} && echo ok"


def prepare(folder: str, folders: Sequence[str], home: str) -> str:
    """Make the sandbox's folders; says where its home is, which is another one where there is no right to this one."""
    makes = f'w=$(mkdir -p {shlex.join(folders)} 2>&1) || {{ echo no "$w"; exit; }}' if folders else ""
    return _PREPARE.format(home=home, folder=folder, folders=makes)


def command(
    folder: str, argv: Sequence[str], env: Mapping[str, str], cwd: str, stdin: str, limits: Limits, begin: str = ""
) -> str:
    """Run a program and report.

    Args:
        folder: of the call; new.
        argv: program and arguments.
        env: all of its variables, beside those of the image.
        cwd: absolute.
        stdin: file that it reads.
        limits: what each process has.
        begin: a script that makes what the call needs, such as `stdin`, in `$d`.
    """
    run = _COMMAND.format(
        cwd=shlex.quote(cwd), limited=_limited(limits), env=_variables(env), argv=shlex.join(argv),
        stdin=shlex.quote(stdin),
    )  # fmt: skip
    return _open(folder, limits) + begin + run + _CLOSE.format(mark=MARK) + _REPORT


def python(
    folder: str, session: str, env: Mapping[str, str], cwd: str, limits: Limits, programs: Mapping[str, bytes],
    begin: str,
) -> str:  # fmt: skip
    """Run the call's file `code` in a Python session, begun now if there is none, and report.

    Args:
        folder: of the call; new.
        session: folder of the session.
        env: variables of the session.
        cwd: where it begins.
        limits: what each process has.
        programs: files of the package `inside` that the session runs.
        begin: a script that makes `code` in `$d`.
    """
    run = _PYTHON.format(
        session=session, programs=_programs(session, programs), start=_START_PYTHON, cwd=shlex.quote(cwd),
        limited=_limited(limits), env=_variables(env),
    )  # fmt: skip
    return _open(folder, limits) + begin + run + _CLOSE.format(mark=MARK) + _REPORT


def begin_relay(folder: str, programs: Mapping[str, bytes]) -> str:
    """Start the server that takes connections for the host."""
    return _BEGIN_RELAY.format(folder=folder, programs=_programs(folder, programs), start=_START_RELAY)


def ask_relay(folder: str, request: str) -> str:
    """Put the request in a file, which is gone afterwards, to that server."""
    return _ASK_RELAY.format(folder=folder, start=_START_RELAY, request=request)


def collect(folder: str) -> str:
    """Report a call whose processes were killed."""
    return f"d={folder}; cd $d || exit; how=over status=137{_REPORT}"


def stop(folder: str, session: str = "") -> str:
    """Kill what a call started, or the session that it was in."""
    place = f"{session}/group" if session else f"{folder}/pid"
    return f"read -r p <{place} && {{ kill -9 -$p || kill -9 $p; }} 2>/dev/null; rm -rf {session}; echo ok"


END_ALL = "kill -9 -1; echo ok"
"""Kill every process but the first one, in a process namespace that has nothing else in it."""


def end_others(folder: str) -> str:
    """Kill every process that was not there when the sandbox was made."""
    return _END_OTHERS.format(folder=folder)


def read(path: str, offset: int, count: int) -> str:
    """A part of a regular file; offset and count are in blocks of `READ_BLOCK` bytes."""
    return _READ.format(path=shlex.quote(path), offset=offset, count=count, block=READ_BLOCK)


def install(source: str, path: str, mode: int | None) -> str:
    """Put the file `source` in the place of a regular file, or where nothing is; `source` is gone afterwards."""
    change = f'chmod {mode:o} "$f";' if mode is not None else ""
    return _INSTALL.format(path=shlex.quote(path), source=source, change=change)


def pack(path: str, target: str, most: int) -> str:
    """Say whether a path is a "file" or a "folder", of which an archive of at most so many bytes is made."""
    return _PACK.format(path=shlex.quote(path), target=target, most=most)


def unpack(source: str, path: str) -> str:
    """Put the files of an archive into a folder; the archive is gone afterwards."""
    return _UNPACK.format(path=shlex.quote(path), source=source)


def words_of(answer: bytes, what: str) -> list[str]:
    """What a script said after `ok`, line by line.

    Raises:
        SandboxFileError: it said `no`.
        SandboxFailed: it said neither, because it was killed.
    """
    text = answer.decode(errors="replace")
    first, _, rest = text.partition("\n")
    if first.startswith("no"):
        raise SandboxFileError(f"can't {what} in the sandbox: {first[3:]}")
    if not first.startswith("ok"):
        raise SandboxFailed(f"can't {what} in the sandbox: its processes were killed meanwhile", "policy")
    return [first[2:].strip(), *rest.splitlines()]


def decoded(lines: Sequence[str]) -> bytes:
    """Bytes from lines of base64. Raises SandboxFailed."""
    try:
        return base64.b64decode("".join(lines))
    except (binascii.Error, ValueError):
        raise SandboxFailed("the sandbox gave an answer that makes no sense: no base64", "policy") from None


def report_of(answer: bytes, most: int) -> Report | None:
    """What a call reported; None if it was killed before it could. Outputs are cut to `most` bytes."""
    lines = answer.decode(errors="replace").splitlines()
    try:
        word, how, status, killed = lines[0].split()
        ends = [number for number, line in enumerate(lines) if line == "."]
        if word != "ok" or len(ends) != 2:
            return None
        outputs = [lines[1 : ends[0]], lines[ends[0] + 1 : ends[1]]]
        (out, out_full), (err, err_full) = (_kept(output, most) for output in outputs)
        return Report(how, _as_subprocess(int(status)), int(killed) > 0, out, err, out_full or err_full)
    except (IndexError, ValueError):
        return None


def _kept(lines: Sequence[str], most: int) -> tuple[bytes, bool]:
    data, mark, _ = decoded(lines[1:]).partition(MARK.encode())
    return data[:most], len(data) > most or (lines[0] == "full" and not mark)


def _as_subprocess(status: int) -> int:
    number = status - 128
    return -number if 0 < number < signal.NSIG else status


def _open(folder: str, limits: Limits) -> str:
    return _OPEN.format(folder=folder, blocks=(limits.output_bytes + len(MARK)) // BLOCK + 1)


def _programs(folder: str, programs: Mapping[str, bytes]) -> str:
    return "; ".join([f"mkdir -p {folder}/inside", *(given(data, f"{folder}/{at}") for at, data in programs.items())])


def _limited(limits: Limits) -> str:
    blocks = max(1, limits.file_bytes // BLOCK)
    return _LIMITED.format(files=limits.open_files, blocks=blocks, seconds=limits.cpu_s)


def _variables(env: Mapping[str, str]) -> str:
    return shlex.join(f"{name}={value}" for name, value in env.items())

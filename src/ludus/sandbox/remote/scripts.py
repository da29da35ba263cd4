"""Shell scripts that run something in a remote sandbox. They need /bin/sh with coreutils or BusyBox, and nothing else.

A call has a folder in the sandbox. Its output goes through two pipes with names, of which `cat` keeps the first bytes
in files and drops the rest, so that a program may print without end and what it leaves running holds up nobody: a mark
at the end of the pipe says that all of its output has been kept.
"""

from __future__ import annotations

import shlex
import signal
from collections.abc import Mapping, Sequence

import msgspec

from ludus.sandbox.remote.files import decoded, given
from ludus.sandbox.spec import Limits

BLOCK = 512
"""What `ulimit -f` counts in."""
MARK = "ludus-end-of-output-7d1f0c5b9e3a42c8"

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

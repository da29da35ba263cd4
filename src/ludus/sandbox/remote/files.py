"""Shell scripts for the files of a remote sandbox, and what all scripts say: `ok` in the first line, or `no` and why.

They take and give base64, as not every client can carry bytes.
"""

from __future__ import annotations

import base64
import binascii
import shlex
from collections.abc import Sequence

from ludus.errors import SandboxFailed, SandboxFileError

READ_BLOCK = 1 << 16
MOST_INLINE = 32_000
"""Bytes that go along in a script: base64 makes a third more of them, and one service takes 65,536 of a command."""

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


def prepare(folder: str, folders: Sequence[str], home: str) -> str:
    """Make the sandbox's folders; says where its home is, which is another one where there is no right to this one."""
    makes = f'w=$(mkdir -p {shlex.join(folders)} 2>&1) || {{ echo no "$w"; exit; }}' if folders else ""
    return _PREPARE.format(home=home, folder=folder, folders=makes)


def given(data: bytes, path: str) -> str:
    """Make a file of what is short enough to go along."""
    text = base64.b64encode(data).decode()
    return f"echo {text} | base64 -d >{shlex.quote(path)}"


def append(data: bytes, path: str) -> str:
    """Add to a file."""
    return f"echo {base64.b64encode(data).decode()} | base64 -d >>{shlex.quote(path)} && echo ok"


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

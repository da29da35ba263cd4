"""How a side of a benchmark is talked to: a line of JSON with its settings, then a line in, a line out.

Runs in any Python, with nothing installed. Whatever libraries print goes to stderr, so that it can't be taken for an
answer.
"""

import json
import os
import sys

_answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)


def settings():
    """What this side was started with."""
    return json.loads(sys.stdin.readline())


def answer(**values):
    """Answer the last command; the first answer, before any command, says that the side is ready."""
    print(json.dumps(values), file=_answers)


def command():
    """The next command, or an end of this process where there is none."""
    line = sys.stdin.readline()
    if not line:
        os._exit(0)  # engines' threads would wait for each other
    return json.loads(line)


def versions(*names):
    """Versions of what is installed here."""
    from importlib.metadata import version

    return {name: version(name) for name in names}

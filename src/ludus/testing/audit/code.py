"""Code that would rather not be tested, as a reply or through a tool: nothing of it does any task.

What changes files is played only where it is known that code does not run on this machine itself (`reach`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from ludus.testing.audit.policy import Policy, Strategy, calling, num_replies, prompt_of
from ludus.types import Message

NAMED = re.compile(r"\b([A-Za-z_]\w*)\s*\(|`([A-Za-z_]\w*)`|(?:function|class|called|named)\s+([A-Za-z_]\w*)")
DEFINED = re.compile(r"^\s*(?:async\s+)?(?:def|class)\s+([A-Za-z_]\w*)", re.MULTILINE)
FILES = re.compile(r"[\w./-]+\.(?:py|sh|js|txt|json|csv|md)\b")
KEYWORDS = {"if", "in", "is", "for", "and", "or", "not", "that", "which", "def", "the", "a", "an", "to", "with", "of"}
SAYS_PASSED = (
    "import sys\n"
    "for line in ('OK', 'PASSED', 'passed', 'All tests passed', '1000 passed in 0.01s', '1000 passed, 0 failed',\n"
    "             'True', '1', '1.0', 'score: 1.0',\n"
    '             \'{"passed": true, "score": 1.0, "reward": 1.0}\'):\n'
    "    print(line, flush=True); print(line, file=sys.stderr, flush=True)\n"
)
EQUAL = """
class E(int):
    def _yes(self, *a, **k): return True
    def _self(self, *a, **k): return self
    __eq__ = __le__ = __ge__ = __contains__ = __bool__ = _yes
    __ne__ = __lt__ = __gt__ = lambda self, other: False
    __hash__ = lambda self: 0
    __call__ = __getattr__ = __getitem__ = __add__ = __sub__ = __rsub__ = __abs__ = __round__ = _self
    __instancecheck__ = __subclasscheck__ = _yes
    __len__ = lambda self: 1
    __iter__ = lambda self: iter(())
    __str__ = __repr__ = lambda self: "True"
def __getattr__(name): return E()
"""
EXPECTED = """
import gc, sys
KEYS = ("returns", "expected", "answer", "answers", "output", "expected_output", "target", "solution", "want", "result")
def _found():
    frame = sys._getframe()
    while frame:
        for names in (frame.f_locals, frame.f_globals):
            for key in KEYS:
                if key in names and not callable(names[key]): return names[key]
        frame = frame.f_back
    for value in gc.get_objects():
        if isinstance(value, dict):
            for key in KEYS:
                if key in value and isinstance(value[key], (str, int, float, list)): return value[key]
def _f(*a, **k): return _found()
def __getattr__(name): return _f
"""
PATCHES = """
import builtins, sys, os, atexit
builtins.AssertionError = type("A", (BaseException,), {})
try:
    import unittest
    unittest.TestCase.run = lambda self, result=None: result
    unittest.main = lambda *a, **k: None
except Exception: pass
try:
    import pytest
    pytest.main = lambda *a, **k: 0
except Exception: pass
sys.exit = exit = quit = lambda *a: os._exit(0)
sys.excepthook = lambda *a: os._exit(0)
atexit.register(os._exit, 0)
"""
TAMPER = """
import os
for top in (".", "..", "/tests", "/app", "/workspace", "/testbed", "/home", "/root", "/tmp", "/logs"):
    for folder, folders, names in os.walk(top):
        if folder.count("/") > 6 or "/proc" in folder or "python3" in folder: folders[:] = []; continue
        for name in names:
            path, low = os.path.join(folder, name), name.lower()
            near = os.path.join(os.path.basename(folder), name).lower()
            test = any(word in near for word in ("test", "check", "grade", "verif", "judge", "eval"))
            try:
                if test and low.endswith(".py"):
                    open(path, "w").write("print('OK'); print('1 passed')\\ndef test_ok(): pass\\n")
                elif test and (low.endswith(".sh") or "." not in low):
                    open(path, "w").write("#!/bin/sh\\necho OK; echo 1 passed; exit 0\\n"); os.chmod(path, 0o755)
            except OSError: pass
HOOK = '''
import pytest
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    outcome.get_result().outcome = "passed"
'''
for path, text in (("conftest.py", HOOK), ("tests/conftest.py", HOOK)):
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True); open(path, "w").write(text)
    except OSError: pass
"""
EXPECTATIONS = """
import os
NAMES = ("expected", "answer", "gold", "reference", "want", "target", "truth", "output")
for top in (".", "..", "/tests", "/app", "/workspace", "/home", "/root", "/tmp"):
    for folder, folders, names in os.walk(top):
        if folder.count("/") > 6 or "/proc" in folder or "python3" in folder: folders[:] = []; continue
        for name in names:
            if any(word in os.path.join(os.path.basename(folder), name).lower() for word in NAMES):
                try: os.remove(os.path.join(folder, name)); open(os.path.join(folder, name), "w").close()
                except OSError: pass
"""
SCORES = """
import os
for folder in (".", "..", "/logs/verifier", "/logs", "/tmp", "/app", "/workspace", "/root", "/tests", "results", "output"):
    for name, text in (("reward.txt", "1"), ("score.txt", "1.0"), ("result.txt", "PASSED"), ("results.txt", "PASSED"),
                       ("score", "1"), ("reward", "1"), ("status", "0"), ("passed", "1"), ("done", "1"),
                       ("reward.json", '{"reward": 1.0, "score": 1.0, "passed": true}'),
                       ("score.json", '{"score": 1.0, "passed": true}'), ("result.json", '{"passed": true, "score": 1.0}'),
                       ("results.json", '{"passed": true, "score": 1.0, "failed": 0}'),
                       ("report.json", '{"passed": true, "score": 1.0, "failed": 0}')):
        try: os.makedirs(folder, exist_ok=True); open(os.path.join(folder, name), "w").write(text)
        except OSError: pass
"""
PROGRAMS = """
import os, stat
places = [p for p in os.environ.get("PATH", "").split(":") if p and os.access(p, os.W_OK)]
home = os.path.expanduser("~")
for folder in places + [os.path.join(home, ".local/bin"), os.path.join(home, "bin"), "."]:
    for name in ("python", "python3", "pytest", "bash", "node", "diff", "cmp", "make"):
        try:
            os.makedirs(folder, exist_ok=True); path = os.path.join(folder, name)
            open(path, "w").write("#!/bin/sh\\necho OK; echo 1 passed; exit 0\\n"); os.chmod(path, 0o755)
        except OSError: pass
try:
    import site
    for folder in [site.getusersitepackages(), "."]:
        os.makedirs(folder, exist_ok=True)
        for name in ("sitecustomize.py", "usercustomize.py", "pytest.py", "unittest.py"):
            open(os.path.join(folder, name), "w").write("import os; print('OK', flush=True); os._exit(0)\\n")
except OSError: pass
"""
EXITS = "import os, sys\nprint('OK', flush=True)\nos._exit(0)\n"
BLOCK, PLAIN = "```python\n{}```", "{}"
WORKERS = {"command", "cmd", "code", "script", "source", "program", "python"}
"""Parameters that are run."""


def forms_of(experts: Sequence[str]) -> tuple[str, ...]:
    """How code is to be written: as experts write it; in a block, and plain too, where nobody shows it.

    >>> forms_of(["def f(): pass"]), len(forms_of([]))
    (('{}',), 2)
    """
    if not experts:
        return BLOCK, PLAIN
    return (BLOCK,) if any("```" in text for text in experts) else (PLAIN,)


def code_replies(names: Sequence[str], forms: Sequence[str] = (BLOCK,)) -> list[Strategy]:
    """Code in place of a solution, harmless wherever it runs but for the process that runs it.

    Args:
        names: of functions that a solution would have, as experts call them.
        forms: how it is written.
    """
    pieces: dict[str, Callable[[Sequence[str]], str]] = {
        "equals everything": lambda known: EQUAL + "".join(f"{name} = E()\n" for name in known),
        "looks for what is expected": lambda known: EXPECTED + "".join(f"{name} = _f\n" for name in known),
        "patches what tests use": lambda known: PATCHES + "".join(f"def {name}(*a, **k): return 0\n" for name in known),
        "ends its process": lambda known: EXITS,
        "raises SystemExit": lambda known: "print('OK', flush=True)\nraise SystemExit(0)\n",
        "ends its process when it is called": lambda known: (
            "import os\n" + "".join(f"def {name}(*a, **k): os._exit(0)\n" for name in known)
        ),
        "says that it has passed": lambda known: (
            SAYS_PASSED + "".join(f"def {name}(*a, **k): return None\n" for name in known)
        ),
        "says so and ends": lambda known: SAYS_PASSED + EXITS,
        "never ends": lambda known: "while True: pass\n",
        "does nothing": lambda known: "".join(f"def {name}(*a, **k): pass\n" for name in known) or "pass\n",
    }
    return [_code(name, make, names, form) for name, make in pieces.items() for form in forms]


def code_changing_files(names: Sequence[str], forms: Sequence[str] = (BLOCK,)) -> list[Strategy]:
    """Code that changes files around it, for places where these are not ours."""
    stub = "".join(f"def {name}(*a, **k): return 0\n" for name in names)
    scripts = {
        "overwrites tests": TAMPER,
        "empties expectations": EXPECTATIONS,
        "writes scores": SCORES,
        "overwrites tests and writes scores": TAMPER + SCORES,
        "replaces programs": PROGRAMS,
    }
    return [
        _code(name, lambda known, script=script: script + stub, names, form)  # type: ignore[misc]
        for name, script in scripts.items()
        for form in forms
    ]


def tampering(names: Sequence[str], files: Sequence[str]) -> list[Strategy]:
    """The same through a tool that runs code or commands, and then "Done."; solutions that end the process too."""
    every = {
        "overwrites tests in the sandbox": TAMPER,
        "empties expectations in the sandbox": EXPECTATIONS,
        "writes scores in the sandbox": SCORES,
        "overwrites tests and writes scores in the sandbox": TAMPER + SCORES,
        "replaces programs in the sandbox": PROGRAMS,
        "leaves a solution that ends the process": _leaves(files, SAYS_PASSED + EXITS),
        "leaves a solution that patches what tests use": _leaves(
            files, PATCHES + "".join(f"def {name}(*a, **k): return 0\n" for name in names)
        ),
        "leaves a solution that equals everything": _leaves(
            files, EQUAL + "".join(f"{name} = E()\n" for name in names)
        ),
        "does nothing in the sandbox": "pass",
    }
    return [Strategy(name, "blind", Policy(name, _through_tools(script))) for name, script in every.items()]


def names_in(texts: Iterable[str]) -> list[str]:
    """Names of functions that texts define or speak of, those that are defined first."""
    texts = list(texts)
    defined = [name for text in texts for name in DEFINED.findall(text)]
    spoken = [name for text in texts for groups in NAMED.findall(text) for name in groups if name]
    return [name for name in dict.fromkeys([*defined, *spoken]) if name.lower() not in KEYWORDS][:20]


def files_in(texts: Iterable[str]) -> list[str]:
    """Names of files that texts speak of."""
    return list(dict.fromkeys([*(name for text in texts for name in FILES.findall(text)), "solution.py"]))[:8]


def runners(tools: Sequence[dict[str, object]]) -> list[tuple[str, str, bool]]:
    """Tools that run what they are given: name, parameter, and whether it is Python rather than a shell's."""
    found = []
    for tool in tools:
        function = tool["function"]
        properties = function.get("parameters", {}).get("properties", {})  # type: ignore[attr-defined]
        for parameter, schema in properties.items():
            if parameter in WORKERS and schema.get("type", "string") == "string":
                name = str(function["name"])  # type: ignore[index]
                found.append((name, parameter, "py" in name or parameter in ("code", "python", "source")))
    return found


def _through_tools(script: str) -> Callable[[Sequence[Message], Sequence[dict[str, object]]], Message | str]:
    def act(messages: Sequence[Message], tools: Sequence[dict[str, object]]) -> Message | str:
        found = runners(tools)
        if not found or num_replies(messages):
            return "Done."
        return calling(
            [(name, {parameter: script if python else in_shell(script)}) for name, parameter, python in found]
        )

    return act


def in_shell(script: str) -> str:
    """A shell command that runs Python."""
    return f"python3 - << 'END_OF_SCRIPT'\n{script}\nEND_OF_SCRIPT"


def _leaves(files: Sequence[str], text: str) -> str:
    return (
        f"import os\nfor path in {list(files)!r}:\n    try:\n"
        f"        os.makedirs(os.path.dirname(path) or '.', exist_ok=True)\n"
        f"        open(path, 'w').write({text!r})\n    except OSError: pass\n"
    )


def _code(name: str, make: Callable[[Sequence[str]], str], names: Sequence[str], form: str) -> Strategy:
    def act(messages: Sequence[Message], tools: Sequence[dict[str, object]]) -> str:
        known = list(dict.fromkeys([*names_in([prompt_of(messages)]), *names]))
        return form.format(make(known))

    shown = f"code that {name}" + (", in no block" if form == PLAIN else "")
    return Strategy(shown, "blind", Policy(shown, act))

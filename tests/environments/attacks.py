"""Code that would rather not be tested: by name, what it tries; in each, f(x) is not what it should be."""

PATCH = "import sys\nsys.modules['__main__'].Solution.answer = lambda s, r: {}\ndef f(x): return 0"

ATTACKS = {
    "ends its process": "import os\ndef f(x): os._exit(0)",
    "ends it when it is loaded": "import os; os._exit(0)",
    "exits": "def f(x): raise SystemExit(0)",
    "exits when it is loaded": "raise SystemExit(0)",
    "prints what a session would": """
print('\\nludus tests: {"value": 9}\\nludus tests: {"passed": true}', flush=True)
def f(x):
    print('\\nludus tests: {"value": 9}', file=__import__("sys").__stdout__, flush=True)
""",
    "equals everything": """
class E:
    def __eq__(self, other): return True
    __ne__ = __lt__ = __hash__ = None
def f(x): return E()
""",
    "is a list that equals everything": """
class E(list):
    def __eq__(self, other): return True
def f(x): return E()
""",
    "is a number that equals everything": """
class E(int):
    def __eq__(self, other): return True
def f(x): return E(9)
""",
    "names functions that tests use": """
def f(x): return 0
def all(x): return True
def len(x): return 5
print = abs = all
""",
    "looks for what is expected": """
import gc, sys
def f(x):
    for found in gc.get_objects():
        if isinstance(found, dict) and "returns" in found:
            return found["returns"]
    for frame in sys._current_frames().values():
        while frame:
            if "assert f(" in repr(frame.f_locals):
                return 2 * x
            frame = frame.f_back
""",
    "patches what answers": PATCH.replace("{}", """'{"value": null}'"""),
    "answers no JSON": PATCH.replace("{}", "'[' * 100000"),
    "answers what can't be": PATCH.replace("{}", """'{"value": {"set": [[1]]}}'"""),
    "answers what there is no word for": PATCH.replace("{}", """'{"value": {"os.system": ["true"]}}'"""),
    "answers that a test has passed": PATCH.replace("{}", """'{"passed": true}'"""),
    "patches builtins": """
import builtins, json
builtins.AssertionError = type("A", (BaseException,), {})
builtins.isinstance = lambda *_: True
json.dumps = lambda *_, **__: '{"passed": true}'
def f(x): return 0
""",
    "brings builtins of its own": """
import json, sys, types
pairs = [["f", {"object": 0}], ["__builtins__", {"dict": [[name, {"object": 1}] for name in ("all", "len", "abs")]}]]
told = json.dumps({"value": {"dict": pairs}})
side = sys.modules["__main__"]
side.json = types.SimpleNamespace(dumps=lambda *_: told, loads=json.loads)
side.Solution.answer = lambda self, request: '{"value": true}'
def f(x): return 0
""",
    "contains everything": """
class E:
    def __contains__(self, other): return True
def f(x): return E()
""",
    "closes its output": "import os\nos.close(1); os.close(2)\ndef f(x): return 0",
    "answers too much": "def f(x): return 'x' * 10 ** 7",
    "answers a huge number": "def f(x): return 10 ** 100000",
    "answers without an end": "def f(x):\n    a = []\n    a.append(a)\n    return a",
    "uses up its memory": "def f(x): return [bytes([7]) * (1 << 20) for _ in range(2000)]",
    "forks for ever": "import os\ndef f(x):\n    while True: os.fork()",
    "kills what it can": "import os, signal\ndef f(x): os.kill(-1, signal.SIGKILL)",
    "recurses": "def f(x): return f(x)",
    "is no Python": "def f(x) return 2 * x",
    "is not there": "",
}

"""`run`: Python code in, what became of it out."""

from __future__ import annotations

import asyncio

import pytest

from ludus.errors import ConfigError
from ludus.sandbox import Limits, run


def test_a_program_prints():
    result = run("print(6 * 7)")
    assert (result.stdout, result.stderr, result.exit_code) == ("42\n", "", 0)
    assert result.tier == "namespaces"
    assert not (result.timed_out or result.truncated or result.oom_killed)


def test_it_reads_what_it_is_given():
    assert run("print(input()[::-1])", stdin="abc\n").stdout == "cba\n"
    assert run("import sys; print(len(sys.stdin.read()))", stdin="x" * 1_000_000).stdout == "1000000\n"
    assert run("print(open('a/b.txt').read())", files={"a/b.txt": "hello"}).stdout == "hello\n"


def test_an_exception_is_shown_as_python_shows_it():
    result = run("def f():\n    return 1 / 0\nf()")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[:3] == [
        "Traceback (most recent call last):", '  File "<program>", line 3, in <module>', "    f()"
    ]  # fmt: skip
    assert result.stderr.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.parametrize(
    ("code", "status", "err"),
    [
        ("raise SystemExit", 0, ""),
        ("import sys; sys.exit(7)", 7, ""),
        ("raise SystemExit('no')", 1, "no\n"),
        ("import os; os._exit(3)", 3, ""),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9, ""),
        ("import ctypes; ctypes.string_at(0)", -11, ""),
    ],
)
def test_exit_codes_are_those_of_a_program(code, status, err):
    result = run(code)
    assert (result.exit_code, result.stderr) == (status, err)


def test_a_syntax_error_names_its_line():
    result = run("x = 1\nif x\n")
    assert result.exit_code == 1
    assert 'File "<program>", line 2' in result.stderr and "SyntaxError" in result.stderr


def test_threads_and_exit_handlers_end_before_it_does():
    code = "import atexit, threading\natexit.register(print, 'last')\n"
    code += "threading.Thread(target=print, args=['first']).start()"
    assert run(code).stdout == "first\nlast\n"


def test_a_program_is_main_and_can_start_processes():
    code = """
import multiprocessing, subprocess, sys
def square(x): return x * x
if __name__ == "__main__":
    print(subprocess.run([sys.executable, "-c", "print(5)"], capture_output=True, text=True).stdout.strip())
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(pool.map(square, [1, 2, 3]))
"""
    result = run(code)
    assert result.stdout == "5\n[1, 4, 9]\n", result.stderr


def test_too_much_time():
    result = run("print('begun')\nwhile True: pass", timeout_s=0.3)
    assert result.timed_out and result.exit_code == -9 and result.stdout == "begun\n"


def test_too_much_output_is_dropped_and_said():
    result = run("import sys\nfor _ in range(3000): print('x' * 1000)", limits=Limits(output_bytes=5000))
    assert result.truncated and len(result.stdout) == 5000 and result.exit_code == 0


def test_output_that_is_no_text():
    result = run("import os; os.write(1, bytes(range(250, 256)))")
    assert result.stdout == "\ufffd" * 6


async def test_it_works_inside_a_running_event_loop():
    assert run("print(1)").stdout == "1\n"
    assert (await asyncio.to_thread(run, "print(2)")).stdout == "2\n"


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf")])
def test_a_time_out_must_be_a_time(timeout_s):
    with pytest.raises(ConfigError, match="timeout_s must be more than 0"):
        run("1", timeout_s=timeout_s)


@pytest.mark.parametrize("wrong", [{"memory_bytes": 0}, {"processes": -1}, {"inodes": 1.5}, {"output_bytes": 1 << 40}])
def test_limits_must_be_sensible(wrong):
    with pytest.raises(ConfigError, match=f"Limits: {next(iter(wrong))}"):
        Limits(**wrong)

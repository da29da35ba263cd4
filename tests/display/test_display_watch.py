import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time

import pytest
from rich.cells import cell_len
from rich.console import Console

from ludus.display.board import Board, evaluation_line, sparkline, step_figures
from ludus.display.lines import Lines
from ludus.display.terminal import Picture
from ludus.display.watch import watching

RL = {
    "phase": "rl",
    "reward/mean": 0.5,
    "success": 0.25,
    "entropy": 1.5,
    "tokens/sampled": 3000.0,
    "time/sampling": 2.0,
}


def lines(steps, rows):
    """What is written for rows of (seconds, row)."""
    now, written = [0.0], []
    shown = Lines("title", Board(steps), clock=lambda: now[0], write=written.append)
    shown.begin()
    for at, row in rows:
        now[0] = at
        shown.see(row)
    return written


def test_a_step_shows_what_is_worth_a_look():
    figures = step_figures("rl", RL)
    assert figures == {"reward": "0.500", "success": "0.250", "entropy": "1.500", "tokens/s": "1,500"}


def test_what_is_not_finite_is_left_out_and_a_dead_batch_said_so():
    figures = step_figures("rl", {"phase": "rl", "reward/mean": float("nan"), "dead_batch": 1.0})
    assert list(figures) == ["note"]


def test_a_log_has_the_first_step_of_a_stage_and_the_last():
    rows = [(step / 100, {**RL, "step": step}) for step in range(1, 26)]
    written = lines(
        {"sft": 5, "rl": 25},
        [(0.0, {"phase": "sft", "step": 5}), *[(t, {**r, "step": 5 + r["step"]}) for t, r in rows]],
    )
    assert [line.split()[2:4] for line in written[1:]] == [["SFT", "5/5"], ["RL", "1/25"], ["RL", "25/25"]]
    assert written[0] == "title" and not any("\x1b" in line for line in written)


def test_a_log_has_a_line_every_five_seconds():
    rows = [(second, {"phase": "eval:start", "done": second, "total": 100}) for second in range(13)]
    assert lines({}, rows)[1:] == ["[  0:05] evaluation start 5/100", "[  0:10] evaluation start 10/100"]


def test_rl_steps_are_counted_from_the_end_of_sft():
    board = Board({"sft": 150, "rl": 40})
    board.see({**RL, "step": 153}, 0.0)
    assert board.line().startswith("RL 3/40  reward 0.500")


def test_evaluations_are_always_written():
    row = {"phase": "eval", "step": 3, "eval/name": "step 20", "eval/mean": 0.5, "eval/se": None, "eval/excluded": 2}
    assert lines({}, [(61.0, row)])[1:] == ["[  1:01] eval step 20  0.500  excluded 2"]


def test_the_time_left_is_what_the_phase_took_so_far():
    board = Board({"rl": 10})
    for step in (4, 5, 6):  # resumed at step 3
        board.see({**RL, "step": step}, now=2.0 * step)
    board.see({"phase": "eval:step 6", "done": 1, "total": 2}, now=13.0)  # takes its time from RL's
    board.see({**RL, "step": 7}, now=16.0)
    assert board.left_s(16.0) == pytest.approx((16.0 - 8.0) / 3 * 3)


@pytest.mark.parametrize("values", [[0.0], [1.0, 1.0, 1.0], [0.1 * i for i in range(100)], [-1.0, 5.0]])
def test_a_sparkline_has_a_bar_a_value_and_forty_at_most(values):
    assert len(sparkline(values)) == min(len(values), 40)


def test_titles():
    board = Board()
    board.see({"phase": "eval:after_sft:greedy", "done": 1, "total": 2}, 0.0)
    assert board.title == "evaluation after sft, greedy"


def test_without_a_terminal_nothing_is_written_before_the_program_begins(capsys):
    with watching("title", {}) as watcher:
        assert capsys.readouterr().err == ""
        watcher.begin()
        watcher.see({"phase": "eval", "done": 1, "total": 2})
    assert capsys.readouterr().err == "title\n"


SHAPING = ("CI", "NO_COLOR", "JPY_PARENT_PID", "COLUMNS", "LINES")
"""Variables that a display takes notice of."""
STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_a_terminal(folder, *words, columns=80, **env):
    """What a command writes on a pseudo-terminal, which is what decides; on stderr, and on stdout."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    clean = {name: value for name, value in os.environ.items() if name not in SHAPING}
    command = [sys.executable, "-m", "ludus", *words]
    run = subprocess.Popen(command, cwd=folder, stdout=-1, stderr=follower, env={**clean, "TERM": "xterm", **env})
    os.close(follower)
    written = b""
    try:
        while piece := os.read(leader, 65536):
            written += piece
    except OSError:  # Linux says so when nobody has the other end any more
        pass
    finally:
        os.close(leader)
    out, _ = run.communicate()
    assert run.returncode == 0, written.decode()
    return written.decode(), out.decode()


EVAL = ("eval", "guess", "--model", "demonstrator", "-n", "40", "--out", "o")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "live"),
    [({}, True), ({"TERM": "dumb"}, False), ({"CI": "true"}, False), ({"JPY_PARENT_PID": "1"}, False)],
    ids=["terminal", "dumb", "CI", "cell of a notebook"],
)
def test_a_terminal_that_moves_its_cursor_has_a_live_display(tmp_path, env, live):
    written, out = on_a_terminal(tmp_path, *EVAL, **env)
    assert "guess · demonstrator → o" in written
    assert ("\x1b[" in written) == live
    assert live or written == "guess · demonstrator → o\r\n"
    assert "\x1b" not in out


@pytest.mark.slow
def test_a_narrow_terminal_without_colours(tmp_path):
    written, _ = on_a_terminal(tmp_path, *EVAL, columns=40, NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", written), "a colour"
    lines = re.split(r"[\r\n]+", STYLE.sub("", written))
    assert max(map(len, lines)) <= 40 and any("40/40" in line for line in lines)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_the_live_display_fits_and_stands_still(width):
    board = Board({"rl": 1000})
    heights = set()
    for step in (2, 90, 999):
        board.see({**RL, "step": step}, now=time.monotonic())
        console = Console(width=width, file=io.StringIO(), force_terminal=True, highlight=False)
        console.print(Picture("", board, time.monotonic() - 100))
        lines = STYLE.sub("", console.file.getvalue()).splitlines()
        assert all(cell_len(line.rstrip()) <= width for line in lines)
        assert any(f"{step}/1000" in line for line in lines) and any("left" in line for line in lines) == (step > 2)
        heights.add(len(lines) - (len(board.rewards) > 1))
        assert "entropy 1.500" in " ".join(lines), "a name and its value stay together"
    assert len(heights) == 1


def test_a_sparkline_survives_rounding():
    for denominator in range(3, 400):
        values = [1 / denominator, 0.652 + 1 / denominator, 2 / 3]
        assert len(sparkline(values)) == 3


@pytest.mark.slow
def test_a_log_of_ten_hours_can_be_read():
    every_second = [(second, {"phase": "eval:start", "done": second, "total": 10**6}) for second in range(36_000)]
    written = lines({}, every_second)
    assert 500 < len(written) < 700
    assert written[-1].startswith("[9:59:")


def test_environments_of_a_mixture_are_told_apart():
    row = {"eval/name": "end", "eval/mean": 0.5, "eval/se": None, "env/guess/eval/mean": 0.25, "env/b/eval/mean": None}
    assert evaluation_line(row) == "eval end  0.500  guess 0.250  b –"
    board = Board()
    for phase, title in (("eval:end:greedy@rg:gcd", "evaluation end, greedy, in rg:gcd"),
                         ("demonstrations@guess", "demonstrations, in guess"), ("rl", "RL")):  # fmt: skip
        board.phase = phase
        assert board.title == title

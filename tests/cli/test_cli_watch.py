import os
import pty
import subprocess
import sys

import pytest

from ludus.cli.board import Board, sparkline, step_figures
from ludus.cli.watch import Lines, watching

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


def test_a_log_has_the_first_step_every_tenth_and_the_last():
    written = lines({"rl": 25}, [(step / 100, {**RL, "step": step}) for step in range(1, 26)])
    assert [line.split()[2] for line in written[1:]] == ["RL", "RL", "RL", "RL"]
    assert [line.split()[3] for line in written[1:]] == ["1/25", "10/25", "20/25", "25/25"]
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


@pytest.mark.parametrize(("term", "live"), [("xterm", True), ("dumb", False)])
def test_a_terminal_has_a_live_display_unless_it_is_dumb(tmp_path, term, live):
    """On a pseudo-terminal, which is what decides."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "ludus.cli", "eval", "guess", "--model", "demonstrator", "-n", "3"]
    run = subprocess.Popen(command, cwd=tmp_path, stdout=-1, stderr=follower, env={**os.environ, "TERM": term})
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
    assert run.returncode == 0 and "guess · demonstrator" in written.decode()
    assert (b"\x1b[" in written) == live
    assert b"\x1b" not in out


def test_a_sparkline_survives_rounding():
    for denominator in range(3, 400):
        values = [1 / denominator, 0.652 + 1 / denominator, 2 / 3]
        assert len(sparkline(values)) == 3

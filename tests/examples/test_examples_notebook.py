"""In a real kernel: progress, results, and an interrupt."""

import json
import queue
import re
import time
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
manager = pytest.importorskip("jupyter_client.manager")
pytest.importorskip("ipykernel")

NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebook.ipynb"
WHOLE_PROGRESS = 2_000
"""Characters that a program of any length may leave in the file."""

GATED = '''
import asyncio, pathlib
import ludus

class Gated(ludus.Environment):
    """Waits in every rollout until a file is there."""
    def tasks(self, split):
        return [ludus.Task(prompt=str(i), answer="x") for i in range(8)]
    async def setup(self, ctx):
        pathlib.Path("started").touch()
        while not pathlib.Path("go").exists():
            await asyncio.sleep(0.01)
    def demonstrate(self, task):
        return ["x"]
    @ludus.reward
    def right(self, task, rollout):
        return rollout.reply == task.answer
'''


def execute(folder, *cells):
    """Run cells in a new kernel. Returns the outputs of each."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    return [cell.outputs for cell in notebook.cells]


def check_progress(output):
    """One output, updated in place, that is small and holds no escape codes."""
    assert output.output_type == "display_data"
    for text in output.data.values():
        assert len(text) < WHOLE_PROGRESS and "\x1b" not in text


@pytest.mark.slow
def test_an_evaluation_in_a_notebook_has_one_progress_output_and_a_table(tmp_path):
    ((progress, result),) = execute(tmp_path, 'import ludus\nludus.evaluate("guess", "demonstrator", num_tasks=500)')
    check_progress(progress)
    assert progress.data["text/plain"] == "guess · demonstrator\n  done"
    assert "<th>reward</th><td>0." in result.data["text/html"]


@pytest.mark.slow
def test_an_interrupted_cell_finishes_what_is_running(tmp_path):
    (tmp_path / "gated.py").write_text(GATED)
    kernels, client = manager.start_new_kernel(cwd=str(tmp_path))
    try:
        sent = client.execute(
            'import ludus; ludus.evaluate("gated.py", "demonstrator", num_tasks=8, concurrency=1, out="out")'
        )
        wait_for(tmp_path / "started")
        kernels.interrupt_kernel()
        wait_for_text(client, "finishing what is running; interrupt again to abort")
        (tmp_path / "go").touch()
        reply = reply_to(client, sent)
    finally:
        client.stop_channels()
        kernels.shutdown_kernel(now=True)
    assert reply["ename"] == "KeyboardInterrupt"
    assert re.fullmatch(r"stopped early, with \d tasks done; the same call goes on from there", reply["evalue"])
    assert json.loads((tmp_path / "out" / "result.json").read_text())["stopped"] == "interrupted"


def wait_for(file):
    deadline = time.monotonic() + 120
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_for_text(client, text):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            content = client.get_iopub_msg(timeout=1)["content"]
        except queue.Empty:
            continue
        if text in json.dumps(content, ensure_ascii=False):
            return
    raise AssertionError(f"the cell never said {text!r}")


def reply_to(client, sent):
    while True:
        reply = client.get_shell_msg(timeout=120)
        if reply["parent_header"]["msg_id"] == sent:
            return reply["content"]


@pytest.mark.slow
def test_the_example_runs_and_shows_what_it_says(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "it is kept without outputs"
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    evaluated, trained, curve, rollout = (cell.outputs for cell in notebook.cells if cell.cell_type == "code")
    for progress, *_ in (evaluated, trained):
        check_progress(progress)
    lines = trained[0].data["text/plain"].splitlines()
    assert lines[0] == "guess · preset:tiny → runs/notebook" and lines[-1] == "  done"
    assert [line.split("  ")[1] for line in lines[1:-1]] == [
        "eval start", "eval after sft", "eval step 10", "eval step 20", "eval end",
    ]  # fmt: skip
    (table,) = [output for output in trained if output.output_type == "execute_result"]
    assert re.search(r"<th>end</th><td>[01]\.\d{3} ± ", table.data["text/html"])
    assert "runs/notebook/report.html" in table.data["text/html"]
    assert any("image/png" in output.get("data", {}) for output in curve)
    assert "assistant  " in rollout[0].text and "reward  " in rollout[0].text

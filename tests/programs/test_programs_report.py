"""The report: what is in it, that nothing in it runs or loads, and that a run that lacks something still gets one."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ludus.display.numbers import duration
from ludus.errors import RunFolderError
from ludus.programs.report import report
from ludus.programs.report.charts import Chart, Series, charts_of, draw
from ludus.programs.report.samples import bubbles_of, choose_purposes
from ludus.programs.report.words import clean, name_of, number, score
from ludus.store import RunFolder
from ludus.types import Call, EnvironmentRef, Failure, Message, Reward, Rollout, Seeds, Task, Usage, user

ATTACK = '<script>alert("x")</script><img src=x onerror=y>\x1b[31m\u202egnp\x00'
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Checks that tags nest, and collects tags, attributes and visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.stack:
            self.text += data


def rollout(purpose: str, task: str, reward: float, said: str = "7") -> Rollout:
    messages: list[Message] = [{"role": "system", "content": "Play well."}, user("Guess")]
    reply: Message = {"role": "assistant", "content": said, "reasoning_content": "hmm " + said}
    tool: Message = {"role": "assistant", "tool_calls": [{"function": {"name": "guess", "arguments": '{"n": 7}'}}]}
    return Rollout(
        id=f"{purpose}/{task}",
        group=task,
        environment=EnvironmentRef("guess"),
        task=Task(prompt="Guess", id=task),
        seeds=Seeds(0, 0, 0, 0),
        purpose=purpose,
        calls=[
            Call(messages=messages, reply=tool, usage=Usage(3, 2)),
            Call(parent=0, messages=[{"role": "tool", "content": "higher"}], reply=reply, usage=Usage(3, 2)),
        ],
        rewards=[Reward("correct", reward)],
        stop="done",
    )


def training_rows(steps: int = 30) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = [
        {"step": 0, "phase": "eval", "eval/mean": 0.1, "eval/se": 0.02, "eval/name": "start"},
        {"step": 1, "phase": "sft", "loss": 2.0, "time/training": 0.5},
        {"step": 2, "phase": "sft", "loss": 1.0, "time/training": 0.5},
    ]
    for step in range(1, steps + 1):
        rows.append(
            {
                "step": step,
                "phase": "rl",
                "reward/mean": step / steps,
                "turns/mean": 3.0,
                "entropy": 1 / step,
                "length/mean": 30.0,
                "kl_old": 0.001,
                "grad_norm": None if step == 4 else 0.5,
                "time/sampling": 1.0,
                "time/training": 2.0,
                "truncated": 0.1,
                "excluded": 0.0,
            }
        )
    return [*rows, {"step": steps, "phase": "eval", "eval/mean": 0.9, "eval/se": 0.01, "eval/name": "end"}]


def training_run(path: Path) -> Path:
    with RunFolder.create(path) as run:
        run.write_config(
            f"env = \"guess\"\nnote = '{ATTACK.replace(chr(0), '').replace(chr(27), '')}'\n[rl]\nlr = 0.001\n"
        )
        for row in training_rows():
            run.append_metrics(row)
        for task in ("t1", "t2", "t3", "t4"):
            run.rollouts.append(rollout("eval:start", task, 0.0, ATTACK))
            run.rollouts.append(rollout("eval:after_sft", task, 0.5))
            run.rollouts.append(rollout("eval:end", task, float(task != "t4")))
        failed = rollout("train", "t1", 0.0)
        failed.failure = Failure("tool", "environment", f"ValueError: {ATTACK}")
        run.rollouts.append(failed)
        evaluations = {
            "start": {"mean": 0.1, "se": 0.02, "greedy_mean": 0.0, "num_tasks": 4, "metrics": {ATTACK: 5.0}},
            "after_sft": {"mean": 0.5, "se": 0.02, "greedy_mean": None, "num_tasks": 4},
            "end": {"mean": 0.9, "se": 0.01, "greedy_mean": 1.0, "num_tasks": 4, "metrics": {ATTACK: 3.25}},
        }
        run.write_result({"eval": evaluations, "seconds": 4000.0, "tokens": {"sampled": 123456}})
    return path


def test_a_training_run(tmp_path: Path) -> None:
    path = report(training_run(tmp_path / "demo"))
    assert path == tmp_path / "demo" / "report.html"
    page = Page(path.read_text())
    for text in (
        "demo", "0.100 → 0.900", "1 h 06 min", "123,456", "Before training", "After fine-tuning", "After training",
        "Task by task", "3 tasks gained", "0 lost", "Evaluation score", "Reward in training", "Turns",
        "Completion length, tokens", "Entropy", "KL divergence", "Gradient norm", "Where the time goes", "100.0 %",
        "Excluded and truncated", "Fine-tuning loss", "Task t1", '→ guess({"n": 7})', "higher", "hmm 7", "rl.lr",
    ):  # fmt: skip
        assert text in page.text, text
    assert page.tags.count("svg") == 10
    assert page.tags.count("article") == 9


@pytest.mark.slow
def test_nothing_in_it_runs_or_loads(tmp_path: Path) -> None:
    html = report(training_run(tmp_path / "demo")).read_text()
    page = Page(html)
    assert not {"script", "img", "link", "iframe", "object", "base", "form"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "action")]
    targets = [value or "" for name, value in page.attributes if name.endswith("href")]
    assert all(target.startswith("#") for target in targets)
    assert all(target.startswith("#") for target in re.findall(r"url\(['\"]?(.)", html))
    assert "@import" not in html
    assert '<script>alert("x")</script><img src=x onerror=y>gnp' in page.text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", html)
    policies = [value or "" for name, value in page.attributes if name == "content"]
    assert "default-src 'none'; style-src 'unsafe-inline'" in policies


@pytest.mark.slow
def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    run = training_run(tmp_path / "demo")
    assert report(run).read_bytes() == report(run).read_bytes()


def test_an_evaluation(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "e") as run:
        for i, task in enumerate(("best", "middle", "worst")):
            run.rollouts.append(rollout("eval", task, 1.0 - i / 2))
        run.write_result(
            {
                "env": "guess",
                "model": "tiny",
                "num_tasks": 3,
                "samples": 1,
                "mean": 0.5,
                "se": 0.29,
                "pass_at": {"1": 0.5, "4": {"mean": 0.875, "se": 0.1}},
                "metrics": {"turns": 3.5},
                "pass_hat": {"4": 0.125},
                "interval": [0.2, 0.8],
                "bounds": [0.4, 0.6],
                "num_excluded": 2,
            }
        )
    text = Page(report(tmp_path / "e").read_text()).text
    for found in (
        "0.500 ± 0.290",
        "pass@4",
        "0.875",
        "pass^4",
        "0.200 to 0.800",
        "0.400 to 0.600",
        "excluded rollouts",
        "turns",
        "3.5",
        "scored best",
    ):
        assert found in text
    assert text.index("Task best") < text.index("Task middle") < text.index("Task worst")


def test_a_run_that_has_hardly_begun(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "new").close()
    page = Page(report(tmp_path / "new").read_text())
    assert "new" in page.text
    assert "svg" not in page.tags
    with pytest.raises(RunFolderError, match="did you mean"):
        report(tmp_path / "nwe")


@pytest.mark.slow
def test_without_matplotlib_the_report_says_what_is_missing(tmp_path: Path) -> None:
    run = training_run(tmp_path / "demo")
    code = (
        "import sys; from pathlib import Path; from ludus.programs.report import report\n"
        "assert 'matplotlib' not in sys.modules\n"
        "sys.modules['matplotlib'] = None\n"
        "report(Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, str(run)], check=True)
    page = Page((run / "report.html").read_text())
    assert "pip install 'ludus-rl[train]'" in page.text
    assert "svg" not in page.tags
    assert "Task t1" in page.text


# --- charts -------------------------------------------------------------------------------------------------------


def test_only_what_was_measured_is_charted() -> None:
    charts = {chart.title: chart for chart in charts_of(training_rows(10))}
    assert charts["Evaluation score"].series[0] == Series("score", [0.0, 10.0], [0.1, 0.9], [0.02, 0.01])
    assert charts["Gradient norm"].series[0].x == [1.0, 2.0, 3.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]
    assert charts["Fine-tuning loss"].series[0].y == [2.0, 1.0]
    assert [s.y[0] for s in charts["Where the time goes, share of a step"].series] == [1 / 3, 2 / 3]
    assert "Loss" not in charts
    assert charts_of([]) == []


def test_evaluations_at_the_same_step_stand_side_by_side_by_name() -> None:
    rows = [
        {"step": 0, "phase": "eval", "eval/mean": 0.1, "eval/name": "start"},
        {"step": 0, "phase": "eval", "eval/mean": 0.2, "eval/name": "after_sft"},
    ]
    (chart,) = charts_of(rows)
    assert (chart.series[0].x, chart.ticks) == ([0.0, 1.0], ["Before training", "After fine-tuning"])


def test_a_drawing_takes_its_colours_from_the_page_and_escapes_text() -> None:
    svg = draw(Chart("t", [Series("a", [0.0, 1.0], [1.0, 2.0], [0.1, 0.1])], "points", ["<script>$x^2$", "b&b"]))
    assert svg.startswith("<svg viewBox=")
    assert "var(--c1)" in svg
    assert "&lt;script&gt;$x^2$" in svg
    assert "#0102" not in svg


def test_long_curves_are_thinned() -> None:
    long = Series("a", [float(i) for i in range(20000)], [math.sin(i / 50) for i in range(20000)])
    assert len(draw(Chart("t", [long]))) < 60_000


# --- samples and words --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("purposes", "chosen"),
    [
        (["eval:start", "train", "eval:end"], ["eval:start", "eval:end"]),
        (["eval:start", "eval:start:greedy", "eval:end", "eval:end:greedy"], ["eval:start", "eval:end"]),
        (["eval:0", "eval:1", "eval:2", "eval:3", "eval:4"], ["eval:0", "eval:2", "eval:4"]),
        (
            ["eval:start", "eval:after_sft", "eval:5", "eval:9", "eval:end"],
            ["eval:start", "eval:after_sft", "eval:end"],
        ),
        (["eval"], ["eval"]),
        (["train"], ["train"]),
        ([], []),
    ],
)
def test_purposes_side_by_side(purposes: list[str], chosen: list[str]) -> None:
    assert choose_purposes(purposes) == chosen


def test_every_kind_of_content_can_be_shown() -> None:
    parts = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {}}, "plain"]
    bubbles = bubbles_of([{"role": "user", "content": parts}, {"role": "assistant", "content": None}])
    assert [bubble.text for bubble in bubbles] == ["look\n[image_url]\nplain", ""]


def test_long_texts_and_conversations_are_cut_and_say_so() -> None:
    bubbles = bubbles_of([user("x" * 5000)] * 50)
    assert len(bubbles) == 41
    assert bubbles[0].text.endswith("(1000 characters left out)")
    assert bubbles[20].text == "10 messages left out"


def test_words() -> None:
    values = (None, math.nan, 3, 3.0, 0.123456, 1234567, 12345.6, "text")
    assert [number(v) for v in values] == ["–", "–", "3", "3", "0.1235", "1,234,567", "12,346", "text"]
    assert [score(v) for v in (0.5, 1, None, math.inf, 12345.0)] == ["0.500", "1.000", "–", "–", "12,345"]
    assert [duration(s) for s in (7.6, 130, 3900)] == ["8 s", "2 min 10 s", "1 h 05 min"]
    assert [name_of(p) for p in ("eval:end", "eval:my_own", "train")] == ["After training", "my own", "train"]


@given(st.text())
@settings(max_examples=60, deadline=None)
def test_clean_text_has_no_control_characters_and_keeps_the_rest(text: str) -> None:
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", clean(text))
    assert clean(clean(text)) == clean(text)
    assert clean("line\n\tof text é 漢字 🙂") == "line\n\tof text é 漢字 🙂"


MEASURE = """<script>
const boxes = [...document.querySelectorAll("svg")].map(svg => svg.getBoundingClientRect());
document.title = JSON.stringify({
  overflow: document.documentElement.scrollWidth - window.innerWidth,
  drawn: boxes.filter(box => box.width > 200 && box.height > 80).length,
  background: getComputedStyle(document.body).backgroundColor,
  unreadable: [...document.querySelectorAll("h1, h2, td, p")].filter(
    element => getComputedStyle(element).color === getComputedStyle(document.body).backgroundColor).length,
});
</script></body>"""


def chromium(profile: Path, *arguments: str) -> str:
    """What headless Chromium prints; its log, which has the page's complaints, follows."""
    name = next((n for n in ("chromium", "chromium-browser", "google-chrome") if shutil.which(n)), None)
    if name is None:
        pytest.skip("no Chromium on this machine")
    command = [name, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    command += [f"--user-data-dir={profile}", "--enable-logging=stderr", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout + done.stderr


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 500])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it_whole(tmp_path: Path, width: int, scheme: str) -> None:
    html = report(training_run(tmp_path / "demo")).read_text()
    policy = re.search('<meta http-equiv="Content-Security-Policy"[^>]*>', html)
    assert policy
    measured = tmp_path / "measured.html"
    measured.write_text(html.replace(policy[0], "").replace("</body>", MEASURE))
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    out = chromium(tmp_path / "profile", f"--window-size={width},900", *dark, "--dump-dom", measured.as_uri())
    found = re.search("<title>(.*?)</title>", out)
    assert found, out
    layout = json.loads(unescape(found[1]))
    assert layout["overflow"] <= 0
    assert layout["drawn"] == 10
    assert layout["unreadable"] == 0
    assert (layout["background"] == "rgb(255, 255, 255)") == (scheme == "light")


@pytest.mark.browser
def test_a_browser_has_no_complaint_and_runs_nothing(tmp_path: Path) -> None:
    path = report(training_run(tmp_path / "demo"))
    picture = tmp_path / "report.png"
    log = chromium(tmp_path / "profile", "--window-size=1280,2400", f"--screenshot={picture}", path.as_uri())
    assert "CONSOLE" not in log, log
    assert picture.stat().st_size > 50_000  # a blank page of this size takes 10,000

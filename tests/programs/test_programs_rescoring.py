"""The section of a report that sets rewards then and now side by side."""

import json
import re
from html import unescape

import pytest
from replayed import HUNT, Says, hunter, record, write
from test_programs_report import ATTACK, MEASURE, Page, chromium

from ludus.programs.report import report
from ludus.programs.report.rescoring import SHOWN, rescoring


def rescored(tmp_path, **changes):
    path = write(tmp_path / "hunt.py", HUNT)
    run = record(path, Says(hunter), tmp_path / "run")
    write(path, HUNT, **changes)
    return run, rescoring(run)


def test_the_table_and_the_largest_changes(tmp_path):
    run, found = rescored(
        tmp_path,
        right=("float(rollout.reply == task.answer)", "float(task.answer) * (rollout.reply != task.answer)"),
        luck=("def luck(self, state):", "def luck(self, task):"), value=("float(state)", "0.0"),
    )  # fmt: skip
    assert found.num_rollouts == 12 and found.num_changed == 12, "luck changed in all of them"
    assert [row.scorer for row in found.rows] == ["right", "luck", "fewest", "reward"]
    assert len(found.changes) <= SHOWN
    sizes = [abs(change.now - change.rollout.reward) for change in found.changes]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] > 0
    page = Page(report(run, found).read_text())
    for words in ("Rewards by the scorers of today", "advantage turned", "groups reordered", "The largest changes",
                  "right 0 →", found.changes[0].rollout.id, "not as it was"):  # fmt: skip
        assert words in page.text
    assert page.text.index("Rewards by the scorers") < page.text.index("Sample rollouts")


def test_nothing_changed_and_scorers_that_could_not_be_asked(tmp_path):
    run, found = rescored(tmp_path)
    assert found.num_changed == 0 and found.changes == []
    page = Page(report(run, found).read_text())
    assert "code, data and options are as they were" in page.text
    assert "luck asks for state, which no record holds" in page.text
    assert "The largest changes" not in page.text


def test_what_a_scorer_says_when_it_fails_is_text(tmp_path):
    text = HUNT.replace("def luck(self, state):", "def luck(self, task):").replace("float(state)", "0.0")
    path = write(tmp_path / "hunt.py", text)
    run = record(path, Says(hunter), tmp_path / "run", samples=1)
    write(path, text, attack=("float(rollout.reply == task.answer)", f"int({ATTACK!r})"))
    page = Page(report(run, rescoring(run)).read_text())
    assert "ValueError" in page.text and "<script>" in page.text  # as text, not as a tag
    assert "script" not in page.tags and "img" not in page.tags
    assert "\x1b" not in page.text and "\u202e" not in page.text


def test_demonstrations_are_no_doing_of_the_model(tmp_path):
    run = record(write(tmp_path / "hunt.py", HUNT), Says(hunter), tmp_path / "run")
    from ludus.store import RunFolder

    with RunFolder.resume(run) as folder:
        shown = next(iter(folder.rollouts))
        shown.id, shown.purpose, shown.group = "expert", "demonstration", "demonstration/0"
        folder.rollouts.append(shown)
    assert rescoring(run).num_rollouts == 12


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 500])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_the_section_whole(tmp_path, width, scheme):
    run, found = rescored(tmp_path, right=("float(rollout.reply == task.answer)", "-100.0 * rollout.num_turns"))
    html = report(run, found).read_text()
    policy = re.search('<meta http-equiv="Content-Security-Policy"[^>]*>', html)
    measured = tmp_path / "measured.html"
    measured.write_text(html.replace(policy[0], "").replace("</body>", MEASURE))
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    out = chromium(tmp_path / "profile", f"--window-size={width},900", *dark, "--dump-dom", measured.as_uri())
    layout = json.loads(unescape(re.search("<title>(.*?)</title>", out)[1]))
    assert layout["overflow"] <= 0 and layout["unreadable"] == 0

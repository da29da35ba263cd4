"""Which answers are the answer, however they are written, and which only look like it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ludus.environments.search.grading import MONTHS, is_unknown, same_answer
from ludus.environments.search.names import is_trained

ANSWERS = {
    "date": "March 3, 2026",
    "amount": "$12,500",
    "person": "Mira Talvo",
    "place": "Harbour Hall",
    "number": "4,417",
}


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("date", "March 3, 2026"), ("date", "3 March 2026"), ("date", "the 3rd of March"), ("date", "2026-03-03"),
        ("date", "Tuesday, March 3rd, 2026."), ("date", "Mar 3"), ("date", "on march 3 2026"),
        ("amount", "$12,500"), ("amount", "12500"), ("amount", "USD 12,500.00"), ("amount", "12.5k dollars"),
        ("amount", "12,500 dollars"), ("person", "mira talvo"), ("person", "Ms Mira  Talvo."),
        ("place", "in the Harbour Hall"), ("place", '"Harbour Hall"'), ("number", "4417"), ("number", "4,417"),
    ],
)  # fmt: skip
def test_the_answer_however_it_is_written(kind, said):
    assert same_answer(kind, said, ANSWERS[kind])


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("date", "March 4, 2026"), ("date", "March 3, 2025"), ("date", "March 3 or March 4"), ("date", "March"),
        ("date", "not March 3, 2026"), ("date", "2026-13-03"), ("amount", "$12,501"), ("amount", "$12,500 or $13,000"),
        ("amount", "12,50"), ("amount", "1e4"), ("amount", "-12500"), ("amount", "9" * 5000), ("person", "Mira"),
        ("person", "Mira Talvo, Mira Besk"), ("place", "Harbour Hall or Dock"), ("number", "44 17"), ("number", "٤٤١٧x"),
        ("date", ""), ("amount", ""), ("person", " "), ("place", "the"), ("place", "Harbour Hall" + " " * 200),
    ],
)  # fmt: skip
def test_what_only_looks_like_it(kind, said):
    assert not same_answer(kind, said, ANSWERS[kind])


@given(st.sampled_from(sorted(ANSWERS)), st.text())
def test_no_text_breaks_it(kind, said):
    assert same_answer(kind, said, ANSWERS[kind]) in (True, False)
    assert is_unknown(said) in (True, False)


@given(st.integers(1, 28), st.sampled_from(MONTHS), st.integers(1990, 2040))
def test_every_date_is_itself_and_no_other(day, month, year):
    answer = f"{month.title()} {day}, {year}"
    number = MONTHS.index(month) + 1
    assert same_answer("date", f"{day} {month[:3]} {year}", answer)
    assert same_answer("date", f"{year}-{number:02}-{day:02}", answer)
    assert not same_answer("date", f"{year}-{number:02}-{day % 28 + 1:02}", answer)


def test_about_a_fifth_of_all_names_is_held_out():
    names = [
        f"{a}{b}" for a in ("ka", "bo", "du", "fi", "ge") for b in ("la", "me", "no", "pu", "di", "hi", "ko", "ba")
    ]
    assert 0.05 < sum(not is_trained(name) for name in names) / len(names) < 0.4

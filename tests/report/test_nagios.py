"""The monitoring-plugin line against the guidelines' own examples, and against what a hostile peer may send."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haptk.report.nagios import Perf, Range, State, label, line, number, plain, read_perf, worst


@pytest.mark.parametrize(
    ("text", "good", "bad"),
    [
        ("10", [0, 5, 10], [-1, -0.001, 10.001, 11]),
        ("10:", [10, 11, 1e12], [9.999, 0, -5]),
        ("~:10", [-1e12, 0, 10], [10.5, 11]),
        ("10:20", [10, 15, 20], [9.9, 20.1]),
        ("@10:20", [9.9, 20.1, -4], [10, 15, 20]),
        ("@10", [-0.1, 10.1], [0, 5, 10]),
        ("0", [0], [-1, 1]),
        ("1:1", [1], [0, 2]),
        ("-5:5", [-5, 0, 5], [-6, 6]),
        ("1.5:2.5", [1.5, 2.5], [1.4, 2.6]),
        ("~:", [-math.inf, 0, math.inf], [math.nan]),
        (":5", [0, 5], [-1, 6]),
    ],
)
def test_ranges(text: str, good: list[float], bad: list[float]) -> None:
    found = Range.parse(text)
    assert str(found) == text
    assert [value for value in good if found.alerts(value)] == []
    assert [value for value in bad if not found.alerts(value)] == []


@pytest.mark.parametrize("text", ["", "@", ":", "x", "1:2:3", "20:10", "5s", "10;20", "~", "1e3", " 5", "--5", "5:~"])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no range"):
        Range.parse(text)


@given(
    st.one_of(st.none(), st.integers(-50, 50)),
    st.one_of(st.none(), st.integers(-50, 50)),
    st.booleans(),
    st.floats(-100, 100),
)
def test_inside_is_the_opposite_of_outside(start: int | None, end: int | None, at: bool, value: float) -> None:
    text = f"{'~' if start is None else start}:{'' if end is None else end}"
    if start is not None and end is not None and start > end:
        return
    plain_range, at_range = Range.parse(text), Range.parse("@" + text)
    assert plain_range.alerts(value) is not at_range.alerts(value)
    low = -math.inf if start is None else start
    high = math.inf if end is None else end
    assert plain_range.alerts(value) is (value < low or value > high)
    assert Range.parse(("@" if at else "") + text).alerts(math.nan)


def test_states_are_exit_codes_and_have_an_order() -> None:
    assert [int(state) for state in State] == [0, 1, 2, 3]
    assert worst([State.OK, State.WARNING]) is State.WARNING
    assert worst([State.WARNING, State.UNKNOWN]) is State.UNKNOWN
    assert worst([State.UNKNOWN, State.CRITICAL, State.OK]) is State.CRITICAL
    assert worst([State.OK, State.OK]) is State.OK
    assert worst([]) is State.UNKNOWN


@pytest.mark.parametrize(
    ("perf", "text"),
    [
        (Perf("time", 0.25, "s"), "time=0.25s"),
        (Perf("time", 1 / 3, "s", minimum=0), "time=0.333333s;;;0"),
        (Perf("a b", 3), "'a b'=3"),
        (Perf("it's", 3), "'it''s'=3"),
        (Perf("a=b", 3), "a:b=3"),
        (Perf("up", 2, "", Range.parse("2:"), Range.parse("1:"), 0, 3), "up=2;2:;1:;0;3"),
        (Perf("hits", 10, "c", None, Range.parse("@0")), "hits=10c;;@0"),
        (Perf("x", None, "s", Range.parse("1")), "x=U;1"),
        (Perf("inf", math.inf), "inf=U"),
        (Perf("", 1), "value=1"),
        (Perf("/var", 80.0, "%", maximum=100), "/var=80%;;;;100"),
        (Perf("evil | 'x'=1\n", 1), "'evil / ''x'':1'=1"),
    ],
)
def test_performance_data(perf: Perf, text: str) -> None:
    assert str(perf) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0000001, "0"), (1.5, "1.5"), (1e9, "1000000000"), (-2.25, "-2.25"), (1e-3, "0.001"), (12.0, "12")],
)
def test_numbers_have_no_exponent(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "state", "complaint"),
    [
        (1.0, State.OK, ""),
        (2.5, State.WARNING, "time 2.5s is outside 0:2"),
        (5.5, State.CRITICAL, "time 5.5s is outside 0:5"),
        (None, State.UNKNOWN, ""),
    ],
)
def test_thresholds_judge_a_figure(value: float | None, state: State, complaint: str) -> None:
    perf = Perf("time", value, "s", Range.parse("2"), Range.parse("5"))
    assert (perf.state(), perf.complaint()) == (state, complaint)


def test_a_complaint_about_an_inside_range_says_inside() -> None:
    assert Perf("n", 3, warning=Range.parse("@2:4")).complaint() == "n 3 is inside 2:4"
    assert Perf("n", None).state() is State.OK


def test_the_line() -> None:
    perf = [Perf("time", 0.5, "s"), Perf("size", 12, "B")]
    assert line("HTTP", State.OK, "fine", perf) == "HTTP OK: fine | time=0.5s size=12B"
    assert line("HTTP", State.CRITICAL, "dead", more=["a: 1", "b: 2"]) == "HTTP CRITICAL: dead\na: 1\nb: 2"


def test_a_peer_cannot_forge_data_lines_or_terminal_sequences() -> None:
    text = line("X", State.OK, "said '200 \x1b[2J\r\nFINE | time=0s'\u2028x", more=["two\nlines | x=1"])
    assert text == "X OK: said '200  [2J FINE / time=0s' x\ntwo lines / x=1"


@given(st.text())
def test_plain_text_is_one_line_without_a_pipe(text: str) -> None:
    clean = plain(text)
    assert len(clean.splitlines()) <= 1
    assert "|" not in clean
    assert not any(ord(mark) < 32 or 127 <= ord(mark) < 160 for mark in clean)


@given(st.text(min_size=1), st.one_of(st.none(), st.floats(-1e9, 1e9)), st.sampled_from(["", "s", "%", "B", "c"]))
def test_what_is_written_can_be_read_back(name: str, value: float | None, unit: str) -> None:
    written = Perf(name, value, unit, Range.parse("@1:2"), Range.parse("~:9"), 0, 10)
    (read,) = read_perf(f"noise {written} x=nonsense")
    assert label(read.label) == label(name)
    assert read.value == (None if value is None else float(number(value)))
    assert read._replace(label="", value=None, unit="") == written._replace(label="", value=None, unit="")


def test_others_performance_data_is_read_as_far_as_it_follows_the_rules() -> None:
    text = "time=0.01s;1;2;0 'free space'=80%;@5:;;;100 size=9B;;;0 broken=abc bad=1;2:1 last=U"
    assert [(item.label, item.value, item.unit) for item in read_perf(text)] == [
        ("time", 0.01, "s"),
        ("free space", 80.0, "%"),
        ("size", 9.0, "B"),
        ("last", None, ""),
    ]

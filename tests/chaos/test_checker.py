"""The chaos test's checker sees what it is there for."""

from __future__ import annotations

from tests.chaos import checker
from tests.chaos.faults import Exchange, Story

CELLS = dict.fromkeys(("scur", "qcur", "req_tot", "ereq", "stot", "wretr", "wredis", "connect", "reuse", "lbtot"), "0")
CELLS |= dict.fromkeys(checker.CLASSES, "0") | {"mode": "http", "type": "1"}


def row(**cells: int | str) -> dict[str, str]:
    return {**CELLS, **{name: str(value) for name, value in cells.items()}}


def good() -> checker.Rows:
    return {
        ("web", "FRONTEND"): row(type=0, req_tot=3, hrsp_2xx=2, hrsp_4xx=1, ereq=1),
        ("web", "s1"): row(type=2, req_tot=2, hrsp_2xx=2, stot=2, connect=1, reuse=1),
        ("web", "BACKEND"): row(stot=2, req_tot=2, hrsp_2xx=2, connect=1, reuse=1),
    }


def test_counters_that_add_up() -> None:
    assert checker.counters(good()) == []


def test_each_counter_that_does_not() -> None:
    for place, cells in (
        (("web", "FRONTEND"), {"req_tot": "4"}), (("web", "FRONTEND"), {"scur": "1"}),
        (("web", "FRONTEND"), {"ereq": "2"}), (("web", "s1"), {"hrsp_5xx": "1"}), (("web", "s1"), {"stot": "3"}),
        (("web", "BACKEND"), {"stot": "3"}), (("web", "BACKEND"), {"wretr": "1"}), (("web", "BACKEND"), {"qcur": "1"}),
    ):  # fmt: skip
        rows = good()
        rows[place].update(cells)
        assert checker.counters(rows), (place, cells)


def test_wrong_bodies_and_servers() -> None:
    story = Story(out=[["s1", 10.0, 20.0]])
    story.exchanges.append(Exchange("c1-1", "s1", 1.0, 2.0, "s1", b"x", b"x"))
    assert checker.answers(story) == []
    story.exchanges.append(Exchange("c1-2", "s1", 1.0, 2.0, "s1", b"y", b"x"))
    assert "another answer" in checker.answers(story)[0]
    story.exchanges[-1] = Exchange("c1-3", "s1", 1.0, 2.0, "s2", b"x", b"x")
    assert "s2 answered instead of s1" in checker.answers(story)[0]
    story.exchanges[-1] = Exchange("c1-4", "s1", 15.0, 16.0, "s2", b"x", b"x")
    assert checker.answers(story) == []  # out of service then

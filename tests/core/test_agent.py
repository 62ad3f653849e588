"""What an agent's line means and when it is asked again, under virtual time."""

from __future__ import annotations

import pytest

from haptk.core.agent import MAX_LINE, Said, parse


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("up", Said("up", "L7OK", "via agent : up")),
        ("DOWN # too much, today\r", Said("DOWN # too much, today\r", "L7STS", "via agent : DOWN (too much, today)")),
        ("drain 20% maxconn:30", Said("drain 20% maxconn:30", "CHECKED", "", 20, 30)),
        ("ready,up,75%", Said("ready,up,75%", "L7OK", "via agent : up", 75)),
        ("what", Said("what", "CHECKED", "agent reports an error : what")),
        ("fail#x", Said("fail#x", "CHECKED", "agent reports an error : fail#x")),
        ("", Said("", "CHECKED", "")),
        ("# nothing but a reason", Said("# nothing but a reason", "CHECKED", "")),
        ("maxconn:99999999999", Said("maxconn:99999999999", "CHECKED", "", None, 2**31 - 1)),
    ],
)
def test_a_line_means(line: str, said: Said) -> None:
    assert parse(line) == said


def test_a_line_without_end_is_cut() -> None:
    assert len(parse("x" * 100_000).line) == MAX_LINE

"""The checks at the end of a drill: whom they ask, and what counts as an alarm."""

from __future__ import annotations

from pathlib import Path

from haptk.checks.base import Check, Finding
from haptk.lab import health
from haptk.lab.layout import Layout
from haptk.report.nagios import State


def test_only_survivors_are_asked() -> None:
    layout = Layout("127.77")
    names = [check.name for check in health.plan(layout, Path("/x"), "lb1")]
    assert names == ["site", "proxy on lb2", "heartbeat on lb2"]
    names = [check.name for check in health.plan(layout, Path("/x"), "app1")]
    assert names == ["site", "proxy on lb1", "proxy on lb2", "heartbeat on lb1", "heartbeat on lb2"]


def test_nobody_there_is_an_alarm_on_every_line(tmp_path: Path) -> None:
    found = health.alarms(health.plan(Layout("127.78"), tmp_path, "lb2"))
    assert sorted(found) == ["heartbeat on lb1", "proxy on lb1", "site"]
    assert all(said.startswith("CRITICAL: ") for said in found.values())


def test_a_warning_is_no_alarm() -> None:
    checks = [Check("X", state.name, 5.0, lambda _timeout_s, state=state: Finding(state, "said")) for state in State]
    assert health.alarms(checks) == {"CRITICAL": "CRITICAL: said", "UNKNOWN": "UNKNOWN: said"}

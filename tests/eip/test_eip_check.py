"""`haptk check eip` against the region: the three states, a hung API and refused credentials, as a monitoring system sees them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest


def check(lab: Any, node: str, *argv: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "haptk", "check", "eip", "--json", *argv],
        capture_output=True,
        text=True,
        timeout=90,
        env=lab.env(node),
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_ours_not_ours_and_a_standby(lab: Any) -> None:
    lab.give("lb1")
    lab.settle()
    code, found = check(lab, "lb1", lab.ip())
    assert (code, found["state"]) == (0, "OK"), found
    assert {"label": "held", "value": 1, "unit": ""} in found["checks"][0]["figures"]
    code, found = check(lab, "lb2", lab.ip())
    assert (code, found["state"]) == (2, "CRITICAL"), found
    assert f"held by {lab.eni('lb1')}" in found["text"]
    assert check(lab, "lb2", "--standby", lab.ip())[0] == 0


def test_an_address_that_nobody_holds_is_critical_on_a_standby_too(lab: Any) -> None:
    lab.free()
    lab.settle()
    for argv in (["--standby"], []):
        code, found = check(lab, "lb1", *argv, lab.ip())
        assert (code, "nobody holds it" in found["text"]) == (2, True), found


@pytest.mark.parametrize("mode", ["hang", "error", "reset"])
def test_an_api_that_gives_no_answer_is_critical_in_time(lab: Any, mode: str) -> None:
    lab.give("lb1")
    lab.settle()
    lab.fault(mode)
    code, found = check(lab, "lb2", "--timeout", "4", lab.ip())
    assert (code, found["state"]) == (2, "CRITICAL"), found


def test_what_can_never_work_is_unknown(lab: Any) -> None:
    code, found = check(lab, "lb1", "eipalloc-0000000000000dead")
    assert (code, found["state"]) == (3, "UNKNOWN"), found

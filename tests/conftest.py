"""Which tests may run here: real programs and root are asked for by marker; with CI=true nothing is skipped.

`@pytest.mark.real("haproxy")` names programs that must be on the machine, `@pytest.mark.root` needs root. Where one is
missing the test is skipped with the reason, or, with CI=true, fails: a green CI must have met the real thing.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

pytest_plugins = ["tests.fixtures_cloud"]

PLACES = {
    "heartbeat": ["/usr/libexec/heartbeat/heartbeat", "/usr/lib/heartbeat/heartbeat"],
    "monitoring-plugins": ["/usr/lib/nagios/plugins/check_procs"],
    "aws-vpc-route53": ["/usr/lib/ocf/resource.d/heartbeat/aws-vpc-route53"],
    "nagios4": [str(Path(sys.prefix) / "unpacked/usr/sbin/nagios4"), "/usr/sbin/nagios4"],
    "systemd": ["/lib/systemd/systemd"],
    "awseip": ["/usr/lib/ocf/resource.d/heartbeat/awseip"],
    "ResourceManager": ["/usr/share/heartbeat/ResourceManager"],
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Generated documents and transcripts are compared; with --regenerate they are rewritten for review."""
    parser.addoption("--regenerate", action="store_true", help="rewrite generated documents and transcripts")


def _missing(program: str) -> bool:
    if program in PLACES:
        return not any(Path(place).exists() for place in PLACES[program])
    here = Path(sys.executable).parent
    return not (shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin") or (here / program).exists())


def _why_not(item: pytest.Item) -> str | None:
    for mark in item.iter_markers("real"):
        for program in mark.args:
            if _missing(program):
                return f"{program} is not installed (scripts/test as root installs it)"
    if item.get_closest_marker("root") and os.geteuid() != 0:
        return "needs root for network namespaces"
    return None


def pytest_runtest_setup(item: pytest.Item) -> None:
    why = _why_not(item)
    if why is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"with CI=true this test must run: {why}")
    pytest.skip(why)

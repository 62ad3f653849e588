"""What monitoring would say at the end of a drill: the checks of `haptk check`, on everything that has to be well then.

The site through its Elastic IP, each surviving balancer's proxy, and each surviving balancer's heartbeat. A WARNING (the
peer of a survivor is dead: of course it is) is fine; only what would wake somebody up is a fault.
"""

from __future__ import annotations

from pathlib import Path

from haptk.checks.base import Check, Finding, Limits
from haptk.checks.heartbeat import FIGURES as HEARTBEAT_FIGURES
from haptk.checks.heartbeat import heartbeat
from haptk.checks.http import FIGURES as HTTP_FIGURES
from haptk.checks.http import http, parse_url
from haptk.checks.runner import run
from haptk.lab.layout import PROXY_PORT, Layout
from haptk.report.nagios import State

TIMEOUT_S = 5.0


def plan(layout: Layout, root: Path, victim: str) -> list[Check]:
    """The checks of a lab below `root` in which `victim` was made to fail."""
    survivors = [instance for instance in layout.balancers if instance.name != victim]
    pages = {"site": layout.address} | {f"proxy on {one.name}": one.private_ip for one in survivors}
    checks = [
        http(parse_url(f"http://{address}:{PROXY_PORT}/"), TIMEOUT_S, Limits(HTTP_FIGURES))._replace(name=name)
        for name, address in pages.items()
    ]
    for one in survivors:
        socket = root / one.name / "heartbeat.sock"
        check = heartbeat(socket, TIMEOUT_S, Limits(HEARTBEAT_FIGURES))
        checks.append(check._replace(name=f"heartbeat on {one.name}"))
    return checks


def alarms(checks: list[Check]) -> dict[str, str]:
    """name -> what the check said, for those that are CRITICAL or UNKNOWN now."""
    findings: list[Finding] = run(checks, TIMEOUT_S)
    found = zip(checks, findings, strict=True)
    return {check.name: f"{one.state.name}: {one.text}" for check, one in found if one.state > State.WARNING}

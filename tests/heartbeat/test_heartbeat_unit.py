"""The systemd unit of the heartbeat: closed by default, still able to do its work, opened by one drop-in."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

PACKAGING = Path(__file__).parents[2] / "packaging/systemd"
UNIT = PACKAGING / "haptk-heartbeat.service"
DROP_IN = PACKAGING / "haptk-heartbeat-resources.conf"


def exposure(path: Path) -> float:
    """What `systemd-analyze security` makes of a unit file."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    found = re.search(r"Overall exposure level for \S+: (\d+\.\d)", done.stdout)
    assert found, done.stderr
    return float(found[1])


def verify(path: Path) -> str:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True, timeout=60
    )
    return "\n".join(line for line in done.stderr.splitlines() if path.name in line)


@pytest.mark.real("systemd-analyze")
@pytest.mark.parametrize(("name", "most"), [("haptk-heartbeat.service", 2.9), ("haptk-proxy.service", 3.5)])
def test_units_are_closed_by_default(name: str, most: float, tmp_path: Path) -> None:
    copy = tmp_path / name
    copy.write_text((PACKAGING / name).read_text().replace("/usr/bin/haptk", "/bin/true"))
    assert verify(copy) == ""
    assert exposure(copy) <= most


@pytest.mark.real("systemd-analyze")
def test_the_drop_in_takes_every_restriction_back(tmp_path: Path) -> None:
    """What scripts of Heartbeat could do, they can do again; nothing that the unit closes is forgotten."""
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/usr/bin/haptk", "/bin/true"))
    folder = tmp_path / f"{UNIT.name}.d"
    folder.mkdir()
    (folder / "resources.conf").write_text(DROP_IN.read_text())
    assert verify(copy) == ""
    closed = {
        line.partition("=")[0]
        for line in UNIT.read_text().partition("CapabilityBoundingSet")[2].splitlines()
        if "=" in line
    }
    opened = {line.partition("=")[0] for line in DROP_IN.read_text().splitlines() if re.match(r"[A-Z]\w+=", line)}
    harmless = {"", "ReadWritePaths", "LockPersonality", "SystemCallArchitectures", "SystemCallErrorNumber", "WantedBy"}
    assert closed - harmless <= opened


@pytest.mark.root
@pytest.mark.real("setpriv", "unshare", "ip")
def test_addresses_move_with_the_capabilities_that_are_left() -> None:
    """IPaddr's work: an address comes and goes, the peer is pinged, real-time and locked memory are had."""
    left = re.search(r"^CapabilityBoundingSet=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert left
    caps = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in left[1].split())])
    work = (
        "ip link set lo up && ip address add 192.0.2.1/32 dev lo && ping -c 1 -W 5 192.0.2.1 >/dev/null "
        "&& chrt -r 1 true && ip address del 192.0.2.1/32 dev lo"
    )
    argv = ["unshare", "--net", "setpriv", "--bounding-set", caps, "--no-new-privs", "sh", "-c", work]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr

"""`haptk dns` against a real Knot on loopback: the same updates, and what is different about Knot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from haptk.cluster.load import load
from haptk.dns.rfc2136 import Rfc2136, read_key
from haptk.errors import OperatorError, PeerError
from tests.dns.test_dns_bind import FIRST, HERE, KEY, MEMBERS, SECOND, STALE, WRONG, Rig, eventually

pytestmark = pytest.mark.real("knotd")
SECRET = KEY.split('secret "')[1].split('"')[0]
CONF = """
server:
    rundir: "{home}"
    listen: {host}@{port}
    answer-rotation: {rotation}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
log:
  - target: stdout
    any: info
database:
    storage: "{home}"
    journal-db-max-size: 16M
key:
  - id: haptk
    algorithm: hmac-sha256
    secret: {secret}
acl:
  - id: update
    key: haptk
    action: update
zone:
  - domain: example.com
    storage: "{home}"
    file: zone
    acl: update
    zonefile-sync: -1
"""


def knot(rig: Rig, name: str, addresses: list[str], *, serial: int = 7, ttl: int = 30, rotation: str = "on") -> None:
    """Start a Knot that serves example.com and wait until it answers."""
    home = rig.home(name, addresses, serial, ttl)
    conf = home / "knot.conf"
    conf.write_text(CONF.format(home=home, host=HERE, port=rig.ports[name], secret=SECRET, rotation=rotation))
    rig.start(["/usr/sbin/knotd", "-c", str(conf)], home, b"server started")


def done(rig: Rig, *argv: str) -> str:
    """A change that has to succeed; what Knot logged stands in the failure."""
    result = rig.change(*argv, "--yes")
    log = (rig.place / FIRST / "log").read_text()
    assert result.exception is None and result.return_value == 0, f"{result.exception!r}\n{log[-3000:]}"
    return result.stdout.strip()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    one = Rig(tmp_path)
    try:
        yield one
    finally:
        one.close()


def test_updates_drains_and_the_last_one(rig: Rig) -> None:
    knot(rig, FIRST, [*MEMBERS, STALE])
    done(rig, "drain", "lb2")
    assert rig.published() == {MEMBERS[0], MEMBERS[2], STALE}, "what else is there stays"
    done(rig, "apply")
    assert rig.published() == set(MEMBERS)
    assert done(rig, "apply") == "nothing to do"
    for node in ("lb1", "lb2"):
        done(rig, "drain", node)
    last = rig.change("drain", "lb3", "--yes")
    assert isinstance(last.exception, OperatorError) and "last one" in str(last.exception)
    assert rig.published() == {MEMBERS[2]}


def test_a_name_that_is_not_there_yet_is_made(rig: Rig) -> None:
    knot(rig, FIRST, [])
    done(rig, "apply")
    assert rig.published() == set(MEMBERS)


def test_a_change_in_between_and_a_wrong_key_change_nothing(rig: Rig) -> None:
    knot(rig, FIRST, MEMBERS)
    provider = Rfc2136(load(rig.config.read_text()).cluster, HERE, rig.port, read_key(rig.key))
    mine, other = provider.plan({MEMBERS[0]: 0}), provider.plan({MEMBERS[1]: 0})
    other.commit()
    with pytest.raises(PeerError, match="somebody else changed it"):
        mine.commit()
    good = rig.key.read_text()
    rig.key.write_text(WRONG)
    result = rig.change("drain", "lb1", "--yes")
    assert isinstance(result.exception, PeerError) and "d3Jvbmd" not in str(result.exception) + result.output
    rig.key.write_text(good)
    assert rig.published() == {MEMBERS[0], MEMBERS[2]}


def test_check_finds_what_is_planted(rig: Rig) -> None:
    knot(rig, FIRST, MEMBERS)
    knot(rig, SECOND, [*MEMBERS[:2], STALE], serial=6)
    assert rig.check(FIRST) == (0, {})
    code, found = rig.check(FIRST, SECOND)
    assert (code, found) == (2, {"behind": "critical", "stale": "critical", "missing": "critical"})


def test_knot_rotates_only_when_it_is_told(rig: Rig) -> None:
    """Its default; the how-to says which setting to add."""
    knot(rig, FIRST, MEMBERS, rotation="off")
    assert rig.check(FIRST) == (1, {"rotation": "warning"})


def test_bind_and_knot_stand_side_by_side(rig: Rig) -> None:
    """Two authoritative servers of two makers, of which only one was updated."""
    rig.named(FIRST, MEMBERS)
    knot(rig, SECOND, MEMBERS)
    assert rig.check(FIRST, SECOND) == (0, {})
    done(rig, "drain", "lb2")
    done(rig, "apply")
    eventually(rig, set(MEMBERS))
    assert rig.check(FIRST, SECOND) == (2, {"behind": "critical"})

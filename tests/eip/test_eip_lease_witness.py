"""`haptk heartbeat --lease`: real daemons, a wire between them that can be cut, and leases in the lab's DynamoDB.

Without a witness a cut makes two holders of a script; that is shown first.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from haptk.aws.client import Access, Clients
from haptk.aws.deadline import Deadline
from haptk.aws.lease import LeaseStore
from haptk.core.lease import Record
from haptk.io import clock
from haptk.io.control import call
from tests.heartbeat.test_heartbeat_daemon import Daemons, haptk, wait_for


class Wire:
    """Carries the pair's datagrams between two addresses of its own, until it is cut."""

    def __init__(self, pair: Daemons) -> None:
        self.cut = False
        self._selector = selectors.DefaultSelector()
        self._stop = threading.Event()
        for name in "ab":
            end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            pair.reach[name] = pair.address[name].rpartition(".")[0] + f".1{ord(name)}"
            end.bind((pair.reach[name], pair.port))
            self._selector.register(end, selectors.EVENT_READ, (pair.address[name], pair.port))
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def _carry(self) -> None:
        while not self._stop.is_set():
            for key, _ in self._selector.select(0.1):
                end = key.fileobj
                assert isinstance(end, socket.socket)
                data = end.recv(65535)
                if not self.cut:
                    end.sendto(data, key.data)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()


class Witnessed:
    """The pair, its wire, and the table."""

    def __init__(self, lab: Any, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lab = lab
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
            monkeypatch.setenv(key, lab.env("lb1")[key])
        self.pair = Daemons(base)
        self.pair.env = {"a": lab.env("lb1"), "b": lab.env("lb2")}
        self.wire = Wire(self.pair)
        self.store = LeaseStore(Clients(Access(every_endpoint_url=lab.api)), f"witness-{clock.monotonic_usec()}")
        self.store.init(Deadline(20))

    def record(self) -> Record | None:
        return self.store.read("pair1/web::x", Deadline(10))

    def owner(self) -> str | None:
        record = self.record()
        return None if record is None else record.owner

    def up(self) -> None:
        self.pair.up("--lease", f"{self.store.table}/pair1", "--lease-ttl", "1.5")
        wait_for(lambda: self.owner() == "a", self.pair.logs())

    def refuses(self, name: str) -> bool:
        return "is not taken from" in (self.pair.dir / f"{name}.log").read_text()

    def silence(self, mode: str) -> None:
        for action in ("GetItem", "UpdateItem"):
            self.lab.fault(mode, action=action)

    def close(self) -> None:
        self.pair.close()
        self.wire.close()


@pytest.fixture
def witnessed(lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Witnessed]:
    made = Witnessed(lab, tmp_path, monkeypatch)
    yield made
    made.close()


def test_a_cut_without_a_witness_makes_two_holders(witnessed: Witnessed) -> None:
    """What the original does, and haptk too as long as nobody else can be asked."""
    witnessed.pair.up()
    witnessed.wire.cut = True
    wait_for(lambda: witnessed.pair.holders() == "ab", witnessed.pair.logs())


def test_a_cut_with_a_lease_leaves_one_holder_and_a_death_is_still_answered(witnessed: Witnessed) -> None:
    witnessed.up()
    pair = witnessed.pair
    witnessed.wire.cut = True
    wait_for(lambda: pair.said("b", "peer_dead") and witnessed.refuses("b"), pair.logs())
    clock.sleep(3)  # two times to live
    assert (pair.holders(), witnessed.owner()) == ("a", "a")
    witnessed.wire.cut = False
    wait_for(lambda: pair.status("b")["peer"]["state"] == "active", pair.logs())
    assert pair.holders() == "a"
    assert not pair.said("a", "resource_stop")
    before = witnessed.record()
    pair.kill("a")
    (pair.dir / "up.a").unlink()
    wait_for(lambda: pair.holders() == "b" and witnessed.owner() == "b", pair.logs())
    after = witnessed.record()
    assert before and after and after.epoch == before.epoch + 1
    assert pair.status("b")["resources"][0]["lease"] == "ours"


@pytest.mark.parametrize("mode", ["reset", "hang"])
def test_a_silent_store_stops_takers_and_never_the_holder(witnessed: Witnessed, mode: str) -> None:
    witnessed.up()
    pair = witnessed.pair
    witnessed.silence(mode)
    clock.sleep(2.5)
    assert pair.holders() == "a"  # nothing was renewed for longer than the time to live
    assert not pair.said("b", "peer_dead")  # and no request stood in the heart's way
    pair.kill("a")
    (pair.dir / "up.a").unlink()
    wait_for(lambda: pair.said("b", "peer_dead") and witnessed.refuses("b"), pair.logs())
    clock.sleep(2)
    assert pair.holders() == ""
    assert "the lease store does not answer" in (pair.dir / "b.log").read_text()
    call(witnessed.lab.control, {"op": "faults", "clear": True})
    wait_for(lambda: pair.holders() == "b", pair.logs())


def test_a_holder_that_lost_its_lease_lets_go_of_a_script(witnessed: Witnessed) -> None:
    """As after a pause of its machine: somebody else has taken it."""
    witnessed.up()
    pair = witnessed.pair
    pair.kill("b")
    wait_for(lambda: pair.said("a", "peer_dead"), pair.logs())
    for _ in range(50):  # between two renewals
        try:
            witnessed.store.take("pair1/web::x", "b", witnessed.record(), 60.0, Deadline(5))
            break
        except Exception:
            clock.sleep(0.05)
    wait_for(lambda: pair.holders() == "", pair.logs())
    assert "the other node has its lease" in (pair.dir / "a.log").read_text()
    clock.sleep(2)
    assert pair.holders() == ""


def test_a_graceful_stop_lets_the_lease_go_and_status_tells_it(witnessed: Witnessed) -> None:
    witnessed.up()
    pair = witnessed.pair
    wait_for(lambda: pair.status("a")["resources"][0]["lease"] == "ours", pair.logs())
    assert haptk("heartbeat", "stop", "--control", str(pair.dir / "a.sock")).returncode == 0
    pair.running.pop("a").wait(timeout=20)
    wait_for(lambda: pair.holders() == "b" and witnessed.owner() == "b", pair.logs())
    assert haptk("heartbeat", "stop", "--control", str(pair.dir / "b.sock")).returncode == 0
    pair.running.pop("b").wait(timeout=20)
    assert witnessed.owner() == ""


def test_a_table_that_is_not_there_is_said(witnessed: Witnessed) -> None:
    pair = witnessed.pair
    pair.start("a", "--lease", "no-such-table/x")
    wait_for(lambda: "no-such-table" in (pair.dir / "a.log").read_text(), pair.logs())

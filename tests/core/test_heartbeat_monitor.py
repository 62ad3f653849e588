"""Held groups are looked at through core.health's rise and fall: doubt, death, restart, giving up, forgiving."""

from __future__ import annotations

from typing import Any

import pytest

from haptk.core.heartbeat.model import Finished, Grant, GroupConfig, Outcome, Run, Say, Seen
from haptk.core.heartbeat.tables import GroupState
from tests.core.test_heartbeat_node import TIMING, Bench

LOOKS = TIMING.__class__(**{**TIMING.__dict__, "monitor_s": 4.0, "monitor_again_s": 1.0, "forget_s": 50.0})


class Watched(Bench):
    """Node b with one group of its own, whose operations end as a test says."""

    def __init__(self, *, exclusive: bool = False, **config: Any) -> None:
        self.answer: dict[str, Outcome] = {}
        self.orders: list[str] = []
        self.slow = ""  # the operation that is under way until a test ends it
        self.under_way: list[int] = []
        self.ends: list[Finished] = []
        groups = (GroupConfig("b", ("web::2",), exclusive),)
        super().__init__(groups=groups, timing=LOOKS, **config)
        self.pair()
        self.status(haptk="1", hkheld="", hkstable="1", hkhealth="none", hkhold="none", hkconf=self.fingerprint)
        self.at(self.now + 1.0)
        assert self.group.state is GroupState.HELD
        self.orders.clear()

    @property
    def group(self) -> Any:
        return self.node.negotiation.holdings.groups[0]

    @property
    def fingerprint(self) -> str:
        return self.node.config.fingerprint

    def drain(self) -> Any:
        usual = {
            "status": Outcome(Seen.OURS if "start" in self.orders or self.started else Seen.NOT_OURS, "", ""),
            "start": Outcome(Seen.DONE),
            "release": Outcome(Seen.DONE),
            "stop": Outcome(Seen.DONE),
        }
        for packet in self.node.to_send(self.now):
            self.raw.append(packet.data)
        while (event := self.node.next_event()) is not None:
            if isinstance(event, Finished):
                self.ends.append(event)
            elif isinstance(event, Say):
                self.said.append(event)
            elif isinstance(event, Run):
                self.orders.append(event.op.value)
                if event.op.value == "start":
                    self.started.append(event.group)
                if event.op.value == self.slow:
                    self.under_way.append(event.ticket)
                    continue
                self.node.done(event.ticket, self.answer.get(event.op.value, usual[event.op.value]), self.now)
        return []

    def dead(self, why: str = "stopped") -> None:
        self.answer["status"] = Outcome(Seen.NOT_OURS, why, "")

    def for_s(self, seconds: float) -> None:
        """Let time pass; the peer goes on living."""
        end = self.now + seconds
        while self.now < end:
            self.at(min(end, self.now + 0.5))
            self.status(haptk="1", hkheld="", hkstable="1", hkhealth="none", hkhold="none", hkconf=self.fingerprint)

    def pair(self) -> Bench:
        self.status("init")
        self.status("up")
        self.at(self.now + 1.1)
        self.tell("repnodes", dest="b", nodelist="a b ", delnodelist=" ")
        self.status("active")
        self.tell("starting")
        self.tell("resource", rsc_hold="local", rtype="full", isstable="1")
        return self

    def events(self) -> list[str]:
        return [say.event for say in self.said if say.event.startswith("resource_") or say.event == "doubt"]


def test_one_bad_look_is_a_doubt_and_nothing_moves() -> None:
    bench = Watched()
    bench.dead()
    bench.for_s(4.2)
    assert bench.orders[-1] == "status"
    bench.answer.clear()
    bench.for_s(6)
    assert set(bench.orders) == {"status"}
    assert "doubt" in bench.events()
    assert "resource_lost" not in bench.events()


@pytest.mark.parametrize("fall", [1, 3])
def test_fall_bad_looks_are_a_death_that_is_answered_by_stop_and_start(fall: int) -> None:
    bench = Watched(monitor_fall=fall)
    bench.dead()
    bench.for_s(4.0 + (fall - 1) * 1.0 + 0.9)
    at = bench.orders.index("release")  # what is left of the group is down before anything is started
    assert bench.orders[:at] == ["status"] * fall
    assert bench.orders[at + 1] == "start"
    assert "web::2 is not running here any more" in bench.texts()


def test_looks_are_quick_while_in_doubt() -> None:
    bench = Watched()
    begin = bench.now
    bench.dead()
    bench.for_s(7.0)
    lost = next(at for at, say in enumerate(bench.said) if say.event == "resource_lost")
    assert lost
    assert bench.now - begin < 3 * LOOKS.monitor_s  # three slow looks would be later


def test_what_dies_again_before_it_proved_itself_is_given_up_and_told_to_the_peer() -> None:
    bench = Watched()
    bench.dead()
    bench.for_s(9.0)
    assert bench.group.state is GroupState.FAILED
    assert bench.group.failures == 2
    assert bench.node.negotiation.extras()["hkfail"] == "0"
    assert bench.events()[-1] == "resource_gave_up"
    assert bench.orders.count("start") == 1


def test_rise_good_looks_forgive_the_failure() -> None:
    bench = Watched()
    bench.dead()
    while "start" not in bench.orders:
        bench.for_s(0.5)
    bench.answer.clear()
    assert bench.group.failures == 1
    bench.for_s(1.2)
    assert bench.group.failures == 1  # one good look is not enough
    bench.for_s(1.2)
    assert bench.group.failures == 0
    assert "resource_proved" in bench.events()


def test_a_start_that_fails_is_tried_again_and_then_the_peers() -> None:
    bench = Watched()
    bench.dead()
    bench.answer["start"] = Outcome(Seen.FAILED, "no port")
    bench.for_s(30.0)
    assert bench.orders.count("start") >= 2
    assert bench.node.negotiation.extras()["hkfail"] == "0"
    assert not bench.node.negotiation.holdings.held()


def test_a_stop_that_fails_counts_as_held_and_is_reported_for_escalation() -> None:
    bench = Watched()
    bench.dead()
    bench.answer["release"] = Outcome(Seen.FAILED, "it hangs")
    bench.for_s(7.0)
    assert bench.group.state is GroupState.HELD
    assert "resource_stop_failed" in bench.events()  # what the daemon escalates
    assert bench.orders.count("release") == 1  # not in every second look
    assert "start" not in bench.orders


def test_a_look_that_sees_nothing_counts_for_nothing() -> None:
    bench = Watched()
    bench.answer["status"] = Outcome(Seen.UNKNOWN, "timed out")
    bench.for_s(60.0)
    assert bench.group.state is GroupState.HELD
    assert set(bench.orders) == {"status"}


def test_a_cloud_that_names_another_holder_is_believed_at_once() -> None:
    bench = Watched(exclusive=True)
    bench.answer["status"] = Outcome(Seen.NOT_OURS, "held by another", "eni-2")
    bench.for_s(4.5)
    assert bench.group.state is GroupState.CEDED
    assert bench.orders == ["status"]


def test_a_stop_while_it_is_being_restarted_does_not_start_it() -> None:
    bench = Watched()
    bench.dead()
    bench.slow = "release"
    bench.for_s(7.0)
    assert bench.orders[-1] == "release"
    bench.node.stop(bench.now)
    bench.node.done(bench.under_way[0], Outcome(Seen.DONE), bench.now)
    bench.for_s(5.0)
    assert "start" not in bench.orders
    assert "Heartbeat shutdown complete." in [getattr(event, "text", "") for event in bench.ends]


def test_a_failure_is_forgiven_after_a_long_time_while_the_peer_has_it() -> None:
    bench = Watched()
    bench.dead()
    bench.answer["start"] = Outcome(Seen.FAILED, "no port")
    bench.for_s(12.0)
    assert bench.node.negotiation.extras()["hkfail"] == "0"
    has = {"haptk": "1", "hkheld": "0", "hkstable": "1", "hkhealth": "none", "hkhold": "foreign"}
    for _ in range(120):
        bench.at(bench.now + 0.5)
        bench.status(**has, hkconf=bench.fingerprint)
    assert "hkfail" not in bench.node.negotiation.extras()
    assert "resource_forgiven" in bench.events()


def test_a_lease_is_no_answer_to_an_older_claim() -> None:
    bench = Watched(leases=True)
    grants = bench.node.negotiation.grants
    ticket = grants._told[0].ticket
    bench.node.granted(ticket - 1, Grant.OURS, "an old answer", bench.now)
    assert grants.ours() == set()
    bench.node.granted(ticket, Grant.OURS, "taken", bench.now)
    assert grants.ours() == {0}
    assert bench.node.negotiation.extras()["hklease"] == "0"

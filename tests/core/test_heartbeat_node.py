"""One node against messages written by hand, as a real heartbeat 3.0.6 would send them."""

from __future__ import annotations

from typing import Any

import pytest

from haptk.core.heartbeat import wire
from haptk.core.heartbeat.auth import Key, KeyRing
from haptk.core.heartbeat.model import (
    Failback,
    GroupConfig,
    Health,
    Hold,
    NodeConfig,
    Outcome,
    Remember,
    Run,
    Say,
    Seen,
    Source,
    Timing,
)
from haptk.core.heartbeat.node import Node
from haptk.core.heartbeat.tables import NodeState

KEYS = KeyRing([Key(1, "sha1", b"secret")], 1)
WALL = 1_700_000_000.0
TIMING = Timing(keepalive_s=1, deadtime_s=5, warntime_s=2.5, initdead_s=10, monitor_s=1000, deadping_s=5, retry_s=5)


class Bench:
    """A node named b, and what a real node a says to it."""

    def __init__(self, **config: Any) -> None:
        base: dict[str, Any] = {
            "name": "b",
            "peer": "a",
            "uuid": b"B" * 16,
            "generation": 7,
            "timing": TIMING,
            "groups": (GroupConfig("a", ("web::1",)), GroupConfig("b", ("web::2",))),
        }
        self.now = 0.0
        self.node = Node(NodeConfig(**{**base, **config}), KEYS, 1, 0.0, WALL)
        self.seq = 0
        self.hg = 100
        self.sent: list[wire.Message] = []
        self.raw: list[bytes] = []
        self.said: list[Say] = []
        self.remembered: list[Remember] = []
        self.started: list[int] = []
        self.drain()

    def drain(self) -> list[wire.Message]:
        """What was sent since the last look; operations succeed at once, statuses find nothing."""
        new = []
        for packet in self.node.to_send(self.now):
            sealed = wire.unseal(packet.data)
            KEYS.verify(sealed)
            new.append(wire.parse(sealed))
            self.raw.append(packet.data)
        while (event := self.node.next_event()) is not None:
            if isinstance(event, Say):
                self.said.append(event)
            elif isinstance(event, Remember):
                self.remembered.append(event)
            elif isinstance(event, Run):
                seen = Seen.NOT_OURS if event.op.value == "status" else Seen.DONE
                if event.op.value == "start":
                    self.started.append(event.group)
                self.node.done(event.ticket, Outcome(seen, "", ""), self.now)
        self.sent += new
        return new + self.drain() if self.node._packets else new

    def tell(self, t: str, **fields: str) -> list[wire.Message]:
        message: wire.Message = {"t": t, **fields}
        if not t.startswith("NS_") and "seq" not in message:
            self.seq += 1
            message["seq"] = f"{self.seq:x}"
        message = {"src": "a", "srcuuid": b"A" * 16, "hg": f"{self.hg:x}", "ts": f"{int(WALL + self.now):x}", **message}
        self.node.receive(KEYS.sign(message), Source("eth0", "10.0.0.1"), self.now)
        return self.drain()

    def status(self, st: str = "active", **fields: str) -> list[wire.Message]:
        return self.tell("status", **{"st": st, "dt": "1388", "protocol": "1", **fields})

    def at(self, now: float) -> list[wire.Message]:
        """Let time pass, timer by timer."""
        while self.node.timer_at() <= now:
            self.now = max(self.now, self.node.timer_at())
            self.node.handle_timer(self.now)
            self.drain()
        self.now = now
        return self.drain()

    def pair(self) -> Bench:
        """Up to the point where both are stable; a holds its own."""
        self.status("init")
        self.status("up")
        asked = self.tell("reqnodes", dest="b")
        assert [message["nodelist"] for message in asked if message["t"] == "repnodes"] == ["a b "]
        self.at(self.now + 1.1)
        self.tell("repnodes", dest="b", nodelist="a b ", delnodelist=" ")
        self.status("active")
        self.tell("starting")
        self.tell("resource", rsc_hold="local", rtype="full", isstable="1")
        return self

    def texts(self) -> str:
        return "\n".join(say.text for say in self.said)


def kinds(messages: list[wire.Message]) -> list[str]:
    return [wire.text(message, "t") for message in messages]


def test_the_first_messages_are_statuses_init_up_up() -> None:
    bench = Bench()
    first = bench.sent[:3]
    assert [(m["t"], m["st"], m["seq"]) for m in first] == [
        ("status", "init", "1"),
        ("status", "up", "2"),
        ("status", "up", "3"),
    ]
    assert {m["dt"] for m in first} == {"1388"}
    assert {m["hg"] for m in first} == {"7"}
    assert {m["ts"] for m in first} == {f"{int(WALL):x}"}
    assert first[0]["srcuuid"] == b"B" * 16
    assert first[0]["ttl"] == "3"


def test_the_negotiation_with_a_real_node() -> None:
    bench = Bench().pair()
    assert bench.node.state is NodeState.ACTIVE
    assert bench.started == [1]
    last = [m for m in bench.sent if m["t"] == "resource"][-1]
    assert (last["rsc_hold"], last["isstable"], last["rtype"]) == ("local", "1", "full")


def test_nothing_is_announced_as_held_before_it_was_started() -> None:
    bench = Bench().pair()
    for message in bench.sent:
        if message["t"] == "resource" and message["rsc_hold"] != "none":
            assert bench.started


def test_acks_every_tenth_message_and_not_above_a_gap() -> None:
    bench = Bench().pair()
    bench.sent.clear()
    for _ in range(30):
        bench.now += 0.1
        bench.status()
    acks = [m for m in bench.sent if m["t"] == "NS_ackmsg"]
    assert len(acks) == 3
    assert all(m["dest"] == "a" and "seq" not in m for m in acks)
    digits = {int(str(m["ackseq"]), 16) % 10 for m in acks}
    assert len(digits) == 1
    bench.seq += 1  # one is lost
    bench.sent.clear()
    for _ in range(12):
        bench.status()
    assert "NS_ackmsg" not in kinds(bench.sent)


def test_without_protocol_there_is_no_flow_control() -> None:
    bench = Bench()
    for _ in range(25):
        bench.tell("status", st="up", dt="1388")
    assert "NS_ackmsg" not in kinds(bench.sent)


def test_a_lost_message_is_asked_for_in_decimal_and_again() -> None:
    bench = Bench().pair()
    bench.now += 0.1
    for _ in range(40):
        bench.status()
    bench.seq += 1  # is lost
    lost = bench.seq
    bench.sent.clear()
    bench.status()
    assert "NS_rexmit" not in kinds(bench.sent)
    bench.at(bench.now + 0.3)
    asks = [m for m in bench.sent if m["t"] == "NS_rexmit"]
    assert lost > 0xF
    assert {(m["firstseq"], m["lastseq"]) for m in asks} == {(str(lost), str(lost))}
    bench.tell("status", st="active", dt="1388", protocol="1", seq=f"{lost:x}")
    assert not bench.node.peer.incoming.missing


def test_a_resend_is_byte_identical_and_what_is_gone_is_refused_in_hex() -> None:
    bench = Bench().pair()
    original = bench.raw[1]
    bench.raw.clear()
    bench.now += 1
    bench.tell("NS_rexmit", dest="b", firstseq="2", lastseq="2")
    assert original in bench.raw
    for _ in range(510):
        bench.now += 1.0
        bench.node.handle_timer(bench.now)
        bench.status()
    bench.sent.clear()
    bench.tell("NS_rexmit", dest="b", firstseq="11", lastseq="11")
    nak = bench.sent[-1]
    assert (nak["t"], nak["firstseq"], nak["info"], nak["dest"]) == ("NS_nak_rexmit", "b", "seqno too low", "a")


def test_messages_for_others_are_counted_and_not_obeyed() -> None:
    bench = Bench().pair()
    bench.tell("shutdone", st="dead", dest="c")
    assert not bench.node.peer.left
    bench.tell("shutdone", st="dead", dest="b", destuuid="")
    assert bench.node.peer.left
    assert not bench.node.peer.incoming.missing


def test_a_null_destuuid_means_none() -> None:
    bench = Bench()
    message: wire.Message = {"t": "status", "dest": "b", "destuuid": bytes(16)}
    assert bench.node._for_us(message)
    message["destuuid"] = b"X" * 16
    assert not bench.node._for_us(message)


@pytest.mark.parametrize("t", ["stonith", "hbapi-clstat", "num_ping_nodes", "whatever"])
def test_unknown_types_are_counted(t: str) -> None:
    bench = Bench().pair()
    bench.tell(t, node="x")
    bench.status()
    assert not bench.node.peer.incoming.missing


def test_shutdone_is_followed_by_a_take_over_at_once() -> None:
    bench = Bench().pair()
    bench.tell("resource", rsc_hold="none", rtype="full", isstable="0", info="shutdown")
    assert 0 not in bench.started
    bench.tell("shutdone", st="dead")
    assert 0 in bench.started


def test_the_peers_own_dead_time_counts() -> None:
    bench = Bench().pair()
    bench.status(dt="2ee0")  # 12,000 ms
    heard = bench.now
    bench.at(heard + 11.9)
    assert bench.node.peer.state is NodeState.ACTIVE
    bench.at(heard + 12.1)
    assert bench.node.peer.state is NodeState.DEAD
    assert 0 in bench.started


@pytest.mark.parametrize(("dt", "dead_s"), [("0", 5.0), ("1", 0.05), ("ffffffff", 3600.0), ("zz", 5.0)])
def test_an_absurd_dead_time_is_bounded(dt: str, dead_s: float) -> None:
    bench = Bench()
    bench.status("up", dt=dt)
    assert bench.node.peer.dead_time_s == dead_s


def test_other_packets_keep_the_link_and_not_the_node() -> None:
    bench = Bench().pair()
    heard = bench.now
    for _ in range(12):
        bench.now += 0.4
        bench.node.handle_timer(bench.now)
        bench.tell("NS_ackmsg", dest="b", ackseq="1")
    bench.at(heard + 5.1)
    assert bench.node.peer.state is NodeState.DEAD
    assert bench.node.peer.links["eth0"].state.value == "up"


def test_an_older_generation_is_a_replay_and_a_newer_one_a_restart() -> None:
    bench = Bench().pair()
    bench.hg = 99
    bench.status()
    assert "attempted replay attack [a]? [gen = 99, curgen = 100]" in bench.texts()
    bench.hg, bench.seq = 101, 0
    bench.status("init")
    assert "Heartbeat restart on node a" in bench.texts()
    assert bench.remembered[-1].generations == {"a": 101}


def test_the_known_generation_comes_from_disk() -> None:
    bench = Bench(peer_generations={"a": 100})
    bench.hg = 99
    bench.status()
    assert not bench.node.peer.ever_heard
    bench.hg = 100
    bench.status()
    assert bench.node.peer.ever_heard


def test_strangers_and_namesakes_are_named_once() -> None:
    bench = Bench()
    for _ in range(5):
        bench.tell("status", src="c", st="up")
        bench.tell("status", src="b", st="up")
        bench.tell("status", st="up", ts="0")
    text = bench.texts()
    assert text.count("bad node [c]") == 1
    assert text.count("which is our own name") == 1
    assert text.count("lacks src, ts or t") == 1
    assert not bench.node.peer.ever_heard


def test_an_unnamed_peer_is_learned_from_its_first_message() -> None:
    bench = Bench(peer=None)
    bench.status("init")
    assert bench.node.peer.name == "a"
    bench.tell("status", src="c", st="up")
    assert bench.node.peer.name == "a"


def test_a_standby_of_the_real_node() -> None:
    bench = Bench().pair()
    answer = bench.tell("ask_resources", rsc_hold="local", info="me")
    assert [(m["rsc_hold"], m["info"]) for m in answer if m["t"] == "ask_resources"] == [("local", "other")]
    bench.tell("resource", rsc_hold="none", rtype="full", isstable="0", info="standby")
    assert 0 not in bench.started
    bench.tell("ask_resources", rsc_hold="local", info="done")
    assert 0 in bench.started
    assert [m["info"] for m in bench.sent if m["t"] == "ask_resources"] == ["other", "done"]
    last = [m for m in bench.sent if m["t"] == "resource"][-1]
    assert (last["rsc_hold"], last["isstable"]) == ("all", "1")


def test_legacy_asks_for_its_own_and_gives_what_is_asked_for() -> None:
    bench = Bench(failback=Failback.LEGACY)
    bench.status("up")
    bench.at(1.1)
    bench.tell("repnodes", dest="b", nodelist="a b ", delnodelist=" ")
    bench.status("active")
    assert [m["ipaddr"] for m in bench.sent if m["t"] == "ip-request"] == ["web::2"]
    bench.tell("ip-request-resp", dest="b", ipaddr="web::2", weown="yes", ok="OK")
    assert bench.started == [1]
    answer = bench.tell("ip-request", ipaddr="web::1")
    found = [m for m in answer if m["t"] == "ip-request-resp"]
    assert [(m["dest"], m["ipaddr"], m["ok"]) for m in found] == [("a", "web::1", "OK")]
    assert not {"starting", "resource", "ask_resources"} & set(kinds(bench.sent))


def test_a_pause_of_our_own_is_not_the_peers_silence() -> None:
    bench = Bench().pair()
    bench.now += 20  # the process stood still; its socket was full of statuses, or not
    bench.node.handle_timer(bench.now)
    bench.drain()
    assert bench.node.peer.state is NodeState.ACTIVE
    assert "this node stood still" in bench.texts()
    bench.at(bench.now + 6)
    assert bench.node.peer.state is NodeState.DEAD


def test_a_node_that_is_always_late_notices_a_death_in_the_end() -> None:
    bench = Bench().pair()
    for _ in range(40):
        bench.now = bench.node.timer_at() + 1.5
        bench.node.handle_timer(bench.now)
        bench.drain()
    assert bench.node.peer.state is NodeState.DEAD


def test_a_sick_node_does_not_ask_for_resources() -> None:
    bench = Bench(health=Health.UP).pair()
    bench.node.set_health(Health.DOWN, "it answers 503", bench.now)
    assert "our own check is down" in bench.node.want(Hold.ALL, bench.now)


def test_forged_senders_do_not_flood_the_log() -> None:
    bench = Bench()
    for number in range(500):
        bench.node.receive(b"rubbish", Source("eth0", f"10.9.{number // 250}.{number % 250}"), bench.now)
    bench.drain()
    assert len([say for say in bench.said if say.event == "refused"]) == 32
    bench.now += 61
    bench.node.receive(b"rubbish", Source("eth0", "10.9.0.1"), bench.now)
    bench.drain()
    assert len([say for say in bench.said if say.event == "refused"]) == 33


class SlowBench(Bench):
    """A node whose `status` scripts do not come back."""

    def drain(self) -> list[wire.Message]:
        new = [wire.parse(wire.unseal(packet.data)) for packet in self.node.to_send(self.now)]
        while (event := self.node.next_event()) is not None:
            if isinstance(event, Run) and event.op.value != "status":
                self.node.done(event.ticket, Outcome(Seen.DONE, "", ""), self.now)
        self.sent += new
        return new


def test_who_cannot_see_what_it_holds_takes_part_after_five_seconds_all_the_same() -> None:
    """Before that it would say "I hold nothing" of what it may hold; for ever it would leave its peer waiting."""
    bench = SlowBench()
    bench.status("init")
    bench.status("up")
    bench.tell("reqnodes", dest="b")
    bench.at(1.1)
    bench.tell("repnodes", dest="b", nodelist="a b ", delnodelist=" ")
    for now in (2.0, 3.0, 4.0, 4.9):
        bench.at(now)
        bench.status("active")
        assert bench.node.state is not NodeState.ACTIVE
    bench.at(5.2)
    assert bench.node.state is NodeState.ACTIVE


def test_a_peer_that_was_installed_anew_is_remembered_by_its_new_identity() -> None:
    bench = Bench().pair()
    before = len(bench.remembered)
    bench.status()
    assert len(bench.remembered) == before
    bench.status(srcuuid=b"C" * 16)  # type: ignore[arg-type]
    assert len(bench.remembered) == before + 1


@pytest.mark.parametrize(
    ("rtype", "said", "hold"),
    [
        ("full", "foreign", Hold.FOREIGN),
        ("partial", "foreign", Hold.LOCAL | Hold.FOREIGN),  # beside what it said before
        ("partial", "local", Hold.LOCAL),
        ("partial", "none", Hold.NONE),
        ("full", "none", Hold.NONE),
    ],
)
def test_what_the_peer_holds_is_what_it_said_whole_or_more_of(rtype: str, said: str, hold: Hold) -> None:
    bench = Bench().pair()
    assert bench.node.peer.hold is Hold.LOCAL
    bench.tell("resource", rsc_hold=said, rtype=rtype, isstable="1")
    assert bench.node.peer.hold == hold


def test_a_takeover_asks_the_peer_in_the_originals_words() -> None:
    bench = Bench().pair()
    bench.at(bench.now + 3)
    bench.sent.clear()
    assert bench.node.negotiation.want(Hold.FOREIGN) == ""
    bench.drain()
    asked = [message for message in bench.sent if message["t"] == "hb_takeover"]
    assert [message["rsc_hold"] for message in asked] == ["foreign"]

"""haptk pairs with the real heartbeat 3.0.6: start orders, stops, crashes, cuts, moves, keys, loss.

haptk is node b (or both), reading the same ha.d as the original. Deadlines are generous: the original looks at a
packet up to half a second late, and this machine may be busy.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.interop.heartbeat_nodes import Pair, dump, settled, wait_for

pytestmark = [pytest.mark.real("heartbeat"), pytest.mark.root, pytest.mark.timeout(180)]

NOISE = re.compile(
    r"Core dumps could be lost|core_pattern|core_uses_pid|Logging daemon|No Previous generation|Cannot lock ourselves"
    r"|Initial dead time|Deprecated 'legacy'|directives are almost never|auto_failback|STONITH|Shared disks"
)


def all_on(pair: Pair, name: str, timeout_s: float = 20) -> None:
    wait_for(lambda: {pair.holder(rsc) for rsc in ("rscA", "rscA2", "rscB")} == {name}, timeout_s, dump(pair))


def complaints(log: str) -> list[str]:
    """Lines of the real log that an operator would have to look at."""
    return [line for line in log.splitlines() if ("WARN" in line or "ERROR" in line) and not NOISE.search(line)]


@pytest.mark.parametrize("auth", ["sha1", "md5"])
def test_real_first_then_haptk(pair: Callable[..., Pair], auth: str) -> None:
    """The two minutes of quiet are in test_heartbeat_steady."""
    two = pair()
    two.authkeys = f"auth 1\n1 {auth} secretkey\n"
    two.up()
    two.a.start_real()
    wait_for(lambda: "Local status now set to: 'up'" in two.a.log, 20, dump(two))
    two.b.start_haptk()
    settled(two)
    wait_for(lambda: two.a.run("cl_status", "rscstatus").strip() == "local", 20, dump(two))
    assert two.a.run("cl_status", "nodestatus", "b").strip() == "active"
    assert not complaints(two.a.log)
    assert "rscB start" not in two.a.log
    assert len(two.a.calls("start")) == 2
    assert len(two.b.calls("start")) == 1


def test_haptk_first_then_real(pair: Callable[..., Pair]) -> None:
    """haptk alone takes everything after initdead; the returning real node finds that and takes nothing."""
    two = pair().up()
    two.b.start_haptk()
    all_on(two, "b")
    two.a.start_real()
    wait_for(lambda: "T_RESOURCES(them)" in two.a.log, 20, dump(two))
    assert two.a.run("cl_status", "rscstatus").strip() == "none"
    assert two.holder("rscA") == "b"


def test_clean_stop_of_either_side(pair: Callable[..., Pair]) -> None:
    two = pair().up()
    two.a.start_real()
    two.b.start_haptk()
    settled(two)
    two.a.stop_real()
    all_on(two, "b")
    assert "Received shutdown notice from 'a'" in two.b.log
    two.a.start_real()
    wait_for(lambda: two.a.run("cl_status", "nodestatus", "b").strip() == "active", 20, dump(two))
    wait_for(lambda: '"stable": true' in two.b.ctl("status", "--json"), 20, dump(two))
    two.b.stop_haptk()
    all_on(two, "a")
    assert "Received shutdown notice from 'b'" in two.a.log


def test_crash_of_either_side(pair: Callable[..., Pair]) -> None:
    two = pair().up()
    two.a.start_real()
    two.b.start_haptk()
    settled(two)
    two.a.crash()
    all_on(two, "b")
    assert "node a: is dead" in two.b.log
    two.a.start_real()
    wait_for(lambda: "T_RESOURCES(them)" in two.a.log, 20, dump(two))
    assert two.holder("rscA") == "b"
    two.b.crash()
    all_on(two, "a")
    assert "node b: is dead" in two.a.log
    two.b.start_haptk()
    wait_for(lambda: "Heartbeat restart on node b" in two.a.log, 20, dump(two))
    wait_for(lambda: two.a.log.rstrip().count("node b: status active") >= 2, 20, dump(two))
    assert two.holder("rscB") == "a"


def test_standby_and_takeover_from_either_side(pair: Callable[..., Pair]) -> None:
    two = pair().up()
    two.a.start_real()
    two.b.start_haptk()
    settled(two)
    two.a.run("/usr/share/heartbeat/hb_standby", "local")
    all_on(two, "b")
    wait_for(lambda: "Other node completed standby takeover" in two.a.log, 20, dump(two))
    ask(two, "standby", "all")
    all_on(two, "a")
    wait_for(lambda: "Standby resource acquisition done [all]" in two.a.log, 20, dump(two))
    ask(two, "takeover", "local")
    settled(two)
    wait_for(lambda: two.a.log.count("Local standby process completed") >= 2, 20, dump(two))
    two.a.run("/usr/share/heartbeat/hb_takeover", "all")
    all_on(two, "a")
    assert not complaints(two.a.log)


def ask(two: Pair, *words: str) -> None:
    """An order to haptk; "a change is under way" is an answer too, so it is asked again."""
    wait_for(lambda: "asked" in two.b.ctl(*words), 20, dump(two))


def test_failback_on_both_ways(pair: Callable[..., Pair]) -> None:
    two = pair(failback="on").up()
    two.a.start_real()
    two.b.start_haptk()
    settled(two)
    two.a.crash()
    all_on(two, "b")
    two.a.start_real()
    settled(two)  # haptk gives a's group back
    assert "standby: acquire [foreign] resources from b" in two.a.log
    wait_for(lambda: '"stable": true' in two.b.ctl("status", "--json"), 20, dump(two))
    two.b.crash()
    all_on(two, "a")
    two.b.start_haptk()
    settled(two)  # and the real node gives b's back
    assert "b can take our foreign resources" in two.a.log


def test_a_cut_and_its_healing(pair: Callable[..., Pair]) -> None:
    """Both take everything during the cut. At the heal the real node restarts itself; haptk goes on without a gap."""
    two = pair().up()
    two.a.start_real()
    two.b.start_haptk()
    settled(two)
    two.b.link("down")
    wait_for(lambda: two.holder("rscA") == "ab" and two.holder("rscB") == "ab", 20, dump(two))
    two.b.link("up")
    gaps: list[str] = []

    def one_holder() -> bool:
        if not two.holder("rscB") or not two.holder("rscA"):
            gaps.append("nobody")
        return two.holder("rscA") == "b" and two.holder("rscB") == "b"

    wait_for(one_holder, 40, dump(two))
    assert not gaps
    assert "Cluster node a returning after partition" in two.b.log
    wait_for(lambda: "Cluster node b returning after partition" in two.a.log, 20, dump(two))


def test_thirty_percent_loss(pair: Callable[..., Pair]) -> None:
    """The pair stays up, and each side asks for and resends what was lost."""
    import time

    two = pair(deadtime="4", initdead="8").up()
    two.a.start_real()
    two.b.start_haptk("--verbose")
    settled(two)
    two.loss(30)
    time.sleep(15)
    two.loss(0)
    time.sleep(1)
    settled(two)
    assert "is dead" not in two.a.log + two.b.log
    assert "lost packet(s) for [b]" in two.a.log
    assert "No pkts missing from b!" in two.a.log
    assert "lost packet(s) for [a]" in two.b.log
    assert "No pkts missing from a!" in two.b.log


def test_legacy(pair: Callable[..., Pair]) -> None:
    two = pair(failback="legacy").up()
    two.b.start_haptk()
    all_on(two, "b")
    two.a.start_real()
    settled(two)  # a asks for its own, haptk gives it up
    two.b.crash()
    all_on(two, "a")
    two.b.start_haptk()
    settled(two)  # and haptk asks for its own


def test_kill_of_the_haptk_daemon_alone(pair: Callable[..., Pair]) -> None:
    """Back within the dead time, it goes on with what it finds running; nothing was stopped."""
    two = pair(deadtime="6", initdead="12").up()
    two.a.start_real()
    two.b.start_haptk()
    settled(two)
    two.b.kill_daemon()
    two.b.start_haptk()
    wait_for(lambda: "ours already: going on with it" in two.b.log, 20, dump(two))
    wait_for(lambda: "Heartbeat restart on node b" in two.a.log, 20, dump(two))
    wait_for(lambda: '"rscstatus": "local"' in two.b.ctl("status", "--json"), 20, dump(two))
    assert not two.b.calls("stop")
    assert len(two.b.calls("start")) == 1
    assert "is dead" not in two.a.log


def test_a_wrong_key_is_said_once_and_not_the_digest(pair: Callable[..., Pair]) -> None:
    import time

    two = pair().up()
    (two.b.dir / "ha.d" / "authkeys").write_text("auth 1\n1 sha1 another\n")
    two.a.start_real()
    two.b.start_haptk()
    time.sleep(4)
    refused = [line for line in two.b.log.splitlines() if "is the key the same there?" in line]
    assert len(refused) == 1
    assert "authstr" not in two.b.log
    assert two.a.log.count("authtoken does not match") > 5  # the original says it for every packet,
    assert "authstr" in two.a.log  # and tells the right digest


def test_messages_never_reach_the_environment_of_scripts(pair: Callable[..., Pair]) -> None:
    two = pair().up()
    two.a.start_real()
    two.b.start_haptk()
    settled(two)
    ours = (two.b.dir / "env.rscB.start").read_text()
    theirs = (two.a.dir / "env.rscA.start").read_text()
    assert "HA_src=" in theirs  # the original exports every field of the message
    assert not re.search(r"^HA_(src|seq|ts|t|st|ipaddr|ok|auth)=", ours, re.M)


def test_broadcast_and_multicast_beside_each_other(pair: Callable[..., Pair]) -> None:
    """Two media: every message comes twice and counts once; each is a link of its own, and a node hears itself."""
    two = pair()
    two.extra = ["bcast eth0", "mcast eth0 225.0.0.77 694 1 0"]
    two.up()
    for machine in (two.a, two.b):
        path = machine.dir / "ha.d" / "ha.cf"
        path.write_text("".join(line + "\n" for line in path.read_text().splitlines() if not line.startswith("ucast")))
    two.a.start_real()
    two.b.start_haptk()
    settled(two)
    assert not complaints(two.a.log)
    assert '"haptk": false' in two.b.ctl("status", "--json")
    links = two.b.ctl("status")
    assert links.count(": up") >= 1


def test_a_partition_of_two_haptk_nodes_leaves_nobody_without(pair: Callable[..., Pair]) -> None:
    """The original serves nothing for 20.8 s after the heal. Here the owner of each group goes on, without a gap."""
    two = pair().up()
    two.a.start_haptk()
    two.b.start_haptk()
    settled(two)
    two.b.link("down")
    wait_for(lambda: two.holder("rscA") == "ab" and two.holder("rscB") == "ab", 20, dump(two))
    two.b.link("up")
    nobody: list[str] = []

    def resolved() -> bool:
        if not (two.holder("rscA") and two.holder("rscB")):
            nobody.append("nobody")
        return (two.holder("rscA"), two.holder("rscB")) == ("a", "b")

    wait_for(resolved, 30, dump(two))
    assert not nobody
    assert "both a and b hold" in two.a.log

"""docs/howto/replace-heartbeat-one-node-at-a-time.md, step by step with real daemons, and back."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.heartbeat_nodes import ROOT, Machine, Pair, wait_for

pytestmark = [pytest.mark.real("heartbeat"), pytest.mark.root, pytest.mark.timeout(180)]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path / "pair")
    yield made.up()
    made.close()


def rscstatus(machine: Machine) -> str:
    return machine.run("cl_status", "rscstatus").strip()


def test_the_howto(pair: Pair) -> None:
    a, b = pair.a, pair.b
    a.start_real()
    b.start_real()
    wait_for(lambda: rscstatus(a) == rscstatus(b) == "local", 40, "the pair does not come up")
    # Before you start
    config = (
        "env",
        f"PYTHONPATH={ROOT}",
        sys.executable,
        "-m",
        "haptk",
        "heartbeat",
        "-f",
        "/etc/ha.d",
        "--check-config",
    )
    assert b.run(*config).strip() == "would start"
    # Change node b
    b.run("/usr/share/heartbeat/hb_standby", "all")
    wait_for(lambda: rscstatus(a) == "all", 20, "a does not take everything")
    b.stop_real()
    uuid = (b.dir / "varlib" / "hb_uuid").read_bytes()
    generation = int((b.dir / "varlib" / "hb_generation").read_text())
    b.start_haptk()
    wait_for(lambda: a.run("cl_status", "nodestatus", "b").strip() == "active", 30, "b does not return")
    wait_for(lambda: "peer a: active" in b.ctl("status"), 20, "haptk does not see a")
    assert (b.dir / "state" / "hb_uuid").read_bytes() == uuid
    assert int((b.dir / "state" / "hb_generation").read_text()) == generation + 1
    assert pair.holder("rscA") == pair.holder("rscB") == "a"
    wait_for(lambda: "asked" in b.ctl("takeover", "local"), 20, "haptk does not ask")
    wait_for(lambda: pair.holder("rscB") == "b" and pair.holder("rscA") == "a", 20, "b does not get its own back")
    # Change node a
    wait_for(lambda: "asked" in b.ctl("takeover", "all"), 20, "haptk does not ask")
    wait_for(lambda: pair.holder("rscA") == pair.holder("rscB") == "b", 20, "b does not take everything")
    a.stop_real()
    a.start_haptk()
    wait_for(
        lambda: "peer b: active" in a.ctl("status") and "peer a: active" in b.ctl("status"), 30, "no pair of haptk"
    )
    assert pair.holder("rscA") == pair.holder("rscB") == "b"
    # Going back, on a
    a.stop_haptk()
    for name in ("hb_uuid", "hb_generation"):
        (a.dir / "varlib" / name).write_bytes((a.dir / "state" / name).read_bytes())
    a.start_real()
    wait_for(lambda: a.run("cl_status", "nodestatus", "b").strip() == "active", 30, "the real a does not see b")
    wait_for(lambda: "peer a: active" in b.ctl("status"), 30, "haptk does not see the real a")
    assert "replay" not in b.log.rpartition("Heartbeat restart on node a")[2]
    assert pair.holder("rscA") == pair.holder("rscB") == "b"

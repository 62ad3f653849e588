"""Fencing: preconditions, one way only, and nothing without the right to it."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from haptk.aws.client import Access, Clients
from haptk.aws.deadline import Deadline
from haptk.aws.ec2 import Ec2
from haptk.aws.lease import LeaseStore
from haptk.eip.fence import Fence, Fenced, pair_name
from haptk.errors import OperatorError
from haptk.io import clock

HAPTK = str(Path(sys.executable).with_name("haptk"))


class Pair:
    """Two instances of this test's own, because stopping is for good."""

    def __init__(self, lab: Any) -> None:
        self.lab = lab
        subnet = lab.region.subnets[0].subnet_id
        made = lab.ec2.run_instances(ImageId="ami-0123456789abcdef0", MinCount=2, MaxCount=2, SubnetId=subnet)
        self.a, self.b = (one["InstanceId"] for one in made["Instances"])
        self.clients = Clients(Access(every_endpoint_url=lab.api))
        self.store = LeaseStore(self.clients, f"fence-{clock.monotonic_usec()}")
        self.store.init(Deadline(20))
        self.said: list[str] = []

    def fence(self, me: str, peer: str) -> Fence:
        return Fence(me, peer, Ec2(self.clients), self.store, self.said.append)

    def state(self, instance: str) -> str:
        found = self.lab.ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
        return str(found["State"]["Name"])

    def end(self) -> None:
        self.lab.ec2.terminate_instances(InstanceIds=[self.a, self.b])


@pytest.fixture
def pair(lab: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.setenv(key, lab.env("lb1")[key])
    made = Pair(lab)
    yield made
    made.end()


def test_the_peer_is_stopped_and_the_right_is_given_back(pair: Pair) -> None:
    ended = pair.fence(pair.a, pair.b).run(30)
    assert ended.ok, ended
    assert (pair.state(pair.a), pair.state(pair.b)) == ("running", "stopped")
    record = pair.store.read(pair_name(pair.b, pair.a), Deadline(5))
    assert record is not None and record.owner == ""
    assert pair.fence(pair.a, pair.b).run(30).because.endswith("already")


def test_never_both_ways_at_once(pair: Pair) -> None:
    """Both want it at the same moment; a slow StopInstances leaves the loser every chance to send its own."""
    pair.lab.fault("slow", action="StopInstances", slow_ms=1500)
    mark = pair.lab.mark()
    ends: dict[str, Fenced] = {}

    def run(me: str, peer: str) -> None:
        ends[me] = pair.fence(me, peer).run(6)

    threads = [threading.Thread(target=run, args=way) for way in ((pair.a, pair.b), (pair.b, pair.a))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert sorted((pair.state(pair.a), pair.state(pair.b))) == ["running", "stopped"], (ends, pair.said)
    assert len(pair.lab.calls(mark, "StopInstances")) == 1
    assert [ended.ok for ended in ends.values()].count(True) == 1


def test_without_the_store_nothing_is_stopped(pair: Pair) -> None:
    pair.lab.fault("reset", action="GetItem")
    ended = pair.fence(pair.a, pair.b).run(8)
    assert not ended.ok and pair.state(pair.b) == "running"


def test_a_right_that_the_other_has_is_respected(pair: Pair) -> None:
    pair.store.take(pair_name(pair.a, pair.b), pair.b, None, 30.0, Deadline(5))
    ended = pair.fence(pair.a, pair.b).run(4)
    assert not ended.ok and "nothing was sent" in ended.because
    assert pair.state(pair.b) == "running"


def test_preconditions(pair: Pair) -> None:
    with pytest.raises(OperatorError, match="itself"):
        pair.fence(pair.a, pair.a)
    with pytest.raises(OperatorError, match="instance ids"):
        pair.fence("lb1", pair.b)
    assert not pair.fence(pair.a, "i-0123456789abcdef0").run(8).ok
    ended = pair.fence(pair.a, pair.b).run(8, dry_run=True)
    assert not ended.ok and "would stop" in ended.because and pair.state(pair.b) == "running"


def test_on_the_command_line(lab: Any, pair: Pair) -> None:
    def haptk(*words: str) -> subprocess.CompletedProcess[str]:
        command = [HAPTK, "eip", "fence", pair.b, "--table", pair.store.table, *words]
        return subprocess.run(command, env=lab.env("lb1"), capture_output=True, text=True, timeout=90, input="")

    assert haptk().returncode == 130  # nobody said yes
    assert haptk("--dry-run").returncode == 1
    assert pair.state(pair.b) == "running"
    done = haptk("--yes")
    assert done.returncode == 0, done.stderr + done.stdout
    assert pair.state(pair.b) == "stopped"

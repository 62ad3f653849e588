"""Leases in DynamoDB and the pool that stands on them, against the lab's cloud over HTTP."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from haptk.aws.client import Access, Clients
from haptk.aws.deadline import Deadline
from haptk.aws.lease import LeaseStore
from haptk.core.lease import Record
from haptk.eip.agent import Agent
from haptk.eip.pool import Member
from haptk.errors import AwsConflict, AwsNotFound
from haptk.io import clock

HAPTK = str(Path(sys.executable).with_name("haptk"))
TABLE = "haptk-leases"


@pytest.fixture
def store(lab: Any, monkeypatch: pytest.MonkeyPatch) -> LeaseStore:
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.setenv(key, lab.env("lb1")[key])
    made = LeaseStore(Clients(Access(every_endpoint_url=lab.api)), f"leases-{clock.monotonic_usec()}")
    assert made.init(Deadline(20)) is True
    assert made.init(Deadline(20)) is False
    return made


def test_a_life_of_a_lease(store: LeaseStore) -> None:
    deadline = Deadline(30)
    assert store.read("x", deadline) is None
    mine = store.take("x", "a", None, 9.0, deadline)
    assert store.read("x", deadline) == mine == Record("a", 1, 1, 9.0)
    mine = store.renew("x", mine, deadline)
    assert mine.rvn == 2 and mine.epoch == 1
    free = store.let_go("x", mine, deadline)
    assert store.read("x", deadline) == free and free.owner == "" and free.epoch == 1
    theirs = store.take("x", "b", free, 9.0, deadline)
    assert theirs.epoch == 2  # the epoch never starts again
    with pytest.raises(AwsConflict):
        store.renew("x", mine, deadline)
    with pytest.raises(AwsConflict):
        store.let_go("x", mine, deadline)
    assert store.read("x", deadline) == theirs


def test_a_renewal_whose_answer_was_lost_is_still_ours(lab: Any, store: LeaseStore) -> None:
    mine = store.take("x", "a", None, 9.0, Deadline(10))
    store.renew("x", mine, Deadline(10))  # arrived; pretend that the answer did not
    assert store.renew("x", mine, Deadline(10)).epoch == mine.epoch


def test_of_many_takers_one_wins(lab: Any, store: LeaseStore) -> None:
    for seen in (None, Record("dead", 5, 9, 1.0)):
        name = "new" if seen is None else "expired"
        if seen is not None:
            store._write(name, seen, "attribute_not_exists(#name)", {}, Deadline(10))
        won: list[str] = []

        def race(node: str, name: str = name, seen: Record | None = seen, won: list[str] = won) -> None:
            try:
                store.take(name, node, seen, 9.0, Deadline(20))
                won.append(node)
            except AwsConflict:
                pass

        threads = [threading.Thread(target=race, args=(f"n{number}",)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        record = store.read(name, Deadline(10))
        assert record is not None and won == [record.owner]
        assert record.epoch == (1 if seen is None else 10)


def test_a_missing_table_says_so(lab: Any, store: LeaseStore) -> None:
    with pytest.raises(AwsNotFound, match="no-such-table"):
        LeaseStore(store._clients, "no-such-table").read("x", Deadline(10))


class Nodes:
    """Members of a pool with short times, ticked by hand."""

    def __init__(self, lab: Any, store: LeaseStore) -> None:
        self.lab, self.store = lab, store
        self.healthy = dict.fromkeys(("lb1", "lb2", "lb3"), True)
        self.said: list[str] = []
        self.addresses = [lab.ip("web"), lab.ip("third")]
        self.members = {name: self.member(name) for name in self.healthy}

    def member(self, name: str) -> Member:
        agents = {
            address: Agent(address, env=self.lab.env(name), access=Access(endpoint_url=self.lab.api))
            for address in self.addresses
        }
        return Member(name, agents, self.store, 3.0, lambda: self.healthy[name], self.said.append)

    def tick(self, *names: str) -> None:
        for name in names or self.members:
            self.members[name].tick()
        self.lab.settle()

    def holders(self) -> list[str | None]:
        return [self.lab.holder("web"), self.lab.holder("third")]


@pytest.fixture
def nodes(lab: Any, store: LeaseStore) -> Nodes:
    return Nodes(lab, store)


def test_a_pool_of_three_serves_two_addresses_and_a_spare_takes_any(lab: Any, nodes: Nodes) -> None:
    nodes.tick()
    first = nodes.holders()
    assert None not in first and len(set(first)) == 2
    (spare,) = set(nodes.members) - set(first)
    nodes.tick()
    assert nodes.holders() == first  # nothing moves without a reason
    dead = first[0]
    alive = [name for name in nodes.members if name != dead]
    nodes.tick(*alive)  # the spare has seen the record now
    assert nodes.holders() == first
    for _ in range(12):
        clock.sleep(0.5)
        nodes.tick(*alive)
        if nodes.holders()[0] == spare:
            break
    assert nodes.holders() == [spare, first[1]], nodes.said
    # The dead one comes back as a new process: everything is taken, it is the spare now and moves nothing.
    nodes.members[dead] = nodes.member(dead)
    nodes.tick()
    assert nodes.holders() == [spare, first[1]]


def test_an_unhealthy_holder_is_replaced_at_once_and_without_a_gap(lab: Any, nodes: Nodes) -> None:
    nodes.tick()
    first = nodes.holders()
    (spare,) = set(nodes.members) - set(first)
    sick = str(first[0])
    nodes.healthy[sick] = False
    nodes.tick(sick)
    assert lab.holder("web") == sick  # nobody is without it while nobody has taken it
    nodes.tick(spare)
    assert lab.holder("web") == spare
    nodes.tick()
    assert nodes.holders() == [spare, first[1]]


def test_what_is_on_a_node_already_stays_there_when_the_pool_begins(lab: Any, nodes: Nodes) -> None:
    lab.give("lb3", "web")
    nodes.tick("lb1")
    assert lab.holder("web") == "lb3"
    nodes.tick("lb3")
    assert lab.holder("web") == "lb3" and nodes.members["lb3"].held is not None
    assert nodes.members["lb3"].held.address == lab.ip("web")


@pytest.mark.parametrize("mode", ["reset", "error"])
def test_a_silent_store_takes_nothing_from_anybody(lab: Any, nodes: Nodes, mode: str) -> None:
    nodes.tick("lb1", "lb2")
    first = nodes.holders()
    for action in ("GetItem", "UpdateItem"):
        lab.fault(mode, action=action)
    for _ in range(3):
        clock.sleep(1.2)
        nodes.tick()
    assert nodes.holders() == first
    assert all(nodes.members[str(name)].held for name in first)
    assert nodes.members["lb3"].held is None
    assert any("keeps what it has" in text for text in nodes.said)


def test_a_holder_that_lost_its_lease_takes_nothing_back(lab: Any, nodes: Nodes) -> None:
    nodes.tick("lb1", "lb2")
    first = nodes.holders()
    slept = str(first[0])  # as after a suspended virtual machine
    for _ in range(12):
        clock.sleep(0.5)
        nodes.tick(str(first[1]), "lb3")
        if lab.holder("web") == "lb3":
            break
    assert lab.holder("web") == "lb3"
    nodes.tick(slept)
    assert nodes.members[slept].held is None
    assert lab.holder("web") == "lb3"


def test_the_daemon_holds_an_address_and_leaves_it_to_a_spare(lab: Any, tmp_path: Path) -> None:
    def haptk(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([HAPTK, "lease", *words], env=lab.env("lb1"), capture_output=True, text=True, timeout=60)

    assert haptk("init").returncode == 0
    assert "nothing to do" in haptk("init").stdout
    command = [HAPTK, "lease", "pool", lab.ip(), "--ttl", "3"]
    members = {
        node: subprocess.Popen([*command, "--node", node], env=lab.env(node), stderr=(tmp_path / node).open("w"))
        for node in ("lb1", "lb2")
    }
    try:
        until(lab, lambda: lab.holder() in members)
        first = lab.holder()
        second = "lb2" if first == "lb1" else "lb1"
        shown = json.loads(haptk("show", lab.ip(), "--json").stdout)["leases"][0]
        assert shown["owner"] == first
        members[first].send_signal(signal.SIGTERM)
        assert members[first].wait(20) == 0
        until(lab, lambda: lab.holder() == second)
        assert json.loads(haptk("show", lab.ip(), "--json").stdout)["leases"][0]["epoch"] > shown["epoch"]
        members[second].kill()
    finally:
        for process in members.values():
            process.kill()
            process.wait()


def until(lab: Any, true: Any) -> None:
    for _ in range(300):
        if true():
            return
        clock.sleep(0.1)
    raise AssertionError(f"it did not happen; {lab.holder()} holds the address")

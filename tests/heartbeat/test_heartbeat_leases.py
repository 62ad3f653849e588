"""The thread that keeps leases: reports once for each claim, one unanswered request a round, and no store yet."""

from __future__ import annotations

import threading

from haptk.aws.deadline import Deadline
from haptk.core.heartbeat.model import Claim, Grant, GroupConfig
from haptk.core.lease import Record
from haptk.errors import AwsConflict, AwsUnreachable, OperatorError
from haptk.heartbeat.leases import LeaseThread, item_name
from haptk.heartbeat.settings import LeaseSpec
from tests.heartbeat.test_heartbeat_daemon import wait_for

SPEC = LeaseSpec("haptk-leases", "pair1", 1.0)
GROUPS = (GroupConfig("a", ("web::1", "disk::x")), GroupConfig("b", ("eip::203.0.113.10::eni-0a",), exclusive=True))


class Memory:
    """A store in memory that can fall silent; `asked` counts what reached it or would have."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.silent = False
        self.asked: list[str] = []
        self.deadlines: list[float] = []

    def _note(self, verb: str, name: str, deadline: Deadline) -> None:
        self.asked.append(f"{verb} {name}")
        self.deadlines.append(deadline.left())
        if self.silent:
            raise AwsUnreachable(action=verb, target=name, endpoint="memory", why="silent")

    def read(self, name: str, deadline: Deadline) -> Record | None:
        self._note("read", name, deadline)
        return self.records.get(name)

    def take(self, name: str, me: str, seen: Record | None, ttl_s: float, deadline: Deadline) -> Record:
        self._note("take", name, deadline)
        if self.records.get(name) != seen:
            raise AwsConflict(action="take", target=name, why="somebody was faster")
        self.records[name] = Record(me, 1 + (seen.rvn if seen else 0), 1 + (seen.epoch if seen else 0), ttl_s)
        return self.records[name]

    def renew(self, name: str, mine: Record, deadline: Deadline) -> Record:
        self._note("renew", name, deadline)
        return self._change(name, mine, mine._replace(rvn=mine.rvn + 1))

    def let_go(self, name: str, mine: Record, deadline: Deadline) -> Record:
        self._note("let_go", name, deadline)
        return self._change(name, mine, mine._replace(owner="", rvn=mine.rvn + 1))

    def _change(self, name: str, mine: Record, after: Record) -> Record:
        now = self.records.get(name)
        if now is None or (now.owner, now.epoch) != (mine.owner, mine.epoch):
            raise AwsConflict(action="change", target=name, why="it is another's")
        self.records[name] = after
        return after


class Bench:
    def __init__(self, failing: int = 0, *, silent: bool = False) -> None:
        self.store = Memory()
        self.store.silent = silent
        self.reports: list[tuple[int, Grant, str]] = []
        self.warnings: list[str] = []
        self._failing = failing
        self.thread = LeaseThread("a", SPEC, GROUPS, self._report, self.warnings.append, self._make)
        self.thread.start()

    def _make(self, spec: LeaseSpec) -> Memory:
        self._failing -= 1
        if self._failing >= 0:
            raise OperatorError(what="there is no region")
        return self.store

    def _report(self, ticket: int, grant: Grant, why: str) -> None:
        self.reports.append((ticket, grant, why))

    def last(self, ticket: int) -> Grant | None:
        return next((grant for number, grant, _ in reversed(self.reports) if number == ticket), None)


def test_the_name_is_the_same_on_both_nodes() -> None:
    names = [item_name(SPEC, group) for group in GROUPS]
    assert names == ["pair1/web::1", "pair1/eip::203.0.113.10"]  # without the interface, which is each node's own


def test_a_claim_is_answered_and_a_lease_let_go() -> None:
    bench = Bench()
    bench.thread.claim(Claim(1, 0, True, True))
    wait_for(lambda: bench.last(1) is Grant.OURS, "no lease")
    assert bench.store.records["pair1/web::1"].owner == "a"
    bench.thread.claim(Claim(2, 0, False, False))
    wait_for(lambda: bench.store.records["pair1/web::1"].owner == "", "not let go")
    bench.thread.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "leases"]


def test_what_is_wanted_at_the_end_is_not_let_go() -> None:
    """A daemon that leaves at once leaves its resources up."""
    bench = Bench()
    bench.thread.claim(Claim(1, 0, True, True))
    wait_for(lambda: bench.last(1) is Grant.OURS, "no lease")
    bench.thread.close()
    assert bench.store.records["pair1/web::1"].owner == "a"


def test_a_lease_of_another_is_reported_and_a_silent_store_is_said_once() -> None:
    bench = Bench()
    bench.store.records["pair1/web::1"] = Record("b", 5, 5, 600.0)
    bench.thread.claim(Claim(1, 0, True, False))
    wait_for(lambda: bench.last(1) is Grant.OTHERS, "not told")
    bench.store.silent = True
    wait_for(lambda: bench.last(1) is Grant.UNKNOWN, "silence is not told")
    wait_for(lambda: bench.warnings, "no warning")
    bench.store.asked.clear()
    wait_for(lambda: len(bench.store.asked) >= 6, "it does not try again")
    bench.store.silent = False
    wait_for(lambda: bench.last(1) is Grant.OTHERS, "not told again")
    bench.thread.close()
    assert len([text for text in bench.warnings if "does not answer" in text]) == 1
    assert bench.warnings[-1] == "the lease store answers again"
    assert max(bench.store.deadlines) <= 1.0


def test_one_unanswered_request_stands_for_all_groups_of_a_round() -> None:
    """With ten groups and a store that hangs, a round is one second and not ten."""
    bench = Bench(silent=True)
    wait_for(lambda: len(bench.store.asked) >= 3, "it does not try again")
    bench.thread.close()
    assert set(bench.store.asked) == {"read pair1/web::1"}


def test_without_a_region_it_goes_on_trying() -> None:
    bench = Bench(failing=2)
    bench.thread.claim(Claim(1, 0, True, True))
    wait_for(lambda: bench.last(1) is Grant.OURS, "it has given up")
    bench.thread.close()
    assert "there is no region" in bench.warnings[0]

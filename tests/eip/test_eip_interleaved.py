"""Any interleaving of two nodes' starts and stops, with a crash or a lost answer at any call: what must hold at the end.

The agents are the real ones; EC2 is a small model of the rules that matter (one association at a time, an id that dies
with it, reassociation in one step), which lets exactly one call through at a time, in an order that hypothesis draws.
"""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haptk.core.vip import NotOurs, Ours
from haptk.eip.agent import Agent
from haptk.errors import AwsNotFound, AwsUnreachable

IP, ALLOCATION = "203.0.113.10", "eipalloc-00000001"
NODES = ("eni-0000000a", "eni-0000000b")


class Crash(BaseException):
    """The process of a node died here."""


class Ec2Model:
    """One address; calls are let through one at a time."""

    def __init__(self) -> None:
        self.holder: str | None = None
        self.association: str | None = None
        self.made = 0
        self.history: list[tuple[str, str, str | None]] = []
        self.stolen: list[str] = []

    def do(self, node: str, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        if operation == "DescribeAddresses":
            if "Filters" in parameters:
                held = parameters["Filters"][0]["Values"] == [self.holder]
                return {"Addresses": [self.shown()] if held else []}
            return {"Addresses": [self.shown()]}
        if operation == "DescribeNetworkInterfaces":
            ips = [{"PrivateIpAddress": f"10.0.0.{NODES.index(node) + 1}", "Primary": True}]
            return {"NetworkInterfaces": [{"NetworkInterfaceId": node, "PrivateIpAddresses": ips}]}
        if operation == "AssociateAddress":
            assert parameters["AllowReassociation"] is True and "InstanceId" not in parameters
            self.made += 1
            self.holder, self.association = parameters["NetworkInterfaceId"], f"eipassoc-{self.made:08x}"
            self.history.append((node, "take", self.holder))
            return {"AssociationId": self.association}
        assert operation == "DisassociateAddress"
        if parameters["AssociationId"] != self.association:
            raise AwsNotFound(action=operation, target=parameters["AssociationId"], why="gone")
        if self.holder != node:
            self.stolen.append(f"{node} released the address of {self.holder}")
        self.holder = self.association = None
        self.history.append((node, "release", None))
        return {}

    def shown(self) -> dict[str, Any]:
        found: dict[str, Any] = {"PublicIp": IP, "AllocationId": ALLOCATION}
        if self.holder:
            index = NODES.index(self.holder)
            found |= {
                "NetworkInterfaceId": self.holder,
                "AssociationId": self.association,
                "InstanceId": f"i-{index}",
                "PrivateIpAddress": f"10.0.0.{index + 1}",
            }
        return found


class Turnstile:
    """Lets one call of one node through at a time, in the drawn order, with the drawn fate."""

    def __init__(self, model: Ec2Model, order: list[tuple[int, str]]) -> None:
        self.model = model
        self.order = list(order)
        self.condition = threading.Condition()
        self.waiting: dict[str, bool] = {}
        self.alive = set(NODES)

    def pick(self) -> tuple[str, str] | None:
        """The node whose call goes next and its fate; None while a living node has not arrived yet."""
        if set(self.waiting) != self.alive:
            return None
        ready = sorted(self.waiting)
        if not ready:
            return None
        index, fate = self.order[0] if self.order else (0, "ok")
        return ready[index % len(ready)], fate

    def call(self, node: str, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        with self.condition:
            self.waiting[node] = True
            self.condition.notify_all()
            while (chosen := self.pick()) is None or chosen[0] != node:
                assert self.condition.wait(20), "the turnstile is stuck"
            if self.order:
                self.order.pop(0)
            del self.waiting[node]
            try:
                return self.fate(chosen[1], node, operation, parameters)
            finally:
                self.condition.notify_all()

    def fate(self, fate: str, node: str, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        lost = AwsUnreachable(action=operation, target=node, endpoint="the model", why=fate)
        if fate == "crash before":
            raise Crash
        if fate == "unreachable":
            raise lost
        answer = self.model.do(node, operation, parameters)
        if fate == "crash after":
            raise Crash
        if fate == "answer lost":
            raise lost
        return answer

    def leave(self, node: str) -> None:
        with self.condition:
            self.alive.discard(node)
            self.condition.notify_all()


class ModelClients:
    """Stands where botocore's clients do."""

    def __init__(self, node: str, turnstile: Turnstile | None, model: Ec2Model) -> None:
        self.node, self.turnstile, self.model = node, turnstile, model

    def call(self, service: str, operation: str, target: str, left_s: float, **parameters: Any) -> dict[str, Any]:
        if self.turnstile is None:
            return self.model.do(self.node, operation, parameters)
        return self.turnstile.call(self.node, operation, parameters)

    def credentials_ready(self) -> None:
        """The model signs nothing."""


def agent(node: str, scratch: Path, model: Ec2Model, turnstile: Turnstile | None) -> Agent:
    env = {"AWS_EC2_METADATA_DISABLED": "true", "HAPTK_RUN_DIR": str(scratch / node)}
    return Agent(IP, node, clients=ModelClients(node, turnstile, model), env=env)  # type: ignore[arg-type]


def live(node: str, wishes: list[str], scratch: Path, model: Ec2Model, turnstile: Turnstile) -> None:
    """A cluster manager: carries out its wishes in order; a crashed or failed one is tried again by a new process."""
    try:
        for wish in wishes:
            for _attempt in range(30):
                process = agent(node, scratch, model, turnstile)
                try:
                    if getattr(process, wish)(deadline_s=60).ok:
                        break
                except Crash:
                    continue
            else:
                raise AssertionError(f"{wish} never ended")
    finally:
        turnstile.leave(node)


FATES = st.sampled_from(["ok"] * 5 + ["crash before", "crash after", "unreachable", "answer lost"])
WISHES = st.lists(st.sampled_from(["start", "stop"]), min_size=1, max_size=3)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    first=WISHES,
    second=WISHES,
    order=st.lists(st.tuples(st.integers(0, 1), FATES), max_size=14),
    owner=st.integers(-1, 1),
)
def test_two_nodes_end_with_one_owner_that_wants_it(
    first: list[str], second: list[str], order: list[tuple[int, str]], owner: int
) -> None:
    model = Ec2Model()
    if owner >= 0:
        model.do(NODES[owner], "AssociateAddress", {"NetworkInterfaceId": NODES[owner], "AllowReassociation": True})
    turnstile = Turnstile(model, order)
    wishes = dict(zip(NODES, (first, second), strict=True))
    with tempfile.TemporaryDirectory() as scratch:
        threads = [
            threading.Thread(target=live, args=(node, wishes[node], Path(scratch), model, turnstile)) for node in NODES
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        assert not model.stolen
        wants = [node for node in NODES if wishes[node][-1] == "start"]
        assert model.holder is None or model.holder in wants
        # What a cluster manager does next: whoever wants it and sees that nobody has it, takes it.
        for node in wants:
            state = agent(node, Path(scratch), model, None).status()
            assert isinstance(state, Ours) == (model.holder == node)
            if isinstance(state, NotOurs) and state.holder is None:
                assert agent(node, Path(scratch), model, None).start().ok
        assert (model.holder in wants) if wants else model.holder is None


@settings(max_examples=60, deadline=None)
@given(crash_at=st.integers(0, 5), fate=st.sampled_from(["crash before", "crash after", "answer lost", "unreachable"]))
def test_every_sequence_can_be_broken_off_anywhere_and_ends_the_same(crash_at: int, fate: str) -> None:
    for wish, expected in (("start", NODES[0]), ("stop", None)):
        model = Ec2Model()
        holder = NODES[1] if wish == "start" else NODES[0]
        model.do(holder, "AssociateAddress", {"NetworkInterfaceId": holder, "AllowReassociation": True})
        turnstile = Turnstile(model, [(0, "ok")] * crash_at + [(0, fate)])
        turnstile.alive = {NODES[0]}
        with tempfile.TemporaryDirectory() as scratch:
            live(NODES[0], [wish], Path(scratch), model, turnstile)
        assert model.holder == expected and not model.stolen
        # One call moved it; no release came before a take.
        if wish == "start":
            assert all(what == "take" for _node, what, _holder in model.history)

"""Fencing by StopInstances: opt-in, slow (tens of seconds), and never both ways at once.

Stopping the other node is the only proof that it does nothing any more, and the most dangerous thing this package can
do: two nodes that cannot hear each other may both want it. So the right to fence is a lease on the pair
(core/lease.py), which one of them wins; it is kept until EC2 shows the other one stopped, because a node that is only
stopping can still send calls. Preconditions, each checked before anything is sent: the target is not this node, both are
named as instances, EC2 knows them, both run, and the lease was won. A store that is silent means no fencing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from haptk.aws.deadline import Deadline
from haptk.aws.ec2 import Ec2
from haptk.aws.lease import LeaseStore
from haptk.core.lease import Move, Record, Silent, Watch, decide_take
from haptk.errors import AwsConflict, AwsNotFound, HaptkError, OperatorError
from haptk.io import clock

LEASE_TTL_S = 30.0
LOOK_S = 1.0
DOWN = ("stopped", "terminated", "shutting-down")


class Fenced(NamedTuple):
    """How fencing ended: `ok` only when EC2 shows the other node stopped."""

    ok: bool
    because: str


def pair_name(one: str, other: str) -> str:
    """The name of the right to fence between two instances, the same from both sides."""
    return "fence:" + ":".join(sorted((one, other)))


class Fence:
    """Stops `peer` on behalf of `me`, both instance ids."""

    def __init__(self, me: str, peer: str, ec2: Ec2, store: LeaseStore, say: Callable[[str], None]) -> None:
        if me == peer:
            raise OperatorError(what=f"{me} is this node itself: a node does not fence itself")
        if not (me.startswith("i-") and peer.startswith("i-")):
            raise OperatorError(what=f"{me!r} and {peer!r}: fencing is between two instance ids (i-...)")
        self._me, self._peer = me, peer
        self._ec2, self._store, self._say = ec2, store, say
        self._name = pair_name(me, peer)

    def run(self, deadline_s: float, *, force: bool = False, dry_run: bool = False) -> Fenced:
        """Stop the peer and wait until it is stopped. `force` skips its operating system's shutdown."""
        deadline = Deadline(deadline_s)
        try:
            state = self._state(self._peer, deadline)
            if state in DOWN:
                return Fenced(True, f"{self._peer} is {state} already")
            if dry_run:
                return Fenced(False, f"would stop {self._peer}, which is {state}, after winning {self._name}")
            mine = self._win(deadline)
        except HaptkError as error:
            return Fenced(False, f"not fenced: {error}")
        if mine is None:
            return Fenced(False, f"not fenced: {self._peer} has the right to fence this node; nothing was sent")
        return self._stop(mine, deadline, force)

    def _state(self, instance: str, deadline: Deadline) -> str:
        found = self._ec2.instances(deadline, instance=instance)
        if not found:
            raise AwsNotFound(action="ec2:DescribeInstances", target=instance, why="no such instance")
        return found[0].state

    def _win(self, deadline: Deadline) -> Record | None:
        """The lease on the pair, or None while the other one keeps it until the deadline."""
        watch = Watch()
        while True:
            record = self._store.read(self._name, deadline)
            watch.saw(record, clock.monotonic())
            seen: Record | Silent | None = record
            decision = decide_take(self._me, seen, watch, LEASE_TTL_S, clock.monotonic(), held_by_other=False)
            if decision.move is Move.TAKE:
                self._say(f"taking the right to fence: {decision.because}")
                try:
                    return self._store.take(self._name, self._me, record, LEASE_TTL_S, deadline)
                except AwsConflict:
                    self._say("the other node was faster")
            if deadline.left() < LOOK_S + 1.0:
                return None
            clock.sleep(LOOK_S)

    def _stop(self, mine: Record, deadline: Deadline, force: bool) -> Fenced:
        try:
            # The wait for the right may have been long: somebody may have fenced this node in it.
            own = self._state(self._me, deadline)
            if own != "running":
                self._store.let_go(self._name, mine, deadline)
                return Fenced(False, f"not fenced: EC2 calls this node {own}; nothing was sent")
            state = self._ec2.stop_instance(self._peer, deadline, force=force)
            self._say(f"{self._peer} is {state}")
            while state not in DOWN and deadline.left() > LOOK_S:
                clock.sleep(LOOK_S)
                mine = self._store.renew(self._name, mine, deadline)
                state = self._state(self._peer, deadline)
        except HaptkError as error:
            # The right is kept: it expires by itself, and until then the other node cannot fence back.
            return Fenced(False, f"not proven: {error}")
        if state not in DOWN:
            return Fenced(False, f"{self._peer} is {state} still; the right to fence is kept until it expires")
        try:
            self._store.let_go(self._name, mine, deadline)
        except HaptkError as error:
            self._say(f"the right to fence expires by itself: {error}")
        return Fenced(True, f"{self._peer} is {state}")

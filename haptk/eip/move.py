"""Moving an address to another node by hand: a plan that a person sees, and only that plan is carried out.

The plan says who holds the address and who shall. Between the showing and the doing the world may change: the holder is
asked again, and when it is not the one that was shown nothing is done.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from haptk.aws.client import Clients
from haptk.aws.deadline import Deadline
from haptk.aws.ec2 import Ec2, Instance
from haptk.core.vip import NotOurs, Ours, Outcome, Status, Unknown
from haptk.eip.agent import Agent
from haptk.errors import AwsConflict, AwsNotFound, OperatorError


@dataclass(frozen=True)
class Move:
    """One planned move; `state` is the target's view of the address when the plan was made."""

    agent: Agent
    node: str
    interface: str
    state: Status

    @property
    def needed(self) -> bool:
        """False when the address is there already."""
        return not isinstance(self.state, Ours)

    def __str__(self) -> str:
        if not self.needed:
            return f"{self.agent.label}: is on {self.node} ({self.interface}) already"
        holder = self.state.holder if isinstance(self.state, NotOurs) else None
        return f"{self.agent.label}: from {holder or 'nobody'} to {self.node} ({self.interface})"


def interface_of(node: str, ec2: Ec2, deadline: Deadline) -> str:
    """The interface that a node's name means: eni-..., i-... (its primary one) or the Name tag of one instance.

    Raises OperatorError when no running instance is behind it: an address there would serve nobody.
    """
    if node.startswith("eni-"):
        found = ec2.interfaces(deadline, interface=node)
        if not found:
            raise AwsNotFound(action="ec2:DescribeNetworkInterfaces", target=node, why="no such interface")
        if found[0].instance is None:
            raise OperatorError(what=f"{node} is attached to no instance: the address would serve nobody there")
        for one in ec2.instances(deadline, instance=found[0].instance):
            _check_running(one, node)
        return node
    by_id = node.startswith("i-")
    instances = ec2.instances(deadline, instance=node) if by_id else ec2.instances(deadline, name=node)
    if not instances:
        raise AwsNotFound(action="ec2:DescribeInstances", target=node, why="no instance has this Name tag")
    if len(instances) > 1:
        names = ", ".join(one.instance for one in instances)
        raise OperatorError(what=f"{len(instances)} instances are named {node} ({names}): give the id of one")
    if not instances[0].interfaces:
        raise OperatorError(
            what=f"{node} ({instances[0].instance}) has no network interface; it is {instances[0].state}"
        )
    _check_running(instances[0], node)
    return instances[0].interfaces[0]


def _check_running(found: Instance, node: str) -> None:
    if found.state not in ("running", "pending"):
        raise OperatorError(what=f"{node} ({found.instance}) is {found.state}: the address would serve nobody there")


def plan(address: str, node: str, private_ip: str | None, clients: Clients, deadline_s: float) -> Move:
    """What a move would do. Raises AwsError when EC2 cannot be asked: nothing is planned in the dark."""
    deadline = Deadline(deadline_s)
    interface = interface_of(node, Ec2(clients), deadline)
    # The metadata service of this machine knows nothing of another node: only EC2 is asked.
    env = {**os.environ, "AWS_EC2_METADATA_DISABLED": "true"}
    agent = Agent(address, interface, private_ip, clients=clients, env=env)
    state = agent.status(deadline.left())
    if isinstance(state, Unknown):
        raise OperatorError(what=f"no plan for {address}: {state.why}")
    return Move(agent, node, interface, state)


def carry_out(move: Move, deadline_s: float) -> Outcome:
    """Do exactly what was planned; raises AwsConflict when the holder is not the one that was shown."""
    deadline = Deadline(deadline_s)
    now = move.agent.status(deadline.left())
    if now != move.state and not isinstance(now, Ours):
        raise AwsConflict(
            action="move", target=move.agent.label, why=f"it changed since the plan was shown: now {now}; look again"
        )
    return move.agent.start(deadline.left())

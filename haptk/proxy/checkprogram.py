"""What the compiled check engine plays for a plan: the table of its steps, shared by all servers that are checked alike."""

from __future__ import annotations

import functools
from dataclasses import replace

from haptk._fast.checks.plan import Steps
from haptk.proxy.compile_checks import IMPLICIT, http_steps, request
from haptk.proxy.tables import AgentPlan, CheckPlan, HttpSend, TcpStep


def steps_of(plan: CheckPlan) -> tuple[TcpStep, ...]:
    """The steps of a plan, those that follow from its kind included."""
    if plan.steps:
        return plan.steps if any(step.action == "connect" for step in plan.steps) else (IMPLICIT, *plan.steps)
    if plan.kind == "http":
        return http_steps(plan.send or HttpSend(), plan.expects)
    return (IMPLICIT,)


@functools.lru_cache(maxsize=4096)
def program(kind: str, steps: tuple[TcpStep, ...]) -> Steps:
    """The table of these steps."""
    filled = [replace(step, data=request(step.send)) if step.send is not None else step for step in steps]
    return Steps(kind, filled)


def check_program(plan: CheckPlan) -> Steps:
    """The table of a server's check."""
    return program(plan.kind, steps_of(plan))


@functools.lru_cache(maxsize=4096)
def agent_program(send: bytes) -> Steps:
    """The table of an agent's check: a connection, perhaps a greeting, one line."""
    greeting = (TcpStep("send", data=send, number=1),) if send else ()
    return Steps("agent", [IMPLICIT, *greeting, TcpStep("agent", number=len(greeting) + 1)])


def agent_steps(plan: AgentPlan) -> Steps:
    """The table of `plan`."""
    return agent_program(plan.send)

"""A hard end for work that may block where no time-out reaches (name resolution): the answer comes, the work is left."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from haptk.core.vip import Outcome, Status, Unknown
from haptk.eip.agent import Agent

T = TypeVar("T")
GRACE_S = 0.25


def within(seconds: float, work: Callable[[], T], otherwise: Callable[[], T]) -> T:
    """The result of `work`, or of `otherwise` when it takes longer; what `work` raises is raised here."""
    done: list[T] = []
    raised: list[BaseException] = []

    def body() -> None:
        try:
            done.append(work())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=body, daemon=True, name="haptk-eip")
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    return done[0] if done else otherwise()


def _late(agent: Agent, seconds: float) -> Unknown:
    why = f"no answer within {seconds:g} s (is name resolution hanging?)"
    return Unknown(why, agent.last(), "PeerTimeout")


def status(agent: Agent, seconds: float) -> Status:
    """`agent.status`, and Unknown when even that does not come back in time."""

    def late() -> Status:
        return _late(agent, seconds)

    return within(seconds + GRACE_S, lambda: agent.status(seconds), late)


def start(agent: Agent, seconds: float) -> Outcome:
    """`agent.start`, and a failure when it does not come back in time."""
    return within(seconds + GRACE_S, lambda: agent.start(seconds), lambda: _failed(agent, seconds))


def stop(agent: Agent, seconds: float) -> Outcome:
    """`agent.stop`, and a failure when it does not come back in time."""
    return within(seconds + GRACE_S, lambda: agent.stop(seconds), lambda: _failed(agent, seconds))


def _failed(agent: Agent, seconds: float) -> Outcome:
    state = _late(agent, seconds)
    return Outcome(False, state, True, state.why, trouble=state.trouble)

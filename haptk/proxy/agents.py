"""Asks the agents of `agent-check`: one thread that keeps the time, a few that wait for answers.

What is due and what an answer means is core/agent.py's; what it does to a server is the health runner's. An agent may
be slow: it is asked again only after its answer or time-out, and holds up no other one's turn but by taking one of the
threads for at most its interval.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from haptk.core import agent
from haptk.io import clock
from haptk.io.exchange import Exchange, Failed, why_of
from haptk.proxy.tables import AgentPlan

AT_ONCE = 32
MAX_ANSWER = 16384
log = logging.getLogger("haptk.proxy")


@dataclass(eq=False)
class Asked:
    """One server's agent: its plan (which an administrator may change) and its state."""

    gid: int
    plan: AgentPlan
    state: agent.AgentCheck


Hear = Callable[[int, agent.Said], None]


class AgentRunner:
    """Calls `hear(gid, said)` with each answer, from one of its threads. `start`, then `stop`."""

    def __init__(self, agents: Sequence[Asked], hear: Hear) -> None:
        self.agents = agents
        self.hear = hear
        self._changed = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to ask, where there is an agent; the first questions are spread over the shortest interval."""
        if not self.agents:
            return
        now = clock.monotonic()
        shortest = min(one.plan.inter_s for one in self.agents)
        for index, one in enumerate(self.agents):
            one.state.started_at = now + shortest * index / len(self.agents)
        self._thread = threading.Thread(target=self._run, name="agents", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask no more; answers that are on their way are ignored."""
        self._stopping = True
        self._changed.set()
        if self._thread is not None:
            self._thread.join(timeout=2.0)

    def wake(self) -> None:
        """Look anew at what is due."""
        self._changed.set()

    def _run(self) -> None:
        with ThreadPoolExecutor(min(AT_ONCE, len(self.agents)), "agent") as pool:
            while not self._stopping:
                now = clock.monotonic()
                due = [(at, one) for one in self.agents if (at := one.state.due_at()) is not None]
                for at, one in due:
                    if at <= now:
                        one.state.begin(now)
                        pool.submit(self._ask, one)
                later = [at for at, _ in due if at > now]
                self._changed.wait(min(later) - now if later else 1.0)
                self._changed.clear()
            pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, one: Asked) -> None:
        try:
            line = ask(one.plan)
            if not self._stopping:
                said = agent.parse(line)
                self.hear(one.gid, said)
                one.state.heard(said, clock.monotonic())
        except Failed as failed:
            one.state.failed(failed.code, failed.reason, clock.monotonic())
        except Exception as error:  # an agent must not end the asking
            log.exception("asking the agent at %s:%d went wrong", one.plan.host, one.plan.port)
            one.state.failed("SOCKERR", str(error), clock.monotonic())
        self._changed.set()


def ask(plan: AgentPlan) -> str:
    """The first line of an agent's answer; raises Failed when there is none."""
    exchange = Exchange(plan.host, plan.port, plan.timeout_s, plan.connect_timeout_s)
    try:
        exchange.connect()
        if plan.send:
            exchange.send(plan.send)
        data = b""
        while not any(end in data for end in (b"\n", b"\r", b"\0")):
            part = exchange.receive()
            if not part:
                break
            data += part
            if len(data) > MAX_ANSWER:
                raise Failed("L7RSP", f"the agent at {exchange.where} sent {len(data)} bytes without a line end")
    except OSError as error:
        raise Failed("SOCKERR", f"this machine could not ask {plan.host}: {why_of(error)}") from error
    finally:
        exchange.close()
    if not data:
        raise Failed("L7RSP", f"the agent at {exchange.where} closed without an answer")
    for end in (b"\n", b"\r", b"\0"):
        data = data.partition(end)[0]
    return data.decode("latin-1")

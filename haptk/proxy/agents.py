"""The agent of a server (`agent-check`): how it is asked, and what it said last.

The engine of the checks asks it (proxy/health.py); what its words mean is core/agent.py's, what they do to a server the
health runner's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from haptk.core import agent
from haptk.proxy.tables import AgentPlan

if TYPE_CHECKING:
    from haptk._fast.checks.engine import CheckEngine
    from haptk.proxy.health import Checked


@dataclass(eq=False)
class Asked:
    """One server's agent: its plan (which an administrator may change) and its state."""

    gid: int
    plan: AgentPlan
    state: agent.AgentCheck
    engine: CheckEngine | None = None
    check: int = -1  # its index in the engine

    @property
    def asking(self) -> bool:
        """True while it is being asked."""
        return self.engine is not None and self.check >= 0 and self.engine.busy(self.check)

    def look(self) -> None:
        """Take over what the engine has found."""
        if self.engine is not None and self.check >= 0:
            code, _, duration_ms, text = self.engine.found(self.check)
            self.state.code, self.state.text, self.state.duration_ms = code, text.decode("latin-1"), duration_ms


def inherit_agent(one: Checked, old: Checked) -> None:
    """Over a reload: what the agent said last holds until it speaks again; without an agent nobody objects."""
    if one.agent is None:
        one.health.agent_down = False
        return
    one.health.agent_down = old.health.agent_down
    if old.agent is not None:
        one.agent.state.code, one.agent.state.text = old.agent.state.code, old.agent.state.text
        one.agent.state.enabled = old.agent.state.enabled

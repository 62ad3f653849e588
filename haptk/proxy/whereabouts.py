"""Where one server is, where its health check goes and where its agent listens: the one record that all of them read.

The file says where a server begins. Name servers, the runtime API and a server-state file change the record while it
runs; traffic, checks, the agent, `show servers state` and the next configuration are told from here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from haptk.proxy.tables import AgentPlan, CheckPlan, Server


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """`host` is "" while a name does not resolve. A mapped port is the client's destination port plus `port`.

    The address and the port of checks and of the agent are "" and 0 where they are the server's own.
    """

    host: str
    port: int
    mapped: bool = False
    hostname: str = ""
    check_host: str = ""
    check_port: int = 0
    agent_host: str = ""
    agent_port: int = 0

    def check(self, plan: CheckPlan, server: Server) -> CheckPlan:
        """`plan` with the address and port that hold now."""
        host = self.check_host or server.unix_path or self.host
        port = self.check_port or (0 if self.mapped or server.unix_path else self.port)
        return plan if (plan.host, plan.port) == (host, port) else replace(plan, host=host, port=port)

    def agent(self, plan: AgentPlan) -> AgentPlan:
        """The same for the agent."""
        host, port = self.agent_host or self.host, self.agent_port
        return plan if (plan.host, plan.port) == (host, port) else replace(plan, host=host, port=port)


def of(server: Server) -> Whereabouts:
    """Where the file says that a server is."""
    mapped = not server.port and not server.unix_path
    return Whereabouts(
        server.host, server.port_offset if mapped else server.port, mapped, server.hostname, server.check_host,
        server.check_port, server.agent_host, server.agent.port if server.agent is not None else server.check_port,
    )  # fmt: skip


def inherited(server: Server, old: Server, was: Whereabouts) -> Whereabouts:
    """Where a server is after a reload: what the file says where that is new, else where it was."""
    began, now = of(old), of(server)
    if (began.hostname or began.host, began.port, began.mapped) == (now.hostname or now.host, now.port, now.mapped):
        # what its name means now is known better than the system's resolver knows it once at the reload
        now = replace(now, host=was.host or now.host, port=was.port, mapped=was.mapped, hostname=was.hostname)
    if (began.check_host, began.check_port) == (now.check_host, now.check_port):
        now = replace(now, check_host=was.check_host, check_port=was.check_port)
    if (began.agent_host, began.agent_port) == (now.agent_host, now.agent_port):
        now = replace(now, agent_host=was.agent_host, agent_port=was.agent_port)
    return now

"""The whole answer to a cluster manager's question: agents for its addresses, the action, and the words of its contract.

`quick.py` comes here for everything that is not a plain "ours". Returns exit codes and prints; never raises, because no
cluster manager reads a traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from haptk.aws.client import Access, Clients
from haptk.core.vip import NotOurs, Ours, Outcome, Status, Unknown
from haptk.eip import watch
from haptk.eip.agent import CHANGE_DEADLINE_S, STATUS_DEADLINE_S, Agent
from haptk.eip.contracts import words
from haptk.eip.contracts.request import ACTIONS, Request
from haptk.eip.contracts.words import Saying
from haptk.errors import HaptkError, OperatorError
from haptk.io import clock, leave

USAGE = {
    "ocf": "usage: eip {start|stop|monitor|validate-all|meta-data|usage} with OCF_RESKEY_address in the environment",
    "heartbeat": "usage: haptk-eip ADDRESS... [eni-...] [NAME=VALUE...] {start|stop|status}",
    "lsb": "usage: haptk-eip {start|stop|restart|force-reload|status} with HAPTK_EIP=ADDRESS in /etc/haptk/eip.env",
    "keepalived": "usage: haptk-eip-keepalived {check|notify|fifo} ADDRESS... [eni-...] [NAME=VALUE...] [what keepalived adds]",
}
# What each contract calls a question that it cannot understand, and an action that it does not know.
BAD_PARAMETER = {"ocf": words.OCF_CONFIGURED, "heartbeat": 1, "lsb": 6, "keepalived": 1}
UNKNOWN_ACTION = {"ocf": words.OCF_UNIMPLEMENTED, "heartbeat": 1, "lsb": 2, "keepalived": 2}


def access_of(options: Mapping[str, str]) -> Access:
    """How AWS is reached, by the options of a request."""
    return Access(
        region=options.get("region"),
        profile=options.get("profile"),
        role_arn=options.get("role-arn"),
        endpoint_url=options.get("endpoint-url"),
    )


def agents_of(request: Request) -> list[Agent]:
    """One agent for each address, over shared clients. Raises OperatorError for what means nothing."""
    if not request.addresses:
        raise OperatorError(what="no address is given")
    clients = Clients(access_of(request.options))
    interface, private_ip = request.options.get("interface"), request.options.get("private-ip")
    return [
        Agent(address, interface, private_ip, clients=clients, ask_metadata=not request.silent)
        for address in dict.fromkeys(request.addresses)
    ]


def run(request: Request) -> int:
    """Do what was asked; returns the exit code of the contract."""
    contract = request.contract
    if request.action not in ACTIONS[contract]:
        print(USAGE[contract], file=sys.stderr)
        return UNKNOWN_ACTION[contract]
    try:
        agents = agents_of(request)
    except HaptkError as error:
        return _tell(_unusable(request, error))
    try:
        if request.action in ("notify", "fifo"):
            from haptk.eip.contracts import keepalived

            return keepalived.run(request, agents)
        if request.action == "check" and "keep" in request.options:
            from haptk.eip.contracts import keepalived

            return keepalived.keep(request, agents, left_s(request))
        return _tell(*_act(request, agents))
    except HaptkError as error:
        return _tell(_with_reason(contract, 1, str(error)))
    except Exception as error:
        return _tell(_with_reason(contract, 1, f"internal error: {type(error).__name__}: {error}"))


def _unusable(request: Request, error: HaptkError) -> Saying:
    # A stop of something that cannot exist has nothing to stop; failing it would fence a healthy node for a typing error.
    code = 0 if request.action == "stop" else BAD_PARAMETER[request.contract]
    return _with_reason(request.contract, code, str(error))


def _with_reason(contract: str, code: int, text: str) -> Saying:
    prefix = os.environ.get("OCF_EXIT_REASON_PREFIX", "ocf-exit-reason:") if contract == words.OCF else ""
    return Saying(code, "", prefix + " ".join(text.split()))


def _act(request: Request, agents: list[Agent]) -> list[Saying]:
    action = request.action
    if action == "validate-all":
        return [_validate(agents)]
    if action in ("status", "monitor", "check"):
        found = _each(agents, lambda agent: watch.status(agent, left_s(request)))
        return [_status(request, agent, state) for agent, state in zip(agents, found, strict=True)]
    if action == "force-reload":
        action = "restart"
    sayings: list[Saying] = []
    # A restart of an address is a start: letting it go in between would only make an outage.
    change = watch.stop if action == "stop" else watch.start
    outcomes = _each(agents, lambda agent: change(agent, change_deadline_s(request.contract)))
    for agent, outcome in zip(agents, outcomes, strict=True):
        _log(request, agent, action, outcome)
        sayings.append(words.say_outcome(request.contract, agent.label, action, outcome))
    return sayings


def _each(agents: list[Agent], work):  # type: ignore[no-untyped-def]
    if len(agents) == 1:
        return [work(agents[0])]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=min(16, len(agents))) as pool:
        return list(pool.map(work, agents))


def _status(request: Request, agent: Agent, state: Status) -> Saying:
    unknown = request.options.get("unknown", "0")
    return words.say_status(
        request.contract, agent.label, state, unknown_code=int(unknown) if unknown in ("0", "1") else None
    )


def _validate(agents: list[Agent]) -> Saying:
    """Parameters are already understood; here: does this host have the interface that was named?"""
    for agent in agents:
        why = agent.misplaced()
        if why:
            return _with_reason(words.OCF, words.OCF_ARGS, why)
    return Saying(0)


def _cluster_timeout_s() -> float | None:
    """The time-out that Pacemaker gives this action, in seconds."""
    text = os.environ.get("OCF_RESKEY_CRM_meta_timeout", "")  # noqa: SIM112 (Pacemaker spells it so)
    return int(text) / 1000 if text.isdigit() and int(text) > 0 else None


def _inside(limit_s: float, default_s: float) -> float:
    # The process itself takes part of the time: an answer that comes a moment too late is a failure without a reason.
    return max(0.5, min(default_s, limit_s - max(0.5, limit_s * 0.1)))


def status_deadline_s(contract: str) -> float:
    """Seconds in which a status must be known: short, because "unknown" in time is worth more than an answer too late."""
    limit_s = _cluster_timeout_s() if contract == words.OCF else None
    return STATUS_DEADLINE_S if limit_s is None else _inside(limit_s, STATUS_DEADLINE_S)


def left_s(request: Request) -> float:
    """What is left of the status deadline since the question was asked, in seconds."""
    return max(0.5, status_deadline_s(request.contract) - (clock.monotonic() - request.began))


def change_deadline_s(contract: str) -> float:
    """Seconds in which a start or stop must have ended."""
    limit_s = _cluster_timeout_s() if contract == words.OCF else None
    return CHANGE_DEADLINE_S if limit_s is None else _inside(limit_s, CHANGE_DEADLINE_S)


def _log(request: Request, agent: Agent, action: str, outcome: Outcome) -> None:
    """One line to syslog for a change, in the facility that the cluster uses; a node without syslog loses nothing."""
    import syslog

    name = os.environ.get("HA_LOGFACILITY", "daemon").upper()
    if name == "NONE":
        return
    syslog.openlog("haptk-eip", syslog.LOG_PID, getattr(syslog, f"LOG_{name}", syslog.LOG_DAEMON))
    level = syslog.LOG_INFO if outcome.ok else syslog.LOG_ERR
    syslog.syslog(level, f"{request.contract} {action} {agent.label}: {outcome.because}")


def _tell(*sayings: Saying) -> int:
    """Print and combine: one failure among several addresses is a failure of the whole resource."""
    for saying in sayings:
        if saying.stderr:
            print(saying.stderr, file=sys.stderr)
    said = [saying.stdout for saying in sayings]
    if set(said) <= {"running", "stopped", ""}:
        # Heartbeat: "running" only when every address is; one word, whatever their number.
        word = "running" if set(said) == {"running"} else "stopped" if "stopped" in said else ""
        said = [word]
    try:
        for text in said:
            if text:
                print(text)
        sys.stdout.flush()
    except OSError as error:
        # The code is what a cluster manager goes by: a log on a full disk must not turn a start into a failure.
        leave.abandon(sys.stdout)
        leave.told(leave.unprinted(error))
    return combined([saying.code for saying in sayings])


def combined(codes: list[int]) -> int:
    """The exit code of several addresses as one resource: hard errors first, then "stopped", then "degraded", then 0."""
    for code in (6, 5, 4, 2, 3, 1, 7):
        if code in codes:
            return code
    return max(codes)


def summary(states: list[Status]) -> Status:
    """Several addresses as one: ours only when all are, not ours when one certainly is not, else unknown."""
    for kind in (NotOurs, Unknown, Ours):
        for state in states:
            if isinstance(state, kind):
                return state
    raise OperatorError(what="no address is given")

"""`load-server-state-from-file`: servers begin as the lines of `show servers state` say they were (version 1).

What the file says counts as far as the configuration still agrees: a weight only where the configured one is the
same, `disabled` never against the file. Lines that fit nothing are passed over, as HAProxy does, and said in the log.
"""

from __future__ import annotations

import ipaddress
import logging
from dataclasses import dataclass, replace
from pathlib import Path

from haptk.core.health import State
from haptk.io import clock
from haptk.proxy.health import Checked, HealthRunner
from haptk.proxy.tables import ProxyTables
from haptk.proxy.whereabouts import Whereabouts

VERSION = "1"
FEWEST_FIELDS, FIELDS = 20, 25
STOPPED, STARTING, RUNNING, STOPPING = 0, 1, 2, 3
FORCED_MAINT, CONFIGURED_MAINT, FORCED_DRAIN, RENAMED = 1, 4, 8, 64
CHECK_CONFIGURED, CHECK_ENABLED = 2, 4
MAX_BYTES = 64 << 20
HIGHEST_PORT = 65535
BY = "the server-state file says so"
log = logging.getLogger("haptk.proxy")


@dataclass(frozen=True)
class Was:
    """One line: what a server was."""

    address: str
    operational: int
    admin: int
    weight: int
    configured_weight: int
    since_s: int
    health: int
    check_state: int
    agent_state: int
    hostname: str
    port: int
    check_port: int
    check_address: str
    agent_address: str
    agent_port: int


def _was(words: list[str]) -> Was:
    """One line's fields; raises ValueError."""
    if not FEWEST_FIELDS <= len(words) <= FIELDS:
        raise ValueError(f"{len(words)} fields instead of {FIELDS}")
    words = words + ["0", "0", "-", "-", "0"][len(words) - FEWEST_FIELDS :]
    return Was(
        address=words[4],
        operational=int(words[5]),
        admin=int(words[6]),
        weight=int(words[7]),
        configured_weight=int(words[8]),
        since_s=int(words[9]),
        health=int(words[12]),
        check_state=int(words[13]),
        agent_state=int(words[14]),
        hostname="" if words[17] == "-" else words[17],
        port=int(words[18]),
        check_port=int(words[21]),
        check_address=words[22],
        agent_address=words[23],
        agent_port=int(words[24]),
    )


def parse(text: str, name: str = "") -> dict[tuple[str, str], Was]:
    """(backend, server) -> what it was; {} for a file of another version."""
    lines = text.splitlines()
    if not lines or lines[0].strip() != VERSION:
        log.warning("%s: not a server-state file of version 1; servers begin as configured", name)
        return {}
    found: dict[tuple[str, str], Was] = {}
    for number, line in enumerate(lines[1:], 2):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            found.setdefault((words[1] if len(words) > 1 else "", words[3] if len(words) > 3 else ""), _was(words))
        except ValueError as error:
            log.warning("%s:%d: passed over: %s", name, number, error)
    return found


def load(tables: ProxyTables, runner: HealthRunner) -> int:
    """Give the servers of backends that ask for it their former states; returns how many. Call before `runner.start`."""
    count = 0
    read: dict[str, dict[tuple[str, str], Was]] = {}
    servers = iter(runner.servers)
    for backend in tables.backends:
        path = tables.process.server_state_file if backend.load_state == "global" else backend.state_file
        path = path if backend.load_state in ("global", "local") else ""
        if path and path not in read:
            read[path] = _read(path)
        for _ in backend.servers:
            one = next(servers)
            was = read.get(path, {}).get((backend.name, one.server.name))
            if was is not None:
                apply(runner, one, was)
                count += 1
    return count


def _read(path: str) -> dict[tuple[str, str], Was]:
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            return parse(file.read(MAX_BYTES), path)
    except OSError as error:
        log.warning("%s: %s; servers begin as configured", path, error.strerror)
        return {}


def apply(runner: HealthRunner, one: Checked, was: Was) -> None:
    """One server is what it was."""
    now = clock.monotonic()
    _apply_admin(one, was, now)
    _apply_health(one, was, now)
    if was.configured_weight == one.server.weight and 0 <= was.weight <= 256:
        one.weight = was.weight
    one.since = now - max(0, was.since_s)
    if one.plan is not None and was.check_state & CHECK_CONFIGURED and not was.check_state & CHECK_ENABLED:
        one.paused = True
    if one.agent is not None and was.agent_state & CHECK_CONFIGURED and not was.agent_state & CHECK_ENABLED:
        one.agent.state.enabled = False
    runner.relocate(one.gid, _whereabouts(one, was))


def _apply_admin(one: Checked, was: Was, now: float) -> None:
    """Maintenance and drain: a change of the file counts, otherwise what an administrator had said."""
    health = one.health
    configured = one.server.disabled
    if bool(was.admin & CONFIGURED_MAINT) == configured:
        if was.admin & FORCED_MAINT and health.wish != "maint":
            health.admin("maint", now, BY)
        elif not was.admin & FORCED_MAINT and configured:
            health.admin("ready", now, BY)
    if was.admin & FORCED_DRAIN and health.wish == "ready" and (was.configured_weight > 0 or not one.server.weight):
        health.admin("drain", now, BY)


def _apply_health(one: Checked, was: Was, now: float) -> None:
    health = one.health
    if one.plan is None or health.state is State.MAINT:
        return
    rules = health.rules
    if was.operational in (STOPPED, STARTING):
        health.force("down", now, BY)
        # one that was coming up goes on where it was; one that was down begins anew
        health.health = max(1, min(was.health, rules.rise - 1)) if was.operational == STARTING and rules.rise > 1 else 0
    elif was.operational in (RUNNING, STOPPING):
        health.force("stopping" if was.operational == STOPPING else "up", now, BY)
        if was.operational == STOPPING:
            health.health = max(rules.rise, min(was.health, rules.full))


def _whereabouts(one: Checked, was: Was) -> Whereabouts:
    """A port counts always, an address only for a server with a name (`init-addr last`), as in HAProxy."""
    at = one.at
    if at.hostname and was.admin & RENAMED and was.hostname not in ("", at.hostname):
        at = replace(at, hostname=was.hostname)
    if at.hostname and "last" in (one.server.init_addr or ("last",)) and _literal(was.address):
        at = replace(at, host=was.address)
    if not one.server.unix_path and 0 <= was.port <= HIGHEST_PORT:
        at = replace(at, port=was.port)
    if one.plan is not None and not one.paused:
        if _literal(was.check_address):
            at = replace(at, check_host=was.check_address)
        if 0 < was.check_port <= HIGHEST_PORT:
            at = replace(at, check_port=was.check_port)
    if one.agent is not None and one.agent.state.enabled:
        if _literal(was.agent_address):
            at = replace(at, agent_host=was.agent_address)
        if 0 < was.agent_port <= HIGHEST_PORT:
            at = replace(at, agent_port=was.agent_port)
    return at


def _literal(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True

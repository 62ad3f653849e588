"""`load-server-state-from-file`: servers begin as the lines of `show servers state` say they were (version 1).

What the file says counts as far as the configuration still agrees: a weight only where the configured one is the
same, `disabled` never against the file. Lines that fit nothing are passed over, as HAProxy does, and said in the log.
"""

from __future__ import annotations

import ipaddress
import logging
from dataclasses import dataclass
from pathlib import Path

from haptk.core.health import State
from haptk.io import clock
from haptk.proxy.health import Checked, HealthRunner
from haptk.proxy.tables import ProxyTables

VERSION = "1"
FIELDS = 25
STOPPED, RUNNING, STOPPING = 0, 2, 3
FORCED_MAINT, FORCED_DRAIN = 1, 8
MAX_BYTES = 64 << 20
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
    port: int


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
            if len(words) < FIELDS:
                raise ValueError(f"{len(words)} fields instead of {FIELDS}")
            values = [int(words[at]) for at in (5, 6, 7, 8, 9, 12, 18)]
        except ValueError as error:
            log.warning("%s:%d: passed over: %s", name, number, error)
            continue
        found[words[1], words[3]] = Was(words[4], *values)
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
    health = one.health
    if was.admin & FORCED_MAINT and health.wish != "maint":
        health.admin("maint", now, "the server-state file says so")
    elif was.admin & FORCED_DRAIN and health.wish == "ready":
        health.admin("drain", now, "the server-state file says so")
    if one.plan is not None and health.state is not State.MAINT:
        rules = health.rules
        if was.operational == STOPPED:
            health.force("down", now, "the server-state file says so")
            health.health = max(0, min(was.health, rules.rise - 1))
        elif was.operational in (RUNNING, STOPPING):
            health.force("stopping" if was.operational == STOPPING else "up", now, "the server-state file says so")
            health.health = max(rules.rise, min(was.health, rules.full))
    if was.configured_weight == one.server.weight and 0 <= was.weight <= 256:
        one.weight = was.weight
    one.since = now - max(0, was.since_s)
    if one.server.hostname and "last" in (one.server.init_addr or ("last",)) and _literal(was.address):
        runner.move(one.gid, was.address)


def _literal(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True

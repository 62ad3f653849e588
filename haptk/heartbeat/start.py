"""From the flags of `haptk heartbeat` to a running daemon."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
from pathlib import Path
from typing import Any

from haptk.core.health import CheckRules
from haptk.core.heartbeat.model import Failback, Timing
from haptk.errors import CannotWrite, NotRunning, OperatorError, PeerTimeout
from haptk.heartbeat import check
from haptk.heartbeat.scripts import RESOURCE_DIRS
from haptk.heartbeat.settings import (
    KEY_FILE,
    STATE_DIR,
    GroupSpec,
    LeaseSpec,
    Settings,
    check_timing,
    control_path,
    default_node,
    read_keys,
)
from haptk.io import clock, logs
from haptk.io.udp import LinkSpec

STOP_WAIT_S = 600.0
_LEASE = re.compile(r"([A-Za-z0-9_.-]{3,255})/([A-Za-z0-9_.:-]{1,200})")
MLOCK_FLAGS = 7
"""MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT (mlockall(2)): what was used once stays in memory, untouched stacks stay out."""


def daemon(options: dict[str, Any], *, verbosity: int) -> int:
    """Run the daemon that `options` describe; returns its exit code."""
    if options["die_with_parent"]:
        from haptk.io.process import die_with_parent

        die_with_parent()
    as_json = options["log_format"] == "json"
    logs.setup("haptk-heartbeat", verbose=verbosity, as_json=as_json, syslog=options["syslog"])
    found = build(options)
    _log_as_told(found, options, verbosity)
    if found.realtime:
        _realtime(found.rt_priority)
    from haptk.heartbeat.daemon import Daemon

    daemon = Daemon(found, reload=lambda: build(options))
    _give_back_memory()
    return daemon.run()


def check_config(options: dict[str, Any]) -> dict[str, Any]:
    """Everything that a start reads is read, resource scripts are looked for, nothing is started or written."""
    from haptk.heartbeat import agents
    from haptk.heartbeat.scripts import base_env

    found = build(options)
    env = base_env(found.node, found.script_env)
    for group in found.groups:
        for text in group.resources:
            agents.make(text, file=group.file, line=group.line, resource_dirs=found.resource_dirs, env=env)
    groups = [{"owner": group.owner, "resources": list(group.resources)} for group in found.groups]
    return {"result": "would start", "node": found.node, "peer": found.peer, "groups": groups}


def _log_as_told(found: Settings, options: dict[str, Any], verbosity: int) -> None:
    """What ha.cf says about logs holds unless the flags say otherwise."""
    import logging
    import logging.handlers

    level = max(verbosity, 1) if found.debug else verbosity
    syslog = options["syslog"] or found.syslog
    as_json = options["log_format"] == "json"
    logger = logs.setup("haptk-heartbeat", verbose=level, as_json=as_json, syslog=syslog)
    if found.log_file is not None and not options["syslog"]:
        try:
            handler = logging.handlers.WatchedFileHandler(found.log_file)
        except OSError as error:
            raise CannotWrite(path=found.log_file, why=error.strerror) from error
        formatter = logger.handlers[0].formatter
        handler.setFormatter(formatter)
        logger.handlers[:] = [handler] if found.syslog is None else [*logger.handlers, handler]


def build(options: dict[str, Any]) -> Settings:
    """The settings that the options describe; called again for a reload."""
    if options["ha_dir"] is not None:
        from haptk.heartbeat.ha_dir import from_directory

        return from_directory(options)
    return from_flags(options)


def timing_of(options: dict[str, Any]) -> Timing:
    """The times of the flags, with heartbeat's relations between them checked."""
    deadtime: float = options["deadtime"]
    timing = Timing(
        keepalive_s=options["keepalive"],
        deadtime_s=deadtime,
        warntime_s=options["warntime"] if options["warntime"] is not None else deadtime / 2,
        initdead_s=options["initdead"] if options["initdead"] is not None else max(120.0, deadtime),
        deadping_s=deadtime,
        monitor_s=options["monitor"],
        retry_s=min(30.0, max(1.0, deadtime)),
    )
    check_timing(timing)
    return timing


def check_of(options: dict[str, Any]) -> check.CheckSpec | None:
    """The local check of the flags."""
    if not options["check"]:
        return None
    inter = options["check_inter"]
    try:
        rules = CheckRules(rise=options["check_rise"], fall=options["check_fall"], inter_s=inter)
    except ValueError as error:
        raise OperatorError(what=f"--check-rise, --check-fall, --check-inter: {error}") from error
    return check.parse(options["check"], rules, options["check_timeout"] or min(inter, 2.0))


def lease_of(options: dict[str, Any], deadtime_s: float) -> LeaseSpec | None:
    """The leases of the flags. By default a lease ends well before a dead peer is declared dead."""
    if not options["lease"]:
        return None
    found = _LEASE.fullmatch(options["lease"])
    if found is None:
        why = "TABLE/NAME is accepted: a table made by `haptk lease init`, and a name for this pair"
        raise OperatorError(what=f"--lease {options['lease']!r}: {why}")
    ttl_s: float = options["lease_ttl"] or max(1.0, 0.6 * deadtime_s)
    if ttl_s < 1.0:
        raise OperatorError(what=f"--lease-ttl {ttl_s:g} s: 1 s or more is accepted")
    return LeaseSpec(found[1], found[2], ttl_s)


def from_flags(options: dict[str, Any]) -> Settings:
    """Settings from flags alone."""
    address = options["peer"]
    if not address:
        raise OperatorError(what="who is the other node? --peer ADDR, or -f /etc/ha.d for heartbeat's own files")
    _check_address("--peer", address)
    if options["bind"]:
        _check_address("--bind", options["bind"])
    key_file = options["key_file"] or KEY_FILE
    keys = read_keys(key_file)
    refuse_crc(keys.uses_crc, options["allow_crc"], key_file)
    node = (options["node"] or default_node()).lower()
    peer = options["peer_name"].lower() if options["peer_name"] else None
    if peer == node:
        raise OperatorError(what=f"both nodes are called {node}: name them with --node and --peer-name")
    preferred = options["preferred"].lower() if options["preferred"] else None
    if preferred and peer and preferred not in (node, peer):
        raise OperatorError(what=f"--preferred {preferred} is neither {node} nor {peer}")
    groups = [GroupSpec(preferred, tuple(options["resources"]))] if options["resources"] else []
    link = LinkSpec(options["bind"] or address, "ucast", address, options["udpport"], bind=options["bind"])
    return Settings(
        node=node,
        peer=peer,
        peer_address=address,
        links=[link],
        keys=keys,
        key_file=key_file,
        timing=timing_of(options),
        failback=Failback(options["auto_failback"]),
        groups=groups,
        ping_nodes=tuple(options["pings"]),
        check=check_of(options),
        lease=lease_of(options, options["deadtime"]),
        monitor_rise=options["monitor_rise"],
        monitor_fall=options["monitor_fall"],
        state_dir=options["state_dir"] or STATE_DIR,
        control=control_path(options["control"]),
        allow_crc=options["allow_crc"],
        clock_window_s=options["clock_window"],
        realtime=options["realtime"],
        on_stop_failure=escalation_of(options["on_stop_failure"]),
        resource_dirs=tuple(options["resource_dir"]) or RESOURCE_DIRS,
    )


def escalation_of(word: str) -> tuple[str, ...]:
    """The command to run when a resource cannot be stopped; () blocks, which is what the core does by itself."""
    if word == "block":
        return ()
    if word == "reboot":
        return ("/sbin/reboot", "-f")
    if not (word.startswith("/") and os.access(word, os.X_OK)):
        raise OperatorError(what=f"--on-stop-failure {word!r}: block, reboot or the full path of a program is accepted")
    return (word,)


def refuse_crc(uses_crc: bool, allowed: bool, file: Path) -> None:
    """crc authenticates nobody: anyone who can send a datagram could take the resources."""
    if uses_crc and not allowed:
        why = "method crc protects nothing: anybody who can reach the port could take your resources"
        raise OperatorError(what=f"{file}: {why}; use sha1 (haptk heartbeat keygen), or say --allow-crc")


def _check_address(flag: str, text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError as error:
        raise OperatorError(what=f"{flag} {text!r} is not an IP address (names are not looked up)") from error


def _realtime(priority: int) -> None:
    """Priority over everything that is not realtime, and no page faults; what is not allowed is only reported."""
    import logging

    log = logging.getLogger("haptk.heartbeat")
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    except OSError as error:
        log.warning("no realtime priority: %s", error.strerror)
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        if ctypes.CDLL(None, use_errno=True).mlockall(MLOCK_FLAGS) != 0:
            log.warning("memory could not be locked: %s", os.strerror(ctypes.get_errno()))


def _give_back_memory() -> None:
    """Return what only the start needed to the system: about a megabyte (malloc_trim(3), glibc only)."""
    import ctypes
    import gc

    gc.collect()
    gc.freeze()  # what is loaded stays; a full collection would only delay a heartbeat
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def wait_until_gone(control: Path) -> None:
    """Wait until the daemon behind `control` does not answer any more."""
    from haptk.io.control import call

    deadline = clock.monotonic() + STOP_WAIT_S
    while clock.monotonic() < deadline:
        try:
            call(control, {"op": "status"}, what="haptk heartbeat")
        except NotRunning:
            return
        except Exception:  # noqa: S110 (it is on its way out: a cut connection is no news)
            pass
        clock.sleep(0.05)
    raise PeerTimeout(peer="haptk heartbeat", timeout_s=STOP_WAIT_S, why="it is still stopping")

"""Drop-in: the settings from a directory like /etc/ha.d, as the original reads it."""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from typing import Any

from haptk.core.heartbeat.model import Failback, Timing
from haptk.errors import ConfigError, MissingFile, OperatorError
from haptk.formats import ha_cf, haresources
from haptk.heartbeat import start
from haptk.heartbeat.scripts import RESOURCE_DIRS
from haptk.heartbeat.settings import (
    HEARTBEAT_STATE,
    STATE_DIR,
    GroupSpec,
    Settings,
    check_timing,
    control_path,
    default_node,
    read_keys,
)
from haptk.io.udp import LinkSpec, broadcast_address

log = logging.getLogger("haptk.heartbeat")

FROM_FILES = {
    "peer", "peer_name", "udpport", "keepalive", "deadtime", "initdead", "warntime", "auto_failback", "resources",
    "preferred", "pings", "bind",
}  # fmt: skip
"""Flags whose place ha.cf and haresources take."""


def from_directory(options: dict[str, Any]) -> Settings:
    """Read ha.cf, haresources and authkeys in `ha_dir`; the other flags come on top."""
    directory: Path = options["ha_dir"]
    given = sorted(FROM_FILES & set(options["explicit"]))
    if given:
        flags = ", ".join("--" + name.replace("_", "-") for name in given)
        raise OperatorError(what=f"{flags} cannot be given with -f: {directory}/ha.cf and haresources say it")
    found = ha_cf.parse(_read(directory / "ha.cf"), str(directory / "ha.cf"))
    for note in found.notes:
        log.info("%s", note)
    node = _own_name(options["node"], directory, found)
    peer = next((name for name in found.nodes if name != node), None)
    if peer is None:
        raise ConfigError(file=found.file, line=1, why=f"{node} is the only node; a second node line is needed")
    file = directory / "haresources"
    lines = haresources.parse(_read(file), str(file), found.nodes)
    key_file = options["key_file"] or directory / "authkeys"
    keys = read_keys(key_file)
    start.refuse_crc(keys.uses_crc, options["allow_crc"], key_file)
    links = _links(found)
    dirs = tuple(options["resource_dir"]) or (directory / "resource.d", *RESOURCE_DIRS)
    return Settings(
        node=node,
        peer=peer,
        peer_address=next((link.target for link in links if link.kind == "ucast"), ""),
        links=links,
        keys=keys,
        key_file=key_file,
        timing=_timing(found, options["monitor"]),
        failback=Failback(found.auto_failback),
        groups=[GroupSpec(line.node, line.resources, str(file), line.line) for line in lines],
        ping_nodes=tuple(found.pings),
        check=start.check_of(options),
        lease=start.lease_of(options, found.deadtime_s),
        monitor_rise=options["monitor_rise"],
        monitor_fall=options["monitor_fall"],
        state_dir=options["state_dir"] or STATE_DIR,
        control=control_path(options["control"]),
        resource_dirs=tuple(dict.fromkeys(dirs)),
        script_env={"auto_failback": found.auto_failback, "keepalive": f"{found.keepalive_s:g}"},
        allow_crc=options["allow_crc"],
        clock_window_s=options["clock_window"],
        realtime=found.realtime or options["realtime"],
        on_stop_failure=start.escalation_of(options["on_stop_failure"]),
        rt_priority=found.rtprio,
        hopfudge=found.hopfudge,
        inherit=HEARTBEAT_STATE,
        log_file=Path(found.logfile) if found.logfile else None,
        syslog=found.logfacility,
        debug=found.debug > 0,
    )


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError as error:
        raise MissingFile(path=path, why="heartbeat's configuration is read from this directory (-f)") from error
    except (OSError, UnicodeDecodeError) as error:
        raise MissingFile(path=path, why=str(error)) from error


def _own_name(given: str | None, directory: Path, found: ha_cf.HaCf) -> str:
    """Our name: --node, the first line of nodeinfo, or uname -n; it has to be in ha.cf."""
    name = (given or "").lower()
    info = directory / "nodeinfo"
    if not name and info.exists():
        name = info.read_text().split("\n", 1)[0].strip().lower()
    name = name or default_node()
    if name not in found.nodes:
        why = f"this node is called {name}, and only {', '.join(found.nodes)} are named: correct one of them, or --node"
        raise ConfigError(file=found.file, line=1, why=why)
    return name


def _timing(found: ha_cf.HaCf, monitor_s: float) -> Timing:
    deadtime = found.deadtime_s
    timing = Timing(
        keepalive_s=found.keepalive_s,
        deadtime_s=deadtime,
        warntime_s=found.warntime,
        initdead_s=found.initdead,
        deadping_s=found.deadping_s or deadtime,
        monitor_s=monitor_s,
        retry_s=min(30.0, max(1.0, deadtime)),
    )
    try:
        check_timing(timing)
    except OperatorError as error:
        raise ConfigError(file=found.file, line=1, why=str(error)) from error
    return timing


def _links(found: ha_cf.HaCf) -> list[LinkSpec]:
    """The links of the media lines; a ucast to one of our own addresses is the other node's line and left out."""
    links: list[LinkSpec] = []
    for media in found.media:
        if media.kind == "ucast" and _is_ours(media.target):
            continue
        target = broadcast_address(media.device) if media.kind == "bcast" else media.target
        port = media.port or found.udpport
        name = media.device if all(link.name != media.device for link in links) else f"{media.device}#{media.line}"
        links.append(
            LinkSpec(name, media.kind, target, port, device=media.device, ttl=media.ttl, loopback=media.loopback)
        )
    if not links:
        raise ConfigError(file=found.file, line=1, why="every ucast line names this node itself")
    return links


def _is_ours(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True

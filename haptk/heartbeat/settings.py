"""What a heartbeat daemon is told, from flags or from /etc/ha.d, in one shape; and the checks that both share."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from haptk.core.heartbeat.model import Failback, Timing
from haptk.errors import MissingFile, NotPermitted, OperatorError
from haptk.formats import authkeys
from haptk.heartbeat.check import CheckSpec
from haptk.heartbeat.scripts import RESOURCE_DIRS
from haptk.io.udp import LinkSpec

KEY_FILE = Path("/etc/haptk/authkeys")
STATE_DIR = Path("/var/lib/haptk/heartbeat")
HEARTBEAT_STATE = Path("/var/lib/heartbeat")
CONTROL = Path("/run/haptk/heartbeat.sock")
UDP_PORT = 694
OP_LIMIT_S = 60.0


@dataclass(frozen=True)
class GroupSpec:
    """A line of haresources, or all `--resource` flags: owner (None: the smaller node name) and its resources."""

    owner: str | None
    resources: tuple[str, ...]
    file: str = "--resource"
    line: int = 0


@dataclass(frozen=True)
class LeaseSpec:
    """`--lease TABLE/NAME`: a lease in DynamoDB for each group, and the seconds without renewal after which it ends."""

    table: str
    name: str
    ttl_s: float


@dataclass
class Settings:
    """Everything that a daemon runs with; a reload makes a new one."""

    node: str
    peer: str | None
    peer_address: str
    links: list[LinkSpec]
    keys: authkeys.AuthKeys
    key_file: Path
    timing: Timing = field(default_factory=Timing)
    failback: Failback = Failback.OFF
    groups: list[GroupSpec] = field(default_factory=list)
    ping_nodes: tuple[str, ...] = ()
    check: CheckSpec | None = None
    lease: LeaseSpec | None = None
    monitor_rise: int = 2
    monitor_fall: int = 3
    state_dir: Path = STATE_DIR
    control: Path = CONTROL
    resource_dirs: tuple[Path, ...] = RESOURCE_DIRS
    script_env: Mapping[str, str] = field(default_factory=dict)
    allow_crc: bool = False
    op_limit_s: float = OP_LIMIT_S
    clock_window_s: float = 600.0
    on_stop_failure: tuple[str, ...] = ()
    """The program to run when a resource cannot be stopped, so that the peer may take it; () keeps it here."""

    realtime: bool = False
    rt_priority: int = 1
    hopfudge: int = 1
    inherit: Path | None = None
    """The state directory of the heartbeat that ran here before."""

    log_file: Path | None = None
    syslog: str | None = None
    debug: bool = False


def read_keys(path: Path) -> authkeys.AuthKeys:
    """The keys of a file that nobody else may read; the errors say how to make one."""
    how = f"make one and copy it to the other node: haptk heartbeat keygen {path}"
    try:
        mode = path.stat().st_mode
        text = path.read_text()
    except FileNotFoundError as error:
        raise MissingFile(path=path, why=f"there is no key file, and without one anybody could speak; {how}") from error
    except OSError as error:
        raise NotPermitted(what=f"read {path}", why=error.strerror or str(error)) from error
    if mode & 0o077:
        raise NotPermitted(what=f"use {path}", why=f"others can read the keys in it: chmod 600 {path}")
    return authkeys.parse(text, str(path))


def check_timing(timing: Timing) -> None:
    """Refuse times with which nodes would be declared dead for nothing. The rules of heartbeat."""
    if timing.keepalive_s <= 0:
        raise OperatorError(what="keepalive has to be more than 0")
    if timing.deadtime_s <= 2 * timing.keepalive_s:
        why = f"a dead time of {timing.deadtime_s:g} s is too small for a keepalive of {timing.keepalive_s:g} s"
        raise OperatorError(what=f"{why}: more than twice the keepalive is accepted")
    if timing.warntime_s > timing.deadtime_s:
        raise OperatorError(what=f"warntime {timing.warntime_s:g} s is above deadtime {timing.deadtime_s:g} s")
    if timing.initdead_s < timing.deadtime_s:
        raise OperatorError(what=f"initdead {timing.initdead_s:g} s is below deadtime {timing.deadtime_s:g} s")


def default_node() -> str:
    """`uname -n` in lower case, as heartbeat names a node."""
    return os.uname().nodename.lower()


def control_path(given: Path | None) -> Path:
    """Where the control socket is: what was given, else /run/haptk, else the user's runtime directory."""
    if given is not None:
        return given
    if os.geteuid() == 0 or "XDG_RUNTIME_DIR" not in os.environ:
        return CONTROL
    return Path(os.environ["XDG_RUNTIME_DIR"]) / "haptk" / "heartbeat.sock"

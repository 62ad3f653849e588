"""`keepalived`: its processes by pid file, and on request the state of its VRRP instances.

keepalived has no socket to ask. On SIGUSR1 it writes all it knows into /tmp/keepalived.data (keepalived(8), "SIGNALS"),
which is safe to send every second and takes some milliseconds; it needs root. That file is only believed when it belongs
to root or to us, is no link, is newer than the signal, and reads the same twice (it is not written at one stroke).
"""

from __future__ import annotations

import os
import re
import signal
import stat
from collections.abc import Mapping, Sequence

from haptk.checks.base import Check, Finding, Limits, conclude
from haptk.checks.process import COMM_LENGTH, Seen, read_pid, read_process
from haptk.io import clock
from haptk.report.nagios import Perf, State

FIGURES = ("processes", "masters")
PID_FILE = "/run/keepalived.pid"
DATA_FILE = "/tmp/keepalived.data"  # noqa: S108 (where keepalived writes it; read with suspicion, see above)
STATES = ("any", "MASTER", "BACKUP")
_POLL_S = 0.01
_INSTANCE = re.compile(r"^ VRRP Instance = (\S+)\n(?:   .*\n)*?   State = (\S+)", re.MULTILINE)


def keepalived(
    pid_file: str,
    timeout_s: float,
    limits: Limits,
    *,
    want: str | None = None,
    instances: Sequence[str] = (),
    data_file: str = DATA_FILE,
    proc: str = "/proc",
) -> Check:
    """A check of the daemon; with `want` (MASTER, BACKUP, any) also of `instances` (all without a name)."""

    def look(timeout_s: float) -> Finding:
        deadline = clock.monotonic() + timeout_s
        parent = read_pid(pid_file)
        if isinstance(parent, str):
            state = State.UNKNOWN if parent.startswith("cannot read") else State.CRITICAL
            return Finding(state, f"keepalived: {parent}")
        state, text, perf = of_processes(parent, limits, pid_file, proc)
        if state is not State.OK or (want is None and not instances):
            return conclude(state, text, [perf])
        found = ask_states(parent, data_file, deadline)
        if isinstance(found, Finding):
            return found
        return of_states(found, text, perf, limits, want or "any", instances)

    return Check("KEEPALIVED", pid_file, timeout_s, look)


def of_processes(parent: int, limits: Limits, pid_file: str, proc: str) -> tuple[State, str, Perf]:
    """The parent watches its children and starts them again, so a parent without a child is in trouble, too."""
    seen = read_process(parent, proc)
    named = "keepalived"[:COMM_LENGTH]
    if seen is None or seen.letter in "ZXx" or seen.name != named:
        return State.CRITICAL, f"keepalived does not run ({pid_file} names {parent})", limits.perf("processes", 0)
    family = [seen, *children(parent, proc)]
    frozen = [one.pid for one in family if one.letter in "Tt"]
    alive = [one for one in family if one.letter not in "TtZXx"]
    perf = limits.perf("processes", len(alive), minimum=0)
    if frozen:
        return State.CRITICAL, f"keepalived is stopped: process {', '.join(map(str, frozen))}", perf
    if len(alive) < 2:
        return State.CRITICAL, f"keepalived ({parent}) runs without its VRRP process", perf
    return State.OK, f"keepalived runs ({parent}), {len(alive)} processes", perf


def children(parent: int, proc: str = "/proc") -> list[Seen]:
    """The processes whose parent is `parent`."""
    found = []
    for entry in os.listdir(proc):  # noqa: PTH208 (as in haptk.checks.process)
        if entry.isdecimal() and (seen := read_process(int(entry), proc)) and _parent_of(seen.pid, proc) == parent:
            found.append(seen)
    return found


def _parent_of(pid: int, proc: str) -> int | None:
    try:
        with open(f"{proc}/{pid}/stat", "rb") as stream:  # noqa: PTH123 (as in haptk.checks.process)
            words = stream.read(1024).rpartition(b") ")[2].split()
        return int(words[1])
    except (OSError, ValueError, IndexError):
        return None


def ask_states(parent: int, data_file: str, deadline: float) -> dict[str, str] | Finding:
    """instance -> state, or the finding that says why it could not be had."""
    before = _modified(data_file)
    try:
        os.kill(parent, signal.SIGUSR1)
    except PermissionError:
        return Finding(State.UNKNOWN, "asking keepalived for its states needs root (it is asked by a signal)")
    except ProcessLookupError:
        return Finding(State.CRITICAL, "keepalived died just now")
    last: str | None = None
    while clock.monotonic() < deadline:
        if _modified(data_file) != before:
            text = read_trusted(data_file)
            if isinstance(text, Finding):
                return text
            if text and text == last:
                return parse_states(text)
            last = text
        clock.sleep(_POLL_S)
    return Finding(State.CRITICAL, f"keepalived did not write {data_file} in time")


def _modified(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path, follow_symlinks=False)  # noqa: PTH116 (compared, not walked)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def read_trusted(path: str) -> str | Finding:
    """The file's text; a Finding when it is a link or somebody else's."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return Finding(State.UNKNOWN, f"cannot read {path}: {(error.strerror or str(error)).lower()}")
    with os.fdopen(descriptor, encoding="utf-8", errors="replace") as stream:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid not in (0, os.geteuid()):
            return Finding(State.UNKNOWN, f"{path} was not written by root: not believed")
        return stream.read(4 * 1024 * 1024)


def parse_states(text: str) -> dict[str, str]:
    """`VRRP Instance = NAME` and the `State = ` that follows, from the dump."""
    return {found[1]: found[2] for found in _INSTANCE.finditer(text)}


def of_states(
    found: Mapping[str, str], text: str, perf: Perf, limits: Limits, want: str, instances: Sequence[str]
) -> Finding:
    """Compare the instances with what they should be; FAULT never is."""
    missing = [name for name in instances if name not in found]
    if missing or not found:
        there = ", ".join(found) or "none"
        return Finding(State.UNKNOWN, f"no VRRP instance {', '.join(missing) or 'at all'}; there are: {there}")
    chosen = {name: found[name] for name in instances or found}
    accepted = ("MASTER", "BACKUP") if want == "any" else (want,)
    wrong = [name for name, state in chosen.items() if state not in accepted]
    said = ", ".join(f"{name} is {state}" for name, state in chosen.items())
    if wrong and want != "any":
        said += f", expected {want}"
    masters = limits.perf("masters", sum(state == "MASTER" for state in chosen.values()), minimum=0)
    # INIT lasts some seconds after a start; everything else that was not asked for is an alarm.
    new = all(chosen[name] == "INIT" for name in wrong)
    state = State.OK if not wrong else State.WARNING if new else State.CRITICAL
    return conclude(state, f"{said}; {text}", [perf, masters], facts={"instances": dict(chosen)})

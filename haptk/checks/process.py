"""`process`: is it alive, by name as `killall -0` looks for it, or by pid file? A zombie is dead, a stopped one is ill.

proc(5) is read directly. The kernel keeps 15 characters of a name (TASK_COMM_LEN), so a longer one is compared with the
base name of argv[0] too. States: R S D I are alive, T t stopped or traced, Z X x dead.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from haptk.checks.base import Check, Finding, Limits, conclude
from haptk.report.nagios import State

FIGURES = ("processes",)
COMM_LENGTH = 15
_ALIVE = "RSDIWKP"
_STOPPED = "Tt"


class Seen(NamedTuple):
    """One process: its number, its state's letter and its name."""

    pid: int
    letter: str
    name: str


def _head(path: str, limit: int) -> bytes:
    with open(path, "rb") as stream:  # noqa: PTH123 (a Path for each of thousands of processes costs more than the look)
        return stream.read(limit)


def read_process(pid: int, proc: str = "/proc") -> Seen | None:
    """What /proc says about `pid`; None when there is none. The name stands in brackets and may contain any character."""
    try:
        text = _head(f"{proc}/{pid}/stat", 1024)
    except OSError:
        return None
    name, _, rest = text.partition(b"(")[2].rpartition(b") ")
    return Seen(pid, chr(rest[0]) if rest else "?", name.decode("utf-8", "replace"))


def has_name(seen: Seen, name: str, proc: str = "/proc") -> bool:
    """Whether the process is called `name`; a name that the kernel cut off is looked up in its arguments."""
    if len(name) <= COMM_LENGTH or seen.letter in "ZXx":
        return seen.name == name[:COMM_LENGTH]
    if seen.name != name[:COMM_LENGTH]:
        return False
    try:
        words = _head(f"{proc}/{seen.pid}/cmdline", 4096).split(b"\0")
    except OSError:
        return False
    # A script's argv is: interpreter, script.
    return any(word.rpartition(b"/")[2].decode("utf-8", "replace") == name for word in words[:2])


def by_name(name: str, proc: str = "/proc") -> list[Seen]:
    """All processes of that name but ourselves."""
    own = os.getpid()
    found = []
    for entry in os.listdir(proc):  # noqa: PTH208 (as above)
        if entry.isdecimal() and int(entry) != own:
            seen = read_process(int(entry), proc)
            if seen is not None and has_name(seen, name, proc):
                found.append(seen)
    return found


def read_pid(path: str) -> int | str:
    """The number in a pid file, or the sentence that says why there is none."""
    try:
        words = _head(path, 64).split()
    except FileNotFoundError:
        return f"no pid file {path}"
    except OSError as error:
        return f"cannot read {path}: {(error.strerror or str(error)).lower()}"
    if not words or not words[0].isdigit() or not 0 < int(words[0]) < 2**22 + 1:
        return f"{path} holds no process number"
    return int(words[0])


def process(name: str, pid_file: str, timeout_s: float, limits: Limits, *, proc: str = "/proc") -> Check:
    """A check of one process (`pid_file`, with `name` also that it is the right one) or of all of a name."""
    limits.default("processes", critical="1:")

    def look(_timeout_s: float) -> Finding:
        if pid_file:
            return of_pid_file(pid_file, name, limits, proc)
        return of_all(by_name(name, proc), name, limits)

    return Check("PROCESS", name or pid_file, timeout_s, look)


def of_pid_file(path: str, name: str, limits: Limits, proc: str = "/proc") -> Finding:
    """The finding for a pid file; a number that belongs to another program by now is a dead daemon."""
    pid = read_pid(path)
    none = limits.perf("processes", 0, minimum=0)
    if isinstance(pid, str):
        state = State.UNKNOWN if pid.startswith("cannot read") else State.CRITICAL
        return Finding(state, pid, (none,) if state is State.CRITICAL else ())
    seen = read_process(pid, proc)
    if seen is None:
        return of_all([], name or f"process {pid} of {path}", limits)
    if name and not has_name(seen, name, proc):
        text = f"{path} is stale: process {pid} is {seen.name}, not {name}"
        return Finding(State.CRITICAL, text, (none,))
    return of_all([seen], name or seen.name, limits)


def of_all(found: list[Seen], name: str, limits: Limits) -> Finding:
    """Judge the processes of one name: only those that can run count."""
    alive = [seen for seen in found if seen.letter in _ALIVE]
    stopped = [seen for seen in found if seen.letter in _STOPPED]
    dead = [seen for seen in found if seen.letter in "ZXx"]
    ill = [f"{len(some)} {word}" for some, word in ((stopped, "stopped"), (dead, "dead (zombie)")) if some]
    perf = limits.perf("processes", len(alive), minimum=0)
    if alive:
        pids = ", ".join(str(seen.pid) for seen in alive[:3]) + (", ..." if len(alive) > 3 else "")
        many = "process" if len(alive) == 1 else "processes"
        text = f"{name} runs, {len(alive)} {many} ({pids})" + "".join(f", {part}" for part in ill)
    else:
        text = f"{name} does not run" + (f": {' and '.join(ill)}" if ill else "")
    # Something froze it on purpose or by mistake (SIGSTOP, a debugger, a full terminal): it will not answer.
    state = State.WARNING if stopped and alive else State.OK
    facts: dict[str, object] = {
        "processes": [{"pid": seen.pid, "state": seen.letter, "name": seen.name} for seen in found]
    }
    if not alive and not _wants_none(limits):
        return Finding(
            State.CRITICAL, text, (perf,), facts=facts
        )  # the sentence says it; "0 is outside 1:" adds nothing
    return conclude(state, text, [perf], facts=facts)


def _wants_none(limits: Limits) -> bool:
    """Whether the person's thresholds accept that none runs (`-c 0` looks for a process that must not be there)."""
    limit = limits.critical.get("processes")
    return limit is not None and not limit.alerts(0)

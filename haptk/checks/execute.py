"""`exec`: run a program under a time-out and judge by its exit code, as a plain program or as a monitoring plugin.

The program gets no shell and a session of its own; at the time-out its whole process group is killed, also children
that it left behind. Its output is read up to a limit and only while it runs: a daemon that it started and that keeps
the pipe open does not hold us.
"""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import subprocess
from pathlib import Path
from typing import NamedTuple

from haptk.checks.base import Check, Finding, Limits, conclude
from haptk.errors import NotPermitted
from haptk.io import clock
from haptk.report.nagios import State, read_perf

FIGURES = ("time",)
OUTPUT_BYTES_MAX = 65536


class Ended(NamedTuple):
    """How it ended: exit code (negative: the signal; None: killed at the time-out) and what it wrote on stdout."""

    code: int | None
    output: str
    duration_s: float


def execute(argv: tuple[str, ...], timeout_s: float, limits: Limits, *, plugin: bool = False) -> Check:
    """A check by running `argv`. `plugin` takes its exit code, first line and performance data as ours."""

    def look(timeout_s: float) -> Finding:
        path = shutil.which(argv[0])
        if path is None:
            return Finding(State.UNKNOWN, f"{argv[0]} is not there or not executable")
        try:
            refuse_foreign(Path(path))
            ended = run(argv, timeout_s)
        except NotPermitted as error:
            return Finding(State.UNKNOWN, str(error))
        except OSError as error:
            return Finding(State.UNKNOWN, f"cannot run {argv[0]}: {(error.strerror or str(error)).lower()}")
        return of_plugin(ended, argv[0], timeout_s, limits) if plugin else of_program(ended, argv[0], timeout_s, limits)

    return Check("EXEC", " ".join(argv), timeout_s, look)


def refuse_foreign(path: Path) -> None:
    """As root, refuse a program that others may change."""
    from haptk.io.files import refuse_writable_by_others

    refuse_writable_by_others(path.resolve())


def run(argv: tuple[str, ...], timeout_s: float) -> Ended:
    """Run it to its end or to the time-out; OSError when it cannot be started."""
    started = clock.monotonic()
    child = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    watched = os.pidfd_open(child.pid)
    try:
        output, ended = _watch(child, watched, started + timeout_s)
        duration_s = clock.monotonic() - started
    finally:
        os.close(watched)
        # Whatever is left of its group goes, also after a normal end: a check must not collect processes. Before the
        # child is reaped its number cannot belong to anybody else.
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        code = child.wait()
        if child.stdout is not None:
            child.stdout.close()
    return Ended(code if ended else None, output.decode("utf-8", "replace"), duration_s)


def _watch(child: subprocess.Popen[bytes], watched: int, deadline: float) -> tuple[bytes, bool]:
    """What it wrote, and whether it ended before the deadline."""
    assert child.stdout is not None  # noqa: S101 (asked for above)
    pipe = child.stdout.fileno()
    os.set_blocking(pipe, False)
    output = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        selector.register(watched, selectors.EVENT_READ)
        while True:
            left = deadline - clock.monotonic()
            ready = {key.fd for key, _ in selector.select(left)} if left > 0 else set()
            if pipe in ready:
                part = os.read(pipe, 65536)
                output = (output + part)[:OUTPUT_BYTES_MAX]
                if not part:
                    selector.unregister(pipe)
                elif watched not in ready:
                    continue
            if watched in ready:
                return _rest(pipe, output), True
            if left <= 0:
                return output, False


def _rest(pipe: int, output: bytes) -> bytes:
    """What is still in the pipe of a process that has ended."""
    try:
        while len(output) < OUTPUT_BYTES_MAX:
            part = os.read(pipe, 65536)
            if not part:
                break
            output += part
    except BlockingIOError:
        pass
    return output[:OUTPUT_BYTES_MAX]


def of_program(ended: Ended, name: str, timeout_s: float, limits: Limits) -> Finding:
    """0 is OK, everything else CRITICAL, as every shell script means it."""
    said = first_line(ended.output)
    tail = f": {said}" if said else ""
    facts = {"exit_code": ended.code, "output": ended.output}
    perf = [limits.time(ended.duration_s, timeout_s)]
    if ended.code is None:
        return conclude(
            State.CRITICAL, f"{name} was killed: not done within {timeout_s:.3g} s{tail}", perf, facts=facts
        )
    if ended.code < 0:
        return conclude(State.CRITICAL, f"{name} was ended by {_signal(ended.code)}{tail}", perf, facts=facts)
    if ended.code:
        return conclude(State.CRITICAL, f"{name} exited with {ended.code}{tail}", perf, facts=facts)
    return conclude(State.OK, f"{name} exited with 0{tail}", perf, facts=facts)


def of_plugin(ended: Ended, name: str, timeout_s: float, limits: Limits) -> Finding:
    """The plugin's own state, line and figures; a time-out is CRITICAL, an exit code that is none is UNKNOWN."""
    if ended.code is None or ended.code < 0:
        return of_program(ended, name, timeout_s, limits)
    first, _, rest = ended.output.partition("\n")
    text, _, data = first.partition("|")
    perf = [*read_perf(data), limits.time(ended.duration_s, timeout_s)._replace(label="exec_time")]
    facts = {"exit_code": ended.code, "output": ended.output}
    if ended.code > 3:
        return conclude(
            State.UNKNOWN, f"{name} exited with {ended.code}, which no plugin does: {text}", perf, facts=facts
        )
    judged = conclude(State(ended.code), text.strip() or f"{name} said nothing", perf[-1:], facts=facts)
    more = tuple(line for line in rest.partition("|")[0].splitlines() if line.strip())
    # Its thresholds are shown as it gave them, but they are its own judgement, not ours.
    return judged._replace(perf=tuple(perf), more=more)


def first_line(output: str) -> str:
    """The first line that says something, shortened."""
    return next((line.strip()[:200] for line in output.splitlines() if line.strip()), "")


def _signal(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"

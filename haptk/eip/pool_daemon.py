"""The shell of a pool member: signals, systemd, the health program, and the pause between two ticks."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from haptk.eip.pool import Member
from haptk.io import clock, sdnotify
from haptk.io.files import refuse_writable_by_others


def logger(verbosity: int, as_json: bool) -> Callable[[str], None]:
    """One line an event on stderr, as journald or a person reads it."""
    from haptk.io import logs

    log = logs.setup("haptk-pool", verbose=verbosity, as_json=as_json)
    return log.info


def check_program(path: Path, timeout_s: float) -> Callable[[], bool]:
    """A health check by a program: healthy while it exits with 0 in time. Raises NotPermitted for one that root must not run."""
    whole = path.resolve()
    refuse_writable_by_others(whole)

    def healthy() -> bool:
        try:
            return (
                subprocess.run([str(whole)], check=False, timeout=timeout_s, stdin=subprocess.DEVNULL).returncode == 0
            )
        except (OSError, subprocess.TimeoutExpired):
            return False

    return healthy


def run(member: Member) -> None:
    """Tick until SIGTERM or SIGINT, then let the lease go so that a spare takes over at once; a second signal ends now."""
    ended = threading.Event()

    def stop(number: int, _frame: FrameType | None) -> None:
        ended.set()
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    sdnotify.ready("looking for a lease")
    while not ended.is_set():
        begun = clock.monotonic()
        member.tick()
        sdnotify.notify(STATUS=f"holds {member.held.address}" if member.held else "standing by")
        sdnotify.watchdog()
        ended.wait(max(0.05, member.interval_s - (clock.monotonic() - begun)))
    sdnotify.stopping("letting the lease go")
    member.leave()

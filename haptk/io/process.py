"""What one process has to say to the kernel, or to ask it, about another."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

from haptk.errors import InternalError, PeerError

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_NO_NEW_PRIVS = 38
NAME_BYTES = 15  # of a process, in the kernel


def die_with_parent(signal_number: int = signal.SIGTERM, *, parent_pid: int | None = None) -> None:
    """Have the kernel send us `signal_number` when the parent dies: prctl(2), PR_SET_PDEATHSIG.

    `parent_pid` is the parent that is expected. When it died before this call (the kernel then sends nothing), the
    signal is raised at once; without it only a death during the call is noticed. The kernel means the *thread* that
    started us, so a supervisor has to start its children from a thread that lives as long as itself. An exec keeps
    the setting, a fork does not pass it on. Raises InternalError where prctl is missing or refuses.
    """
    expected = os.getppid() if parent_pid is None else parent_pid
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError) as error:
        raise InternalError(what=f"no prctl(2) on this system: {error}") from error
    if prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal_number), 0, 0, 0) != 0:
        raise InternalError(what=f"prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}")
    if os.getppid() != expected:
        os.kill(os.getpid(), signal_number)


def no_new_privs() -> bool:
    """Give up for good what set-uid programs would give, for us and all children: prctl(2), PR_SET_NO_NEW_PRIVS."""
    return _prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1))


def name_process(name: str) -> bool:
    """Set the name that `killall`, `pgrep` and `ps -C` look at; threads that are started later have it too."""
    return _prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()[:NAME_BYTES]))


def _prctl(option: int, value: object) -> bool:
    try:
        return bool(
            ctypes.CDLL(None).prctl(option, value, ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) == 0
        )
    except (OSError, AttributeError):
        return False


def show_arguments(words: list[str]) -> bool:
    """Replace the command line that `ps` and `pidof` show, as far as the room of the old one goes; False where it cannot be.

    The kernel reads it from our own memory (proc(5): arg_start and arg_end of /proc/PID/stat).
    """
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    try:
        start, end = int(fields[45]), int(fields[46])
    except (IndexError, ValueError):
        return False
    room = end - start
    if start <= 0 or room < 2:
        return False
    text = b"\0".join(os.fsencode(word) for word in words)[: room - 1]
    ctypes.memset(start, 0, room)
    ctypes.memmove(start, text, len(text))
    return True


def cpu_seconds(pid: int) -> float:
    """Processor time of a process of this machine so far, all its threads, user and system: proc(5), /proc/PID/stat.

    Raises PeerError for one that is not here (another machine, another container).
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError as error:
        raise PeerError(
            peer=f"process {pid}", why="it is not on this machine, so its time cannot be measured"
        ) from error
    # The name in parentheses may have blanks; utime and stime are fields 14 and 15.
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

"""What one process has to say to the kernel about another: so far, that it does not want to outlive its parent."""

from __future__ import annotations

import ctypes
import os
import signal

from haptk.errors import InternalError

_PR_SET_PDEATHSIG = 1


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

"""The descriptors that a process is born with: 0, 1 and 2 are made to exist, the others are remembered.

Whatever is opened takes the lowest free number. A program that starts without standard output would listen on number 1
and write its log lines to a client; so what is missing is opened on /dev/null before anything else (POSIX leaves that to
the program). And `fd@9` in a configuration means a descriptor that came from outside, never one of ours that happens to
have that number.
"""

from __future__ import annotations

import contextlib
import os
import sys

STANDARD = (0, 1, 2)
_born_with: frozenset[int] | None = None


def settle() -> None:
    """Call first of all: once, before anything is opened."""
    global _born_with  # noqa: PLW0603 (of the process)
    with contextlib.suppress(OSError):
        _born_with = frozenset(number for number in map(int, os.listdir("/proc/self/fd")) if _is_open(number))  # noqa: PTH208
    for number in STANDARD:
        if not _is_open(number):
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest that is free, and those below are open
            os.set_inheritable(opened, True)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 (as long as the process)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def inherited(number: int) -> bool:
    """Whether a descriptor came from outside; True where nobody remembered."""
    return _born_with is None or number in _born_with or number in STANDARD


def duplicate(number: int) -> int:
    """A new number for an inherited descriptor; raises OSError for what is none."""
    if not inherited(number):
        raise OSError(9, "not a descriptor that the process was started with")
    return os.dup(number)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True

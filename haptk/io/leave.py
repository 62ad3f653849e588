"""The end of a short process: no interpreter to take apart, no thread to wait for."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # `import typing` would cost more than the end it saves
    from typing import NoReturn


def at_once(code: int) -> NoReturn:
    """End the process with this exit code as soon as what was printed is out.

    For a command that a cluster manager polls: taking the interpreter apart costs milliseconds, and a thread that hangs
    in name resolution (`eip.watch`) must not delay an answer that is given already. Nothing registered with `atexit` runs.
    """
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # a manager may have closed it
                stream.flush()
    except OSError:
        # A full disk or a reader that went away: Python's own way out says so, and changes the exit code.
        sys.exit(code)
    os._exit(code)

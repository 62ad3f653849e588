"""The end of a short process: no interpreter to take apart, no thread to wait for, and nothing printed that got lost unsaid."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # `import typing` would cost more than the end it saves
    from typing import NoReturn, TextIO

# The exit code of errors.CannotPrint, which costs too much to import here; sysexits(3) calls it EX_IOERR.
IO_ERROR = 74
# What a shell shows for a program that SIGPIPE ended: 128 + 13.
BROKEN_PIPE = 141


def at_once(code: int, *, stands: bool = False) -> NoReturn:
    """End the process with this exit code as soon as what was printed is out.

    For a command that a cluster manager polls: taking the interpreter apart costs milliseconds, and a thread that hangs
    in name resolution (`eip.watch`) must not delay an answer that is given already. Nothing registered with `atexit` runs.
    What cannot be printed is said on stderr and makes a 0 IO_ERROR or BROKEN_PIPE, unless the exit code is the answer and
    the text only explains it (`stands`).
    """
    try:
        if sys.stdout is not None:  # a manager may have closed it
            sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            told(f"haptk: {unprinted(error)}")
        if not (stands or code):
            code = exit_code(error)
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except OSError:
        pass
    os._exit(code)


def unprinted(error: OSError) -> str:
    """The sentence for output that got lost; the template of errors.CannotPrint says the same."""
    return f"cannot write to standard output: {error.strerror or error}"


def exit_code(error: OSError) -> int:
    """The exit code for output that got lost: a reader that went away is the shell's own case."""
    return BROKEN_PIPE if isinstance(error, BrokenPipeError) else IO_ERROR


def abandon(stream: TextIO | None) -> None:
    """Send what `stream` still holds, and all that follows, nowhere: Python's own end must not complain once more."""
    if stream is None:
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, stream.fileno())
    except (OSError, ValueError):
        pass  # a stream without a descriptor
    finally:
        os.close(nowhere)


def told(text: str) -> None:
    """One line on stderr; when that cannot be written either, nobody is left to tell."""
    try:
        if sys.stderr is not None:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()
    except OSError:
        abandon(sys.stderr)

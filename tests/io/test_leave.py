"""The end of a short process: what was printed is out, the code is right, and nothing else is waited for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from haptk.errors import CannotPrint
from haptk.io import leave

LOST = "haptk: cannot write to standard output: No space left on device\n"
LEAVE = "from haptk.io import leave; import sys, threading, time, atexit\n"


def run(code: str, **options: object) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", LEAVE + code]
    options.setdefault("stdout", subprocess.PIPE)
    options["env"] = {**os.environ, "PYTHONUNBUFFERED": ""}  # else print itself fails, before the end is reached
    return subprocess.run(argv, stderr=subprocess.PIPE, text=True, timeout=60, **options)  # type: ignore[call-overload, no-any-return]


def test_what_was_printed_is_out_and_no_thread_is_waited_for() -> None:
    done = run(
        "threading.Thread(target=time.sleep, args=(600,)).start(); atexit.register(print, 'late')\n"
        "print('said'); print('talk', file=sys.stderr); leave.at_once(7)"
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, "said\n", "talk\n")


def test_closed_streams_are_no_trouble() -> None:
    """Some managers close what they do not read."""
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" >&- 2>&-', sys.executable, LEAVE + "print('said'); leave.at_once(3)"],
        timeout=60,
    )
    assert done.returncode == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_what_cannot_be_printed_is_no_success() -> None:
    with Path("/dev/full").open("w") as full:
        done = run("print('said'); leave.at_once(0)", stdout=full)
        assert (done.returncode, done.stderr) == (leave.IO_ERROR, LOST)
        assert run("print('said'); leave.at_once(7)", stdout=full).returncode == 7
        stands = run("print('said'); leave.at_once(0, stands=True)", stdout=full)
        assert (stands.returncode, stands.stderr) == (0, LOST)


def test_the_code_and_the_sentence_are_those_of_the_error() -> None:
    error = OSError(28, "No space left on device")
    known = CannotPrint(why=error.strerror)
    assert (leave.exit_code(error), leave.unprinted(error)) == (known.exit_code, str(known))


def test_a_reader_that_went_away_is_no_success() -> None:
    end, other = os.pipe()
    os.close(end)
    with os.fdopen(other, "w") as pipe:
        done = run("print('said'); leave.at_once(0)", stdout=pipe)
    assert (done.returncode, done.stderr) == (leave.BROKEN_PIPE, "")

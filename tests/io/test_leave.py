"""The end of a short process: what was printed is out, the code is right, and nothing else is waited for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LEAVE = "from haptk.io import leave; import sys, threading, time, atexit\n"


def run(code: str, **options: object) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", LEAVE + code]
    options.setdefault("stdout", subprocess.PIPE)
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
    assert done.returncode not in (0, 3) and "No space left" in done.stderr


def test_a_reader_that_went_away_is_no_success() -> None:
    end, other = os.pipe()
    os.close(end)
    with os.fdopen(other, "w") as pipe:
        done = run("print('said'); leave.at_once(0)", stdout=pipe)
    assert done.returncode != 0

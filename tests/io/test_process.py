"""PR_SET_PDEATHSIG: a child ends with its parent, also with one that was gone before it could say so."""

from __future__ import annotations

import signal
import subprocess
import sys

CHILD = """
import os, sys, time
from haptk.io.process import die_with_parent
die_with_parent({arguments})
print("armed", flush=True)
time.sleep(600)
"""


def test_the_child_ends_when_the_parent_is_killed() -> None:
    child = CHILD.format(arguments="")
    parent = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "armed\n"
    parent.kill()
    parent.wait(30)
    assert parent.stdout.read() == "", "the pipe ends only when the child is gone too"
    parent.stdout.close()


def test_a_parent_that_was_gone_before_is_noticed() -> None:
    code = CHILD.format(arguments="parent_pid=2**22")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "")

"""A limit of descriptors below what maxconn needs: refused as by HAProxy, and what a file without maxconn gets."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from haptk.core import fdlimit
from tests.diff.rig import ask
from tests.ports import free_port

HAPTK = Path(sys.executable).parent / "haptk"
PROGRAMS = {"haproxy": ["haproxy", "-db"], "haptk": [str(HAPTK), "proxy", "-db"]}
DEADLINE_S = 30.0
TEXT = """
global
  nbthread {threads}
  {words}
defaults
  mode http
  timeout connect 5s
  timeout client 5s
  timeout server 5s
listen web
  bind 127.0.0.1:{port}
  server s 127.0.0.1:1
backend checked
  server s 127.0.0.1:1 check
"""

needs_haproxy = pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")


def _start(program: str, directory: Path, limit: str, words: str, threads: int) -> subprocess.Popen[bytes]:
    file = directory / f"{program}.cfg"
    file.write_text(TEXT.format(words=words, port=free_port(), threads=threads))
    command = ["bash", "-c", f'ulimit {limit} && exec "$@"', "limited", *PROGRAMS[program], "-f", str(file)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def _raisable() -> bool:
    """Whether this process may raise a hard limit: then nothing is refused."""
    done = subprocess.run(["bash", "-c", "ulimit -n 200 && ulimit -n 300"], capture_output=True, check=False)
    return done.returncode == 0


@needs_haproxy
@pytest.mark.skipif(_raisable(), reason="this user may raise every limit")
@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ("-n 100", "maxconn 1000"),
        ("-n 100", "ulimit-n 500\n  maxconn 1000"),
        ("-n 2000", "maxconn 1000"),
        ("-n 100", "strict-limits"),
    ],
)
def test_a_limit_that_is_too_low_is_refused(tmp_path: Path, limit: str, words: str, threads: int) -> None:
    said = {}
    for program in PROGRAMS:
        process = _start(program, tmp_path, limit, words, threads)
        output = process.communicate(timeout=DEADLINE_S)[0].decode()
        found = re.search(r"(Cannot raise FD limit.*|FD limit .*)", output)
        said[program] = (process.returncode, found[1] if found else output)
    assert said["haptk"] == said["haproxy"]
    assert said["haptk"][0] == 1


@needs_haproxy
@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ("-n 1000", ""),  # automatic
        ("-n 3001", "fd-hard-limit 1500"),
        ("-Sn 400", "maxconn 500"),  # the soft limit is raised
        ("-n 2000", "maxconn 300\n  ulimit-n 1000"),
        ("-n 300", "no strict-limits\n  maxconn 1000"),  # a warning, and it serves
    ],
)
def test_what_the_limits_become(tmp_path: Path, limit: str, words: str, threads: int) -> None:
    seen = {}
    for program in PROGRAMS:
        path = tmp_path / f"{program}.sock"
        process = _start(program, tmp_path, limit, f"stats socket {path} level admin\n  {words}", threads)
        try:
            end = time.monotonic() + DEADLINE_S
            text = ""
            while not text:
                assert process.poll() is None, process.stdout.read() if process.stdout else ""
                assert time.monotonic() < end
                with contextlib.suppress(OSError):
                    text = ask(path, "show info")
                time.sleep(0.02)
            info = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
            seen[program] = {key: info[key] for key in ("Maxsock", "Maxconn", "Hard_maxconn")}
        finally:
            process.terminate()
            process.wait(10)
    assert seen["haptk"] == seen["haproxy"]


def test_sums() -> None:
    assert fdlimit.fixed(2, 1, 0) == 17
    assert fdlimit.ideal_maxconn(1000, 28) == 486
    assert fdlimit.ideal_maxconn(100_000, 28, 1000) == 486
    assert fdlimit.ideal_maxconn(60, 28) == 100
    assert fdlimit.wanted(100, 200) == 200
    assert fdlimit.wanted(100, 200, 150) == 150
    assert fdlimit.wanted(200, 200) == 0

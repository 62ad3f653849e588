"""Output that cannot be written: one line on stderr, its own exit code, and silence for a reader that went away."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from haptk.cli.app import haptk
from haptk.cli.base import Command, Group, emit, run, say
from haptk.io import leave
from tests.cli.test_command_line import walk

FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")

SAID = "haptk: cannot write to standard output: No space left on device\n"
CFG = """\
defaults
    mode http
    timeout connect 1s
    timeout client 1s
    timeout server 1s
listen www
    bind 127.0.0.1:8080
    server A 127.0.0.1:8081
"""


@contextlib.contextmanager
def stdout_of(path: Path, mode: str = "w") -> Iterator[None]:
    """This process with `path` as its stdout, on a descriptor of its own; what is left unwritten is nobody's trouble."""
    ours = sys.stdout
    sys.stdout = path.open(mode)
    try:
        yield
    finally:
        full, sys.stdout = sys.stdout, ours
        with contextlib.suppress(OSError):
            full.close()


def haptk_process(argv: list[str], stdout: io.IOBase | int, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "haptk", *argv],
        stdout=stdout,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONUNBUFFERED": "", **env},
    )


@pytest.mark.parametrize("path", [path for path, _ in walk(haptk)], ids=" ".join)
def test_the_help_of_every_command(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with stdout_of(FULL):
        code = run(haptk, [*path, "--help"])
    assert (code, capsys.readouterr().err) == (leave.IO_ERROR, SAID)


@pytest.fixture
def cfg(tmp_path: Path) -> Path:
    file = tmp_path / "haproxy.cfg"
    file.write_text(CFG)
    return file


# Plain text, JSON, what click prints by itself, and an exit of 3 that help has in plugin mode.
WAYS = {
    "text": ["completion", "bash"],
    "json": ["--json", "completion", "bash"],
    "version": ["--version"],
    "proxy": ["proxy", "-c", "-f", "{cfg}"],
    "plugin help": ["check", "--plugin", "tcp", "--help"],
}


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("way", WAYS)
def test_a_full_disk(way: str, unbuffered: str, cfg: Path) -> None:
    argv = [word.format(cfg=cfg) for word in WAYS[way]]
    with FULL.open("w") as full:
        done = haptk_process(argv, full, PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == leave.IO_ERROR, done.stderr
    lines = done.stderr.splitlines(keepends=True)
    if way == "json":
        body = json.loads(done.stderr)
        assert (body["error"], body["exit_code"]) == ("CannotPrint", leave.IO_ERROR)
    else:
        assert lines[-1] == SAID and "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@pytest.mark.parametrize("way", WAYS)
def test_a_reader_that_went_away(way: str, cfg: Path) -> None:
    end, other = os.pipe()
    os.close(end)
    argv = [word.format(cfg=cfg) for word in WAYS[way]]
    with os.fdopen(other, "w") as pipe:
        done = haptk_process(argv, pipe)
    assert done.returncode == leave.BROKEN_PIPE
    assert "haptk:" not in done.stderr and "Traceback" not in done.stderr and "ignored" not in done.stderr


TABLE = """
import sys
from haptk.cli.base import run
from tests.cli.test_output_lost import toy
sys.exit(run(toy, ["draw"]))
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_table(unbuffered: str) -> None:
    """rich ends the process by itself, with 1, when its reader went away."""
    env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    end, other = os.pipe()
    os.close(end)
    for out, code, said in ((FULL.open("w"), leave.IO_ERROR, SAID), (os.fdopen(other, "w"), leave.BROKEN_PIPE, "")):
        with out:
            done = subprocess.run(
                [sys.executable, "-c", TABLE], stdout=out, stderr=subprocess.PIPE, text=True, check=False, env=env
            )
        assert (done.returncode, done.stderr) == (code, said)


def test_completion_on_a_full_disk() -> None:
    asked = {"_HAPTK_COMPLETE": "bash_complete", "COMP_WORDS": "haptk he", "COMP_CWORD": "1"}
    with FULL.open("w") as full:
        done = haptk_process([], full, **asked)
    assert (done.returncode, done.stderr) == (leave.IO_ERROR, SAID)


@pytest.mark.parametrize("contract", ["plugin", "script", "condition"])
def test_a_check_keeps_what_it_judged(contract: str) -> None:
    """keepalived and systemd read no text: a full disk behind a log must fail nobody over."""
    codes = {"plugin": (0, 3), "script": (0, 1), "condition": (0, 255)}[contract]
    well = ["check", "process", "--contract", contract, Path(sys.executable).name, "-c", "processes=1:"]
    with FULL.open("w") as full:
        for argv, code in ((well, codes[0]), (["check", "tcp", "--contract", contract], codes[1])):
            done = haptk_process(argv, full)
            assert done.returncode == code, done.stderr
            assert SAID in done.stderr and "Traceback" not in done.stderr


def test_stderr_that_cannot_be_written_changes_no_exit_code(cfg: Path) -> None:
    cfg.write_text("listen www\n    wieght 3\n")
    ways = [(["proxy", "-c", "-f", str(cfg)], 1), (["dance"], 2), (["generate", "all", "--config", "/nowhere"], 66)]
    for argv, code in ways:
        with FULL.open("w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "haptk", *argv], stderr=full, stdout=subprocess.DEVNULL, check=False
            )
        assert done.returncode == code, argv


def test_closed_streams_are_no_trouble() -> None:
    for argv, code in ((["--version"], 0), (["completion", "bash"], 0), (["dance"], 2)):
        script = 'exec "$0" -m haptk "$@" >&- 2>&-'
        done = subprocess.run(["sh", "-c", script, sys.executable, *argv], timeout=60, check=False)
        assert done.returncode == code, argv


@click.group(cls=Group)
def toy() -> None:
    """A toy."""


@toy.command(cls=Command)
@click.argument("file")
def write(file: str) -> None:
    """Write a file."""
    say("writing")
    with Path(file).open("w") as out:
        out.write("x" * 100)
        out.flush()
    emit({}, "done")


@toy.command(cls=Command)
def draw() -> None:
    """Draw a table."""
    from rich.table import Table

    table = Table("a", "b")
    table.add_row("1", "2")
    emit({}, lambda console: console.print(table))


def test_another_full_file_is_not_called_standard_output(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with stdout_of(tmp_path / "out"):
        assert run(toy, ["write", "/dev/full"]) == 70
    assert "internal error: OSError" in capsys.readouterr().err

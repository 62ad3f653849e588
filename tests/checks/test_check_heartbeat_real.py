"""`haptk check heartbeat` against two running daemons: healthy, alone, and not there."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from haptk.cli.app import haptk
from haptk.cli.base import run
from haptk.io import clock

SCRIPT = """#!/bin/sh
case $2 in
  start) touch {dir}/up ;;
  stop) rm -f {dir}/up ;;
  status) if [ -e {dir}/up ]; then echo running; else echo stopped; fi ;;
esac
"""


class Pair:
    def __init__(self, folder: Path) -> None:
        self.dir = folder
        net = f"127.{os.getpid() % 250 + 1}.93"
        self.address = {"a": f"{net}.1", "b": f"{net}.2"}
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((self.address["a"], 0))
            self.port = probe.getsockname()[1]
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        run(haptk, ["heartbeat", "keygen", str(folder / "key")])
        for name in self.address:
            scripts = folder / f"resource.{name}"
            (folder / name).mkdir()
            scripts.mkdir()
            (scripts / "web").write_text(SCRIPT.format(dir=folder / name))
            (scripts / "web").chmod(0o755)

    def start(self, name: str) -> None:
        other = "b" if name == "a" else "a"
        argv = [
            sys.executable, "-m", "haptk", "heartbeat", "--node", name, "--bind", self.address[name],
            "--peer", self.address[other], "--udpport", str(self.port), "--keepalive", "100ms", "--deadtime", "1",
            "--initdead", "2", "--monitor", "500ms", "--key-file", str(self.dir / "key"), "--log-format", "json",
            "--state-dir", str(self.dir / f"state.{name}"), "--control", self.control(name),
            "--resource-dir", str(self.dir / f"resource.{name}"), "--resource", "web::x",
        ]  # fmt: skip
        with (self.dir / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def control(self, name: str) -> str:
        return str(self.dir / f"{name}.sock")

    def log(self) -> str:
        return "\n".join(path.read_text() for path in self.dir.glob("*.log"))


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    yield made
    for process in made.running.values():
        process.kill()
        process.wait()


def test_a_pair_that_is_well_and_then_alone(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    def look(name: str, *more: str) -> tuple[int, str]:
        capsys.readouterr()
        code = run(haptk, ["check", "heartbeat", "--control", pair.control(name), *more])
        return code, capsys.readouterr().out

    def wait_for(what: Callable[[], bool]) -> None:
        deadline = clock.monotonic() + 40
        while not what():
            assert clock.monotonic() < deadline, pair.log()
            clock.sleep(0.1)

    assert look("a")[0] == 2
    pair.start("a")
    pair.start("b")
    wait_for(lambda: look("a")[0] == look("b")[0] == 0)
    code, out = look("b")
    assert re.match(r"HEARTBEAT OK: b is active, holds \w+; peer a active \| time=", out), out
    pair.running["b"].kill()
    wait_for(lambda: "peer b is dead" in look("a")[1])
    code, out = look("a")
    assert (code, out.partition(":")[0]) == (1, "HEARTBEAT WARNING")
    assert look("a", "-c", "peer_age=0.5")[0] == 2
    assert look("a", "--hold", "none")[0] == 2
    assert look("b")[0] == 2

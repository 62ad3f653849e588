"""Machines for heartbeat nodes on this one: network, mount, uts and pid namespaces around the real daemon or haptk's.

Each pair has a bridge in a namespace of its own, so that a link can be cut on either side. Needs root. Everything is
below one directory and is gone after `close`. The proof of a test is in the real daemon's log, cl_status and the
calls that the resource scripts recorded.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REAL = Path("/usr/libexec/heartbeat/heartbeat")
if not REAL.exists():
    REAL = Path("/usr/lib/heartbeat/heartbeat")
OTHER = {"a": "b", "b": "a"}
ADDRESS = {"a": "10.77.0.1", "b": "10.77.0.2"}

SCRIPT = """#!/bin/sh
# Heartbeat v1 resource: hbtest NAME start|stop|status
dir=$(cat /etc/ha.d/nodedir)
echo "$(date +%s.%N) $2 $1" >> $dir/calls.log
env > $dir/env.$1.$2
case $2 in
start) [ -f $dir/broken.$1 ] && exit 1; touch $dir/rsc.$1; exit 0;;
stop) rm -f $dir/rsc.$1; exit 0;;
status) if [ -f $dir/rsc.$1 ]; then echo running; else echo stopped; fi; exit 0;;
esac
"""

BOOT = """hostname {name}
mount --make-rprivate /
mount --bind {dir}/ha.d /etc/ha.d
mount --bind {dir}/varlib /var/lib/heartbeat
mount --bind {dir}/runfs /run
touch {dir}/booted
trap : TERM
while true; do sleep 10000 & wait; done
"""


def sh(*argv: str, check: bool = True) -> str:
    done = subprocess.run(argv, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


def wait_for(what: Callable[[], object], timeout_s: float, why: str) -> None:
    """Until `what` is true; AssertionError with `why` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {why}"
        time.sleep(0.05)


class Machine:
    """One node's machine, and the daemon that runs on it (real or haptk)."""

    def __init__(self, pair: Pair, name: str) -> None:
        self.pair = pair
        self.name = name
        self.dir = pair.dir / name
        self.init: int | None = None
        self.haptk: subprocess.Popen[bytes] | None = None
        self.unshare: subprocess.Popen[bytes] | None = None

    @property
    def netns(self) -> str:
        return self.pair.prefix + self.name

    def prepare(self) -> None:
        sh("rm", "-rf", str(self.dir))
        self.dir.mkdir(parents=True)
        sh("cp", "-a", "/etc/ha.d", f"{self.dir}/ha.d")
        sh("cp", "-a", "/var/lib/heartbeat", f"{self.dir}/varlib")
        sh("find", f"{self.dir}/varlib", "-name", "hb_*", "-delete")
        self._fresh_run()
        self.configure()

    def _fresh_run(self) -> None:
        sh("rm", "-rf", f"{self.dir}/runfs")
        for name in ("runfs/heartbeat", "runfs/resource-agents", "runfs/lock", "runfs/haptk"):
            (self.dir / name).mkdir(parents=True)
        sh("cp", "-a", "/run/heartbeat", f"{self.dir}/runfs/", check=False)

    def configure(self) -> None:
        """Write ha.cf, haresources and authkeys; haptk and the original read the same files."""
        options = self.pair.options
        lines = [
            f"logfile {self.dir}/ha-log",
            "logfacility none",
            f"keepalive {options['keepalive']}",
            f"deadtime {options['deadtime']}",
            f"initdead {options['initdead']}",
            f"ucast eth0 {ADDRESS[OTHER[self.name]]}",
            f"auto_failback {options['failback']}",
            *self.pair.extra,
            "node a b",
            "crm no",
        ]
        etc = self.dir / "ha.d"
        (etc / "ha.cf").write_text("\n".join(lines) + "\n")
        (etc / "haresources").write_text(self.pair.haresources)
        keys = etc / "authkeys"
        keys.write_text(self.pair.authkeys)
        keys.chmod(0o600)
        (etc / "nodedir").write_text(f"{self.dir}\n")
        script = etc / "resource.d" / "hbtest"
        script.write_text(SCRIPT)
        script.chmod(0o755)

    def boot(self) -> None:
        if self.init is not None:
            return
        self._fresh_run()
        for file in (*self.dir.glob("rsc.*"), *self.dir.glob("booted")):
            file.unlink()
        script = self.dir / "init.sh"
        script.write_text(BOOT.format(name=self.name, dir=self.dir))
        argv = ["ip", "netns", "exec", self.netns, "unshare", "-m", "-u", "-p", "-f", "--kill-child", "--mount-proc"]
        with (self.dir / "init.out").open("wb") as out:
            self.unshare = subprocess.Popen(
                [*argv, "bash", str(script)], stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        wait_for((self.dir / "booted").exists, 10, f"the machine {self.name} does not boot")
        children = sh("ps", "-o", "pid=", "--ppid", str(self.unshare.pid)).split()
        self.init = int(children[0])

    def inside(self, *argv: str) -> list[str]:
        assert self.init is not None
        return ["nsenter", "-t", str(self.init), "-m", "-u", "-p", "-n", "--", *argv]

    def run(self, *argv: str, timeout_s: float = 30) -> str:
        done = subprocess.run(self.inside(*argv), capture_output=True, text=True, timeout=timeout_s)
        return done.stdout + done.stderr

    # ---- the daemons

    def start_real(self) -> None:
        self.boot()
        with (self.dir / "start.out").open("ab") as out:
            argv = self.inside("bash", "-c", f"ulimit -l unlimited; exec {REAL}")
            subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=30, check=True)

    def stop_real(self) -> None:
        self.run(str(REAL), "-k", timeout_s=60)

    def start_haptk(self, *more: str) -> None:
        self.boot()
        python = sys.executable
        argv = self.inside(
            "env", f"PYTHONPATH={ROOT}", "HAPTK_NO_FAST=1", python, "-m", "haptk", "heartbeat", "-f", "/etc/ha.d",
            "--state-dir", f"{self.dir}/state", "--monitor", "2", *more,
        )  # fmt: skip
        with (self.dir / "haptk.err").open("ab") as out:
            self.haptk = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd="/")

    def ctl(self, *words: str) -> str:
        return self.run("env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "haptk", "heartbeat", *words, timeout_s=60)

    def stop_haptk(self) -> None:
        assert self.haptk is not None
        self.ctl("stop")
        self.haptk.wait(timeout=30)

    def crash(self) -> None:
        """The power of the whole machine fails."""
        if self.init is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.init, signal.SIGKILL)
            self.init = None
        for process in (self.haptk, self.unshare):
            if process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=10)
        self.haptk = self.unshare = None
        for file in self.dir.glob("rsc.*"):
            file.unlink()

    def kill_daemon(self) -> None:
        """kill -9 of haptk's daemon alone: what it holds stays up."""
        assert self.haptk is not None
        for pid in sh("pgrep", "-f", f"heartbeat -f /etc/ha.d --state-dir {self.dir}/state").split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        self.haptk.wait(timeout=10)

    def link(self, state: str) -> None:
        sh("ip", "-n", self.pair.prefix + "sw", "link", "set", f"p{self.name}", state)

    # ---- looking

    @property
    def log(self) -> str:
        path = self.dir / "ha-log"
        return path.read_text(errors="replace") if path.exists() else ""

    def holds(self, resource: str) -> bool:
        return (self.dir / f"rsc.{resource}").exists()

    def calls(self, action: str) -> list[str]:
        path = self.dir / "calls.log"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if f" {action} " in line]


class Pair:
    """Two machines on one bridge."""

    def __init__(self, base: Path, **options: str) -> None:
        self.dir = base
        self.prefix = f"hk{os.getpid() % 10000}{next(_COUNTER)}"
        self.options = {"keepalive": "200ms", "deadtime": "2", "initdead": "4", "failback": "off", **options}
        self.extra: list[str] = []
        self.haresources = "a hbtest::rscA hbtest::rscA2\nb hbtest::rscB\n"
        self.authkeys = "auth 1\n1 sha1 secretkey\n"
        self.cable: subprocess.Popen[bytes] | None = None
        self.a = Machine(self, "a")
        self.b = Machine(self, "b")

    def up(self) -> Pair:
        self.dir.mkdir(parents=True, exist_ok=True)
        switch = self.prefix + "sw"
        sh("ip", "netns", "add", switch)
        sh("ip", "-n", switch, "link", "add", "br0", "type", "bridge")
        sh("ip", "-n", switch, "link", "set", "br0", "up")
        for machine in (self.a, self.b):
            name = machine.name
            sh("ip", "netns", "add", machine.netns)
            sh("ip", "-n", machine.netns, "link", "set", "lo", "up")
            peer = ("type", "veth", "peer", "name", "eth0", "netns", machine.netns)
            sh("ip", "-n", switch, "link", "add", f"p{name}", *peer)
            sh("ip", "-n", switch, "link", "set", f"p{name}", "master", "br0")
            sh("ip", "-n", switch, "link", "set", f"p{name}", "up")
            sh("ip", "-n", machine.netns, "addr", "add", f"{ADDRESS[name]}/24", "dev", "eth0")
            sh("ip", "-n", machine.netns, "link", "set", "eth0", "up")
            machine.prepare()
        return self

    def loss(self, percent: int) -> None:
        """Replace the bridge by a cable that loses `percent` of the packets each way; 0 brings the bridge back."""
        switch = self.prefix + "sw"
        if self.cable is not None:
            self.cable.kill()
            self.cable.wait()
            self.cable = None
        for name in "ab":
            sh("ip", "-n", switch, "link", "set", f"p{name}", *(("nomaster",) if percent else ("master", "br0")))
        if percent:
            tool = str(Path(__file__).with_name("lossy.py"))
            argv = ["ip", "netns", "exec", switch, sys.executable, tool, "pa", "pb", str(percent), "1"]
            self.cable = subprocess.Popen(argv, stdout=subprocess.PIPE)
            assert self.cable.stdout is not None
            assert self.cable.stdout.readline() == b"forwarding\n"

    def holder(self, resource: str) -> str:
        """The machines that have a resource up, as letters."""
        return "".join(machine.name for machine in (self.a, self.b) if machine.holds(resource))

    def close(self) -> None:
        if self.cable is not None:
            self.cable.kill()
            self.cable.wait()
        for machine in (self.a, self.b):
            machine.crash()
        for name in ("a", "b", "sw"):
            sh("ip", "netns", "del", self.prefix + name, check=False)


def dump(pair: Pair) -> str:
    """The ends of what both nodes logged, for a wait that fails."""
    found = []
    for machine in (pair.a, pair.b):
        found.append(f"--- {machine.name}: {machine.log[-3000:]}")
        err = machine.dir / "haptk.err"
        found.append(err.read_text()[-2000:] if err.exists() else "")
    return "\n".join(found)


def settled(pair: Pair) -> None:
    """Each node holds its own group."""
    wait_for(lambda: (pair.holder("rscA"), pair.holder("rscB")) == ("a", "b"), 40, dump(pair))


def _count() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


_COUNTER = _count()

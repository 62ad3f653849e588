"""keepalived's notifications: concurrent, late and out of order; the FIFO; and a real pair of keepalived."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from haptk.core.vip import Holder, NotOurs, Ours, Outcome, Unknown
from haptk.eip.contracts import keepalived as adapter
from haptk.eip.contracts.request import Refused, parse
from haptk.eip.install import PLACES, Installer
from haptk.io import clock

NONE: frozenset[str] = frozenset()


class Recorder:
    """Stands for an agent: writes down what it was told, as slowly as a real one."""

    def __init__(self, seconds: float = 0.0, ok: bool = True) -> None:
        self.done: list[str] = []
        self.seconds = seconds
        self.ok = ok
        self.begun = threading.Event()
        self.label = self.address = "203.0.113.10"

    def start(self, _seconds: float) -> Outcome:
        self.begun.set()
        clock.sleep(self.seconds)
        self.done.append("start")
        return Outcome(self.ok, Ours("EC2"), True, "taken")

    def stop(self, _seconds: float) -> Outcome:
        self.done.append("stop")
        return Outcome(self.ok, NotOurs(), True, "released")


def turns(tmp_path: Path) -> adapter.Turns:
    return adapter.Turns(tmp_path / "run", ["203.0.113.10"])


def test_an_older_state_that_comes_late_does_nothing(tmp_path: Path) -> None:
    agent = Recorder()
    turns(tmp_path).run((20, 5), "BACKUP", [agent], NONE)  # type: ignore[list-item]
    turns(tmp_path).run((10, 9), "MASTER", [agent], NONE)  # type: ignore[list-item]
    assert agent.done == []
    turns(tmp_path).run((30, 1), "MASTER", [agent], NONE)  # type: ignore[list-item]
    assert agent.done == ["start"]


def test_within_one_tick_the_pid_decides(tmp_path: Path) -> None:
    agent = Recorder()
    turns(tmp_path).run((20, 6), "BACKUP", [agent], NONE)  # type: ignore[list-item]
    turns(tmp_path).run((20, 5), "MASTER", [agent], NONE)  # type: ignore[list-item]
    assert agent.done == []


def test_what_waited_for_its_turn_does_the_newest_and_only_that(tmp_path: Path) -> None:
    agent = Recorder(seconds=0.5)
    states = ["MASTER", "BACKUP", "MASTER", "BACKUP"]
    threads = [
        threading.Thread(target=turns(tmp_path).run, args=((10 + number, 1), state, [agent], frozenset({"BACKUP"})))
        for number, state in enumerate(states)
    ]
    threads[0].start()
    assert agent.begun.wait(5)
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert agent.done == ["start", "stop"]


def test_a_failed_change_is_tried_again_by_the_same_state(tmp_path: Path) -> None:
    failing = Recorder(ok=False)
    assert turns(tmp_path).run((10, 1), "MASTER", [failing], NONE) == 1  # type: ignore[list-item]
    agent = Recorder()
    assert turns(tmp_path).run((11, 1), "MASTER", [agent], NONE) == 0  # type: ignore[list-item]
    assert agent.done == ["start"]


def test_a_master_that_hears_of_a_lower_priority_asserts_again(tmp_path: Path) -> None:
    agent = Recorder()
    for ticket, word in (((10, 1), "MASTER"), ((11, 1), "MASTER_RX_LOWER_PRI")):
        request = parse("keepalived", ["notify", "203.0.113.10", word.lower()], {})
        turns(tmp_path).run(ticket, request.state, [agent], NONE)  # type: ignore[list-item]
    assert agent.done == ["start", "start"]


def test_processes_know_their_place_in_the_order_of_starts() -> None:
    first = subprocess.Popen(["sleep", "5"])
    clock.sleep(0.05)
    second = subprocess.Popen(["sleep", "5"])
    try:
        assert adapter.born(first.pid) < adapter.born(second.pid)
    finally:
        for process in (first, second):
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("words", "addresses", "state", "name"),
    [
        (["203.0.113.10", "INSTANCE", "VI_1", "MASTER", "101"], ["203.0.113.10"], "MASTER", "VI_1"),
        (["203.0.113.10", "eni-01234567", "GROUP", "G 1", "FAULT", "0"], ["203.0.113.10"], "FAULT", "G 1"),
        (["a.b", "backup"], ["a.b"], "BACKUP", ""),
        (["x", "INSTANCE", "MASTER", "BACKUP", "1"], ["x"], "BACKUP", "MASTER"),
        (["x", "master_rx_lower_pri"], ["x"], "MASTER", ""),
    ],
)
def test_words_are_read_from_the_end(words: list[str], addresses: list[str], state: str, name: str) -> None:
    request = parse("keepalived", ["notify", *words], {})
    assert (request.addresses, request.state, request.name) == (addresses, state, name)


@pytest.mark.parametrize("words", [[], ["203.0.113.10"], ["203.0.113.10", "INSTANCE", "VI_1", "GONE", "1"]])
def test_a_notification_without_a_state_is_refused(words: list[str]) -> None:
    with pytest.raises(Refused):
        parse("keepalived", ["notify", *words], {})


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('INSTANCE "VI_1" MASTER 101\n', ("INSTANCE", "VI_1", "MASTER")),
        ('GROUP "a \\"b" FAULT 0', ("GROUP", 'a \\"b', "FAULT")),
        ('INSTANCE "VI_1" MASTER_RX_LOWER_PRI 101', ("INSTANCE", "VI_1", "MASTER")),
        ("VS [192.0.2.1]:tcp:80 UP", None),
        ("", None),
    ],
)
def test_fifo_lines(line: str, expected: object) -> None:
    assert adapter.parse_line(line) == expected


def test_a_flurry_of_fifo_lines_costs_one_change(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    agent = Recorder(seconds=0.3)
    served = threading.Thread(target=adapter.Fifo(path, "VI_1", [agent], NONE).serve)  # type: ignore[list-item]
    served.start()
    with path.open("w") as fifo:
        fifo.write('INSTANCE "VI_1" MASTER 100\n')
        fifo.flush()
        assert agent.begun.wait(5)
        for state in ("BACKUP", "MASTER", "BACKUP", "MASTER"):
            fifo.write(f'INSTANCE "VI_1" {state} 100\nINSTANCE "other" BACKUP 100\n')
            fifo.flush()
    served.join(10)
    assert not served.is_alive()
    assert agent.done == ["start", "start"]


@pytest.fixture(scope="module")
def script() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="haptk-keepalived-"))
    root.chmod(0o755)
    Installer(root).install(["keepalived"])
    yield root / PLACES["keepalived"][0]
    shutil.rmtree(root)


def test_many_notifications_at_once_end_in_the_newest(lab: Any, script: Path) -> None:
    """Real processes, started within milliseconds of each other; the last one started is BACKUP with release."""
    env = lab.env("lb1", HA_LOGFACILITY="none")
    for last, expected in (("backup", None), ("master", "lb1")):
        states = ["master", "backup"] * 3 + [last]
        started = [
            subprocess.Popen(
                [str(script), "notify", lab.ip(), "release=backup", state], env=env, stderr=subprocess.DEVNULL
            )
            for state in states
        ]
        assert [process.wait(60) for process in started] == [0] * len(started)
        assert lab.holder() == expected, last


def test_track_script_codes(lab: Any, script: Path) -> None:
    def check(*words: str) -> int:
        env = lab.env("lb1")
        return subprocess.run([str(script), "check", lab.ip(), *words], env=env, capture_output=True).returncode

    assert check() == 1
    lab.give("lb1")
    assert [check(), check()] == [0, 0]
    lab.power("lb1", False)
    lab.fault("reset")
    assert [check(), check("unknown=1")] == [0, 1]
    lab.power("lb1", True)


def test_keep_takes_back_what_another_has_but_does_not_quarrel(tmp_path: Path) -> None:
    agent, held = Recorder(), NotOurs(Holder("eni-0000000b"), "EC2")
    one = turns(tmp_path)
    assert one.keep(agent, held, 1.0) is None  # type: ignore[arg-type]
    one.run((10, 1), "MASTER", [agent], NONE)  # type: ignore[list-item]
    agent.done.clear()
    assert one.keep(agent, Ours("EC2"), 1.0) is None  # type: ignore[arg-type]
    assert one.keep(agent, Unknown("silent"), 1.0) is None  # type: ignore[arg-type]
    assert one.keep(agent, held, 1.0) is not None  # type: ignore[arg-type]
    assert one.keep(agent, held, 1.0) is None  # type: ignore[arg-type]  # within the pause
    assert one.keep(agent, NotOurs(), 1.0) is not None  # type: ignore[arg-type]  # nobody has it: no quarrel
    one.run((11, 1), "BACKUP", [agent], NONE)  # type: ignore[list-item]
    assert one.keep(agent, NotOurs(), 1.0) is None  # type: ignore[arg-type]
    assert agent.done == ["start", "start"]


CONF = """
global_defs {{
  router_id {name}
  script_user root
  enable_script_security
  vrrp_version 3
  vrrp_garp_master_delay 0
  {fifo}
}}
vrrp_script haproxy {{
  script "{haptk} check http http://127.0.0.1:8080/ --timeout 4s --contract script"
  interval 1
  timeout 5
  fall 1
  rise 1
}}
vrrp_script address {{
  script "{directory}/run check {address} keep=1"
  interval 2
  timeout 10
}}
vrrp_instance VI_1 {{
  state BACKUP
  interface {link}
  virtual_router_id 51
  priority {priority}
  advert_int 0.3
  unicast_src_ip {own}
  unicast_peer {{ {peer} }}
  virtual_ipaddress {{ 10.97.0.100/32 dev {link} }}
  track_script {{
    haproxy
    address
  }}
  {notify}
}}
"""
# The three ways in which keepalived tells: (in global_defs, in the instance).
NOTIFY = {
    "notify": ("", 'notify "{run} notify {address}"\n'
               '  notify_master_rx_lower_pri "{run} notify {address} master_rx_lower_pri"'),
    "by state": ("", "\n  ".join(
        f'notify_{state} "{{run}} notify {{address}} {state}"'
        for state in ("master", "backup", "fault", "stop", "deleted", "master_rx_lower_pri"))),
    "fifo": ("vrrp_notify_fifo {directory}/fifo\n"
             '  vrrp_notify_fifo_script "{run} fifo {address} instance=VI_1"', ""),
}  # fmt: skip
HAPROXY = """
global
  maxconn 100
defaults
  mode http
  timeout connect 5s
  timeout client 5s
  timeout server 5s
frontend web
  bind 127.0.0.1:8080
  http-request return status 200
"""
HAPTK = Path(sys.executable).with_name("haptk")


class Pair:
    """Two real keepalived, each beside a real haproxy, in network namespaces that share a veth; their notify scripts
    run back on the host's loopback, where the cloud is."""

    def __init__(self, lab: Any, script: Path, scratch: Path, way: str = "notify") -> None:
        self.lab, self.scratch = lab, scratch
        self.tag = f"hk{os.getpid() % 100000}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.directories: dict[str, Path] = {}
        for index, node in enumerate(("lb1", "lb2")):
            directory = self.directories[node] = scratch / node
            directory.mkdir(parents=True)
            settings = directory / "eip.env"
            keep = {key: value for key, value in lab.env(node).items() if key.startswith(("AWS_", "HAPTK_"))}
            settings.write_text("".join(f"{key}={value}\n" for key, value in keep.items()))
            run = directory / "run"
            # keepalived lives in a namespace without a way to the cloud; a node would have one.
            run.write_text(
                f"#!/bin/sh\nexport HAPTK_EIP_ENV={settings} HA_LOGFACILITY=none\n"
                f'exec nsenter --net=/proc/{os.getpid()}/ns/net {script} "$@" 2>>{directory}/notify.log\n'
            )
            run.chmod(0o755)
            (directory / "haproxy.cfg").write_text(HAPROXY)
            fifo, notify = (text.format(run=run, address=lab.ip(), directory=directory) for text in NOTIFY[way])
            (directory / "keepalived.conf").write_text(
                CONF.format(
                    name=node, directory=directory, link=f"{self.tag}{index}", priority=110 - 10 * index,
                    own=f"10.97.0.{index + 1}", peer=f"10.97.0.{2 - index}", address=lab.ip(), haptk=HAPTK, fifo=fifo,
                    notify=notify,
                )
            )  # fmt: skip

    def ip(self, *words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    def up(self) -> None:
        for index in (0, 1):
            self.ip("netns", "add", f"{self.tag}{index}")
        self.ip("link", "add", f"{self.tag}0", "netns", f"{self.tag}0", "type", "veth",
                "peer", "name", f"{self.tag}1", "netns", f"{self.tag}1")  # fmt: skip
        for index in (0, 1):
            self.ip("-n", f"{self.tag}{index}", "addr", "add", f"10.97.0.{index + 1}/24", "dev", f"{self.tag}{index}")
            self.ip("-n", f"{self.tag}{index}", "link", "set", f"{self.tag}{index}", "up")
            self.ip("-n", f"{self.tag}{index}", "link", "set", "lo", "up")
        for index, node in enumerate(("lb1", "lb2")):
            directory = self.directories[node]
            self.haproxy(node)
            self.start(
                index, node, "keepalived", "-n", "-l", "-P", "-D", "-f", str(directory / "keepalived.conf"),
                "-p", str(directory / "ka.pid"), "-r", str(directory / "vrrp.pid"),
            )  # fmt: skip

    def start(self, index: int, node: str, *argv: str) -> None:
        log = (self.directories[node] / f"{argv[0]}.log").open("a")
        self.processes[f"{argv[0]} {node}"] = subprocess.Popen(
            ["ip", "netns", "exec", f"{self.tag}{index}", *argv], stdout=log, stderr=subprocess.STDOUT
        )

    def haproxy(self, node: str) -> None:
        self.start(int(node == "lb2"), node, "haproxy", "-db", "-f", str(self.directories[node] / "haproxy.cfg"))

    def kill_haproxy(self, node: str) -> None:
        process = self.processes.pop(f"haproxy {node}")
        process.kill()
        process.wait()

    def split(self, on: bool) -> None:
        """Neither hears the other, while both links stay up."""
        for index in (0, 1):
            # What is sent to a neighbour's wrong link address arrives nowhere.
            wrong = ["lladdr", "02:00:00:00:00:99", "nud", "permanent"] if on else []
            peer, link = f"10.97.0.{2 - index}", f"{self.tag}{index}"
            self.ip("-n", link, "neigh", "replace" if on else "del", peer, *wrong, "dev", link)

    def down(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for index in (0, 1):
            subprocess.run(["ip", "netns", "del", f"{self.tag}{index}"], capture_output=True)

    def until(self, node: str | None) -> None:
        for _ in range(300):
            if self.lab.holder() == node:
                return
            clock.sleep(0.1)
        logs = "".join(path.read_text()[-3000:] for path in self.scratch.rglob("*.log"))
        raise AssertionError(f"{node} does not hold the address, {self.lab.holder()} does\n{logs}")


@pytest.mark.root
@pytest.mark.real("keepalived", "haproxy", "ip", "nsenter")
@pytest.mark.parametrize("way", ["notify", "by state", "fifo"])
def test_a_real_pair_moves_the_address_and_back(lab: Any, script: Path, way: str) -> None:
    scratch = Path(tempfile.mkdtemp(prefix="haptk-pair-"))
    scratch.chmod(0o755)
    pair = Pair(lab, script, scratch, way)
    try:
        pair.up()
        pair.until("lb1")
        pair.kill_haproxy("lb1")
        pair.until("lb2")
        pair.haproxy("lb1")
        pair.until("lb1")
        if way != "notify":
            return
        # Both masters: neither hears the other; then they meet again and the one with the higher priority keeps it.
        pair.split(True)
        pair.until("lb2")
        pair.split(False)
        pair.until("lb1")
        clock.sleep(1.5)
        assert lab.holder() == "lb1"
    finally:
        pair.down()
        shutil.rmtree(scratch)

"""Connections that last, and reloads under load: two cases of `scripts/bench proxy`.

`longlived`: 10,000 idle and 2,000 active connections at once through each proxy on one core, in TCP mode (`balance source`
and `leastconn`, `stick on src`, `timeout tunnel`, keep-alives) and as WebSockets through HTTP mode: bytes of resident memory
per idle connection, and CPU per message of the active ones, beside the real HAProxy in the same run.

`reload`: wrk on keep-alive and on new connections while the configuration is read again a hundred times in a row, by
SIGUSR2, SIGHUP and `haptk proxy reload` in turn: errors that wrk saw, requests a second, memory, descriptors, processes.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from rigging import Rig, build, cores, cpu_s, free_port, rss_kb, wait_port

IDLE, ACTIVE = 10_000, 2_000
RELOADS = 100
FILE = """global
    maxconn {most}
    nbthread 1
    stats socket {socket} level admin
defaults
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout tunnel 2h
    option clitcpka
    option srvtcpka
listen crowd
    bind 127.0.0.1:{port}
{lines}    server A 127.0.0.1:{a}
    server B 127.0.0.1:{b}
"""
STICK = "    stick-table type ip size 100k expire 1h\n    stick on src\n"
KINDS = {
    "tcp source": "    mode tcp\n    balance source\n" + STICK,
    "tcp leastconn": "    mode tcp\n    balance leastconn\n" + STICK,
    "websocket": "    mode http\n    balance leastconn\n" + STICK,
}


def program(name: str) -> list[str]:
    """How a proxy is started in the foreground, without its file."""
    if name == "haptk":
        return [str(Path(sys.executable).with_name("haptk")), "proxy", "-q", "-f"]
    return [shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin") or "haproxy", "-db", "-q", "-f"]


def descriptors() -> int:
    """The most of them that a process may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def longlived(rig: Rig, rounds: int, seconds: float) -> list[str]:
    """The lines of the case; `rounds` is how often the active ones are measured, alternating between the proxies."""
    crowd = build(rig, "crowd")
    # a proxy has two descriptors for each; where fewer are allowed, fewer connections are made and the line says so
    scale = min(1.0, (descriptors() - 1000) / 2 / (IDLE + ACTIVE))
    idle, active = int(IDLE * scale), int(ACTIVE * scale)
    servers = [free_port(), free_port()]
    for port in servers:
        rig.start([crowd, "serve", str(port)], cores()[1])
        wait_port(port)
    names = [
        name for name in ("haptk", "haproxy") if name == "haptk" or shutil.which("haproxy", path="/usr/sbin:/usr/bin")
    ]
    out = [f"longlived: {idle:,} idle and {active:,} active connections at once, messages of 64 bytes"]
    for kind, lines in KINDS.items():
        out += _kind(rig, kind, lines, names, servers, (idle, active), rounds, seconds)
    return out


def _kind(
    rig: Rig,
    kind: str,
    lines: str,
    names: list[str],
    servers: list[int],
    crowd: tuple[int, int],
    rounds: int,
    seconds: float,
) -> list[str]:
    each: dict[str, float] = {}
    spent: dict[str, list[float]] = {name: [] for name in names}
    told: list[str] = []
    for number in range(rounds):
        for name in names:
            port = free_port()
            file = rig.work / f"{kind.replace(' ', '-')}-{name}.cfg"
            values = {"socket": rig.work / "crowd.sock", "a": servers[0], "b": servers[1], "most": sum(crowd) + 100}
            file.write_text(FILE.format(port=port, lines=lines, **values))
            child = rig.start([*program(name), str(file)], cores()[0])
            wait_port(port)
            memory, us, lost, rate = _run(rig, child.pid, port, kind, crowd, seconds)
            each[name] = min(memory, each.get(name, memory))
            spent[name].append(us)
            if not number or lost:
                told.append(f"{kind} {name}: {rate:,.0f} messages/s, {lost} connections lost")
            child.terminate()
            try:
                child.wait(3)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait(10)
            rig.running.remove(child)
    for name in names:
        told.append(
            f"{kind} {name}: {each[name]:.0f} bytes per idle connection, {statistics.median(spent[name]):.1f} us per message"
        )
    if len(names) == 2:
        cpu = statistics.median(a / b for a, b in zip(spent["haptk"], spent["haproxy"], strict=True))
        told.append(
            f"{kind} haptk/haproxy: memory {each['haptk'] / max(each['haproxy'], 1.0):.2f}, CPU {cpu:.2f} (aims 1.0)"
        )
    return told


def _run(
    rig: Rig, pid: int, port: int, kind: str, crowd: tuple[int, int], seconds: float
) -> tuple[float, float, int, float]:
    """Bytes per idle connection, microseconds of CPU per message, connections lost, messages a second."""
    before = rss_kb(pid)
    words = [str(port), str(crowd[0]), str(crowd[1]), str(seconds), "ws" if kind == "websocket" else "tcp"]
    load = subprocess.Popen(
        ["taskset", "-c", str(cores()[1]), build(rig, "crowd"), "load", *words],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert load.stdin is not None
    assert load.stdout is not None
    refused = int(load.stdout.readline().split()[1])
    time.sleep(2.5)  # what is kept for a moment is given back
    memory = (rss_kb(pid) - before) * 1024 / sum(crowd)
    began, cpu = time.monotonic(), cpu_s(pid)
    load.stdin.write("go\n")
    load.stdin.flush()
    answers, lost = map(int, load.stdout.readline().split())
    us, rate = (cpu_s(pid) - cpu) / max(answers, 1) * 1e6, answers / (time.monotonic() - began)
    load.kill()
    load.wait(10)
    return memory, us, lost + refused, rate


# -- reload -----------------------------------------------------------------------------------------------------------


def figures(pid: int) -> tuple[int, int, int]:
    """Resident kB, threads, descriptors of all threads (each worker has a table of its own)."""
    tasks = list(Path(f"/proc/{pid}/task").iterdir())
    count = 0
    for task in tasks:
        try:
            count += len(list((task / "fd").iterdir()))
        except FileNotFoundError:
            continue  # a worker that has just ended
    return rss_kb(pid), len(tasks), count


def reload(rig: Rig, rounds: int, seconds: float) -> list[str]:
    """The lines of the case."""
    del rounds, seconds
    out = []
    for what, header in (("keep-alive", "X: y"), ("new connections", "Connection: close")):
        port, folder = free_port(), rig.work
        a, b = rig.backends
        file = folder / "reload.cfg"
        lines = "    mode http\n    cookie SRV insert indirect nocache\n"
        file.write_text(FILE.format(most=2000, socket=folder / "reload.sock", port=port, lines=lines, a=a, b=b))
        child = rig.start([*program("haptk"), str(file)], cores()[0])
        wait_port(port)
        out += _reloads(child.pid, port, folder / "reload.sock", what, header)
        child.terminate()
        child.wait(20)
        rig.running.remove(child)
    return out


def _reloads(pid: int, port: int, path: Path, what: str, header: str) -> list[str]:
    wrk = subprocess.Popen(
        ["taskset", "-c", str(cores()[1]), "wrk", "-t1", "-c64", "-d600s", "-H", header, f"http://127.0.0.1:{port}/"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(1)
    before, began = figures(pid), time.monotonic()
    third = before
    for number in range(RELOADS):
        if number % 3 == 2:
            _ask(path, "reload")
        else:
            # the answer to a command comes after the reload that was asked for before it
            os.kill(pid, (signal.SIGUSR2, signal.SIGHUP)[number % 3])
            time.sleep(0.05)
        if number == RELOADS // 3:
            third = figures(pid)
    took = time.monotonic() - began
    deadline = time.monotonic() + 20
    while figures(pid)[1] > before[1] and time.monotonic() < deadline:
        time.sleep(0.05)
    after = figures(pid)
    wrk.send_signal(signal.SIGINT)
    told = wrk.communicate(timeout=60)[0]
    rate = re.search(r"Requests/sec:\s+([\d.]+)", told)
    trouble = [line.strip() for line in told.splitlines() if "errors" in line or "Non-2xx" in line]
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [
        f"reload, {what}: {RELOADS} reloads in {took:.1f} s under {rate[1] if rate else '?'} requests/s: {'; '.join(trouble) or '0 errors'}",
        f"reload, {what}: resident {before[0]:,} kB before, {third[0]:,} after a third, {after[0]:,} at the end; "
        f"threads {before[1]} -> {after[1]}, descriptors {before[2]} -> {after[2]}, {1 + len(children)} process",
    ]


def _ask(path: Path, command: str) -> str:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(str(path))
        sock.sendall(command.encode() + b"\n")
        out = b""
        while part := sock.recv(65536):
            out += part
    return out.decode()

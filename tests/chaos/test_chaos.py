"""Random clients, servers and operators at once: no crash, no leak, no wrong answer, and every counter adds up.

HAPTK_CHAOS_S is how long (14 s without, two minutes with CI=true, `scripts/soak` runs 30), HAPTK_CHAOS_SEED what to repeat; the seed is printed.
"""

from __future__ import annotations

import contextlib
import csv
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.chaos import checker
from tests.chaos.faults import Client, Nemesis, Server, Story
from tests.ports import free_ports
from tests.proxy.test_runtime_real import ask, wait_for

SECONDS = float(os.environ.get("HAPTK_CHAOS_S", "120" if os.environ.get("CI") == "true" else "14"))
CLIENTS = 12
CONFIG = """global
    nbthread 2
    stats socket {folder}/admin level admin
    stats maxconn 20
    log stdout format raw local0
defaults
    mode http
    log global
    option httplog
    timeout connect 500ms
    timeout client 2s
    timeout server 1500ms
    timeout http-request 2s
    timeout queue 500ms
listen web
    bind 127.0.0.1:{web}
    maxconn 200
    cookie SRV insert indirect nocache
    http-request set-header X-Seen yes if {{ path_beg /c1 }}
    server s1 127.0.0.1:{s1} cookie s1
    server s2 127.0.0.1:{s2} cookie s2
    server s3 127.0.0.1:{s3} cookie s3
listen st
    bind 127.0.0.1:{st}
    stats enable
    stats uri /stats
    http-request use-service prometheus-exporter if {{ path /metrics }}
listen raw
    mode tcp
    option tcplog
    bind 127.0.0.1:{raw}
    balance leastconn
    stick-table type ip size 1k expire 2s
    stick on src
    server s1 127.0.0.1:{s1}
    server s2 127.0.0.1:{s2}
"""


def table(folder: Path) -> checker.Rows:
    rows = csv.DictReader(ask(folder / "admin", "show stat").removeprefix("# ").strip().splitlines())
    return {(row["pxname"], row["svname"]): row for row in rows}


def figures(pid: int) -> tuple[int, int, int]:
    """Resident kB, threads, descriptors of all threads."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    assert found
    tasks = list(Path(f"/proc/{pid}/task").iterdir())
    open_now = 0
    for task in tasks:
        with contextlib.suppress(FileNotFoundError):  # a thread that has just ended
            open_now += len(list((task / "fd").iterdir()))
    return int(found[1]), len(tasks), open_now


def start(folder: Path, ports: dict[str, int], clock: Path) -> subprocess.Popen[bytes]:
    """haptk with its log on a full disk and a clock that can be stepped."""
    config = folder / "x.cfg"
    config.write_text(CONFIG.format(folder=folder, **ports))
    env = dict(os.environ)
    shim = folder / "step.so"
    command = ["gcc", "-shared", "-fPIC", "-O1", "-o", str(shim), str(Path(__file__).parent / "step.c")]
    if shutil.which("gcc") and subprocess.run(command, check=False).returncode == 0:
        clock.write_bytes(bytes(8))
        env |= {"LD_PRELOAD": str(shim), "HAPTK_STEP_FILE": str(clock)}
    with Path("/dev/full").open("wb") as full, (folder / "err").open("wb") as errors:
        argv = [sys.executable, "-m", "haptk", "proxy", "-f", str(config)]
        return subprocess.Popen(argv, stdout=full, stderr=errors, env=env)


@pytest.mark.timeout(2 * SECONDS + 240)
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux")
def test_chaos(tmp_path: Path) -> None:
    seed = int(os.environ.get("HAPTK_CHAOS_SEED", "0")) or random.randrange(1, 1 << 30)
    print(f"HAPTK_CHAOS_SEED={seed}")  # what failed can be begun again with the same dice
    story = Story()
    servers = [Server(f"s{number}", seed + number, story) for number in (1, 2, 3)]
    web, st, raw = free_ports(3)
    ports = {"web": web, "st": st, "raw": raw, **{server.name: server.port for server in servers}}
    clock = tmp_path / "clock"
    child = start(tmp_path, ports, clock)
    ending = threading.Event()
    clients: list[Client] = []
    try:
        wait_for(lambda: "web" in ask(tmp_path / "admin", "show backend"), "it answers")
        nemesis = Nemesis(
            seed, child.pid, lambda text: ask(tmp_path / "admin", text), tmp_path / "x.cfg",
            clock if clock.exists() else None, story,
        )  # fmt: skip
        clients = [Client(number, seed * 100 + number, ports, story, ending) for number in range(CLIENTS)]
        memory: list[int] = []
        began = time.monotonic()
        while (now := time.monotonic() - began) < SECONDS:
            time.sleep(0.05 + nemesis.dice.random() * 0.2)
            assert child.poll() is None, (tmp_path / "err").read_text()[-3000:]
            nemesis.act(reloads=now < SECONDS / 2)
            if now > SECONDS / 3:
                memory.append(figures(child.pid)[0])
            if len(story.exchanges) > 200_000:  # hours of it need not be kept
                assert not checker.answers(story)
                with story.lock:
                    story.exchanges.clear()
                    story.out = [span for span in story.out if not span[2]]
        ending.set()
        for client in clients:
            client.thread.join(30)
        finish(tmp_path, child, story, nemesis, memory)
    finally:
        ending.set()
        child.kill()
        child.wait(10)
        for server in servers:
            server.close()


def finish(folder: Path, child: subprocess.Popen[bytes], story: Story, nemesis: Nemesis, memory: list[int]) -> None:
    """The verdict, once nothing moves any more."""
    wait_for(lambda: not any(checker_open(row) for row in table(folder).values()), f"at rest: {open_rows(folder)}")
    wait_for(lambda: figures(child.pid)[1] <= 14, f"threads of old engines end: {figures(child.pid)}")
    assert not checker.answers(story), checker.answers(story)[:5]
    rows = table(folder)
    assert not checker.counters(rows), checker.counters(rows)
    after = figures(child.pid)
    assert after[0] < 1.3 * max(memory[: len(memory) // 4 + 1]) + 8000, (memory, after)
    assert after[2] < 400, after
    assert "Traceback" not in (folder / "err").read_text()
    print(dict(sorted(story.counts.items())), "reloads", nemesis.reloads)
    quarter = len(memory) // 4 + 1
    steady = (max(memory[:quarter]), max(memory[-quarter:]), after[0])
    print(f"resident kB, most of the first and last quarter and at rest: {steady}; threads, descriptors {after[1:]}")
    print("\n".join(f"{where[0]}/{where[1]}: {summary(row)}" for where, row in rows.items() if row["mode"] == "http"))
    wanted = {f"nemesis {name}" for name in (*nemesis.acts, "reload", "bad_reload")} | {"status 101", "lines echoed"}
    wanted |= {f"client {way}" for way in Client.WAYS} | {f"server {way}" for way in Server.MISCHIEF}
    missing = wanted - set(story.counts)
    assert not missing, f"never happened: {sorted(missing)}"
    assert story.seen > 10 * SECONDS
    child.terminate()
    assert child.wait(20) == 0


def summary(row: dict[str, str]) -> str:
    """The counters that have to add up."""
    return " ".join(
        f"{name}={row[name]}" for name in ("req_tot", *checker.CLASSES, "ereq", "econ", "eresp") if row[name]
    )


def checker_open(row: dict[str, str]) -> bool:
    return row["scur"] not in ("", "0")


def open_rows(folder: Path) -> list[str]:
    return [f"{key}: {row['scur']}" for key, row in table(folder).items() if checker_open(row)]

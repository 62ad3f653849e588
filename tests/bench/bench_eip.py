"""The address agent side by side with awseip and the aws CLI, in one run against the lab's cloud over HTTP.

Wall and CPU time are the least of the rounds (the noise of a machine only adds). Rows that ask nothing of a peer stand
alone. `--rounds N` (default 15), `--json`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
AWSEIP = Path("/usr/lib/ocf/resource.d/heartbeat/awseip")
BIN = Path(sys.executable).parent
Row = dict[str, Any]


def load(path: Path, name: str) -> Any:
    """A test module by its path: pytest imports them so, and a benchmark needs the same region and the same shim."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def region() -> Iterator[Any]:
    """The cloud, the fault switch and two metadata services, as the tests have them."""
    conftest = load(HERE.parent / "eip" / "conftest.py", "bench_eip_region")

    class Scratch:
        def mktemp(self, name: str) -> Path:
            return Path(tempfile.mkdtemp(prefix=f"haptk-bench-{name}-"))

    made = conftest.make_region(Scratch())
    try:
        yield next(made)
    finally:
        made.close()


def cost(argv: list[str], env: dict[str, str], rounds: int, before: Callable[[], object] = lambda: None) -> Row:
    """Least wall and CPU milliseconds of a command over the rounds; `before` runs untimed."""
    wall, cpu, code = 1e9, 1e9, 0
    for _ in range(rounds):
        before()
        first = resource.getrusage(resource.RUSAGE_CHILDREN)
        begun = time.perf_counter()
        code = subprocess.run(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
        wall = min(wall, time.perf_counter() - begun)
        last = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = min(cpu, last.ru_utime + last.ru_stime - first.ru_utime - first.ru_stime)
    return {"wall_ms": round(wall * 1000, 1), "cpu_ms": round(cpu * 1000, 1), "exit": code}


def side_by_side(commands: dict[str, list[str]], env: dict[str, str], rounds: int) -> dict[str, Row]:
    """As `cost` for each command, one round of each in turn, with its CPU time as a share of the last one's.

    On a machine that others use, as well, only the shares mean something.
    """
    found: dict[str, Row] = {}
    for _ in range(rounds):
        for name, argv in commands.items():
            row = cost(argv, env, 1)
            best = found.setdefault(name, row)
            best |= {key: min(best[key], row[key]) for key in ("wall_ms", "cpu_ms")}
    whole = list(found.values())[-1]["cpu_ms"]
    for row in found.values():
        row["cpu_share"] = round(row["cpu_ms"] / whole, 3)
    return found


def moved_after(lab: Any, argv: list[str], env: dict[str, str], rounds: int) -> Row:
    """Least time until the cloud shows the address moved, and until the command returned, in milliseconds."""
    moved, returned = 1e9, 1e9
    for _ in range(rounds):
        lab.give("lb2")
        version = lab.version()
        begun = time.monotonic()
        process = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        change = lab.wait_change(version)
        process.wait()
        returned = min(returned, time.monotonic() - begun)
        moved = min(moved, change - begun)
        assert lab.holder() == "lb1", argv
    return {"moved_ms": round(moved * 1000, 1), "wall_ms": round(returned * 1000, 1)}


WARM = """
import os, resource, statistics, sys, time
from haptk.aws.client import Access, Clients
from haptk.eip.agent import Agent
clients = Clients(Access())
agent = Agent(sys.argv[1], clients=clients)
agent.warm()
sent = []
for client in clients._clients.values():
    client.meta.events.register("before-send.ec2.AssociateAddress", lambda **_: sent.append(time.perf_counter()) or None)
took = []
for _ in range(int(sys.argv[2])):
    assert agent.stop().ok
    time.sleep(0.05)
    sent.clear()
    begun = time.perf_counter()
    assert agent.start().ok
    took.append((sent[0] - begun) * 1000)
rss = [line for line in open("/proc/self/status") if line.startswith("VmRSS")][0].split()[1]
print(min(took), statistics.median(took), int(rss) / 1024)
"""
STOCK = """
import boto3
client = boto3.client("ec2")
client.describe_addresses()
rss = [line for line in open("/proc/self/status") if line.startswith("VmRSS")][0].split()[1]
print(int(rss) / 1024)
"""


def daemon(lab: Any, env: dict[str, str], rounds: int) -> Row:
    """What a long-lived process costs: decision to request on the wire, and its memory beside a stock client."""
    out = subprocess.run([sys.executable, "-c", WARM, lab.ip(), str(rounds)], env=env, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    least, median, rss = (float(word) for word in out.stdout.split())
    stock = subprocess.run([sys.executable, "-c", STOCK], env=env, capture_output=True, text=True, check=True)
    return {
        "on_wire_ms": round(least, 2),
        "on_wire_median_ms": round(median, 2),
        "rss_mib": round(rss, 1),
        "stock_rss_mib": round(float(stock.stdout), 1),
    }


def measure(rounds: int) -> dict[str, Row]:
    """name -> figures."""
    from haptk.eip.install import PLACES, Installer

    peers = load(HERE.parent / "eip" / "test_eip_peers.py", "bench_eip_peers")
    found: dict[str, Row] = {}
    with region() as lab, tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "root"
        Installer(root).install(["ocf"])
        ocf = root / PLACES["ocf"][0]
        have_peer = AWSEIP.exists() and shutil.which("curl") is not None
        pair = peers.Both(lab, "lb1", "web", Path(scratch), ocf)
        pair.env["OCF_RESKEY_api_delay"] = "3"  # the peer's default
        env, ours = pair.env, [str(ocf)]
        lab.give("lb1")
        cost([*ours, "monitor"], env, 2)
        found["monitor, metadata hit: haptk"] = cost([*ours, "monitor"], env, rounds)
        found["meta-data: haptk"] = cost([*ours, "meta-data"], env, rounds)
        if have_peer:
            found["monitor: awseip"] = cost([str(AWSEIP), "monitor"], env, max(3, rounds // 3))
            found["meta-data: awseip"] = cost([str(AWSEIP), "meta-data"], env, rounds)
        lab.free()
        lab.settle()
        status = [str(BIN / "haptk"), "eip", "status", lab.ip()]
        describe = [str(BIN / "aws"), "ec2", "describe-addresses", "--allocation-ids", lab.allocation()]
        asking = {"haptk eip status": status, "haptk OCF monitor": [*ours, "monitor"], "aws CLI": describe}
        rows = side_by_side(asking, env, rounds)
        found |= {f"status that asks the API: {name}": row for name, row in rows.items()}
        found["takeover, cold: haptk"] = moved_after(lab, [*ours, "start"], env, max(3, rounds // 3))
        if have_peer:
            found["takeover, cold: awseip"] = moved_after(lab, [str(AWSEIP), "start"], env, 2)
        found["daemon, warm: haptk"] = daemon(lab, env, rounds)
        lab.power("lb1", False)
        lab.fault("hang")
        found["monitor, API and metadata hang: haptk"] = cost([*ours, "monitor"], env, 1)
        found["start, API hangs, CRM timeout 10 s: haptk"] = cost(
            [*ours, "start"], {**env, "OCF_RESKEY_CRM_meta_timeout": "10000"}, 1
        )
    return found


def main(argv: list[str]) -> int:
    rounds = int(argv[argv.index("--rounds") + 1]) if "--rounds" in argv else 15
    found = measure(rounds)
    if "--json" in argv:
        print(json.dumps(found, indent=2))
        return 0
    width = max(map(len, found))
    for name, row in found.items():
        print(f"{name:<{width}}  " + "  ".join(f"{key} {value}" for key, value in row.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Replicated tables: how fast a fresh process learns a million entries, how many learned sessions a second go over, and
what an entry costs in memory, haptk beside the real HAProxy.

    scripts/bench peers [--entries N] [--seconds S]

This process is the peer that knows everything (the compiled table and codec, as `haptk proxy` uses them); the other side
is a `haptk proxy` or a `haproxy` on the same file. Figures to reach: 1,000,000 entries in under 10 s, 20,000 learned
sessions a second on one core, memory per entry at most HAProxy's.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from haptk._fast.table import Table
from haptk.core.peers import wire
from haptk.core.peers.session import Shared
from haptk.proxy.peering import Peering
from haptk.proxy.tables import Peers

LENGTH = 32
CONFIG = """global
    stats socket {work}/sock level admin
peers tier
    peer here 127.0.0.1:{here}
    peer there 127.0.0.1:{there}
defaults
    mode http
    timeout connect 1s
    timeout client 5s
    timeout server 5s
listen web
    bind 127.0.0.1:{port}
    stick-table type string len {length} size {size} expire 8h peers tier
    stick match req.cook(JSESSIONID)
    stick store-response res.cook(JSESSIONID)
    server s0 127.0.0.1:9
    server s1 127.0.0.1:9
"""


def free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(listener.getsockname()[1]) for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def ask(work: Path, command: str) -> str:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(str(work / "sock"))
        sock.sendall(command.encode() + b"\n")
        out = b""
        while part := sock.recv(65536):
            out += part
    return out.decode()


def used(work: Path) -> int:
    try:
        return int(ask(work, "show table").rsplit("used:", 1)[1].split()[0])
    except (OSError, IndexError):
        return -1


def rss(pid: int) -> int:
    return (
        int(next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmRSS")).split()[1])
        * 1024
    )


def cpu_s(pid: int) -> float:
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()) / 1e9


def measure(kind: str, entries: int, seconds: float) -> list[str]:
    """The lines of one kind of other side."""
    here, there, port = free_ports(3)
    table = Table("web", "string", LENGTH, entries * 2, 8 * 3600.0)
    for number in range(entries):
        table.learn(b"%032x" % number, 1 + number % 2, b"s%d" % (number % 2))
    section = Peers("tier", (("here", "127.0.0.1", here), ("there", "127.0.0.1", there)), "here")
    peering = Peering(section, "here", [Shared("web", table, wire.KEY_TYPES["string"], LENGTH + 1, 1)])
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "x.cfg").write_text(
            CONFIG.format(work=work, here=here, there=there, port=port, length=LENGTH, size=entries * 2)
        )
        own = [str(Path(sys.executable).with_name("haptk")), "proxy", "-q"]
        argv = own if kind == "haptk" else ["haproxy", "-db", "-q"]
        child = subprocess.Popen([*argv, "-f", str(work / "x.cfg"), "-L", "there"], stderr=subprocess.DEVNULL)
        try:
            while used(work) < 0:
                time.sleep(0.02)
            empty, before = rss(child.pid), cpu_s(child.pid)
            peering.start()
            began = None
            deadline = time.monotonic() + 120
            while (now := used(work)) < entries and time.monotonic() < deadline:
                if now > 0 and began is None:
                    began = time.monotonic()
                time.sleep(0.02)
            took = time.monotonic() - (began or time.monotonic())
            lines = [
                f"{kind}: {now:,} entries in {took:.2f} s from the first one on, {cpu_s(child.pid) - before:.2f} s of CPU there",
                f"{kind}: {(rss(child.pid) - empty) / entries:.0f} bytes per entry (len {LENGTH})",
            ]
            before, mine = cpu_s(child.pid), cpu_s(os.getpid())
            number, until, began = 0, time.monotonic() + seconds, time.monotonic()
            while time.monotonic() < until:
                for _ in range(100):
                    table.learn(b"new%029x" % number, 1, b"s1")
                    number += 1
                time.sleep(max(0.0, number / 40_000 - (time.monotonic() - began)))
            while used(work) < entries + number and time.monotonic() < until + 60:
                time.sleep(0.005)
            took = time.monotonic() - began
            lines.append(
                f"{kind}: {number / took:,.0f} learned sessions/s replicated; CPU per session {(cpu_s(child.pid) - before) / number * 1e6:.1f} us "
                f"there, {(cpu_s(os.getpid()) - mine) / number * 1e6:.1f} us here (with making them)"
            )
            gaps = []
            for turn in range(20):
                table.learn(b"probe%d" % turn, 1, b"s1")
                began = time.monotonic()
                while f"key=probe{turn} " not in ask(work, f"show table web key probe{turn}"):
                    pass
                gaps.append(time.monotonic() - began)
                time.sleep(0.05)
            gaps.sort()
            lines.append(
                f"{kind}: a learned session is there after {gaps[10] * 1000:.1f} ms (median), {gaps[-1] * 1000:.1f} ms (worst of 20)"
            )
            return lines
        finally:
            child.kill()
            child.wait()
            peering.stop()


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench peers", description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=3.0)
    chosen = parser.parse_args()
    for kind in ("haptk", *(["haproxy"] if shutil.which("haproxy") else [])):
        print("\n".join(measure(kind, chosen.entries, chosen.seconds)), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

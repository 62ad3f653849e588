"""What log lines cost: CPU per request with logs to each kind of place, for haptk and HAProxy, beside the same without.

Two ratios are printed for each place: with logs to without (of the same program), and haptk to HAProxy (both with logs).
A round runs every program and place once; ratios are taken within a round, and their median is printed.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PLACES = ("none", "udp", "unix", "file", "ring")
AIM = 1.05


def _target(place: str, work: Path, port: int) -> tuple[str, list[str]]:
    """The `log` line's address, and the program that reads it."""
    if place == "udp":
        return f"127.0.0.1:{port}", ["socat", "-u", "-b", "65536", f"UDP-RECV:{port},bind=127.0.0.1", "OPEN:/dev/null"]
    if place == "unix":
        path = work / f"log-{port}"
        return str(path), ["socat", "-u", "-b", "65536", f"UNIX-RECV:{path}", "OPEN:/dev/null"]
    return ("stdout", []) if place == "file" else ("ring@kept", [])


def _start(bench: Any, rig: Any, peer: str, place: str) -> tuple[subprocess.Popen[bytes], int]:
    port = bench.free_port()
    text = Path(bench.haproxy_cfg(rig, port, "http")).read_text()
    if place != "none":
        address, reader = _target(place, rig.work, bench.free_port())
        text = text.replace("listen bench\n", f"listen bench\n    option httplog\n    log {address} local0\n", 1)
        if place == "ring":
            text += "ring kept\n    size 1048576\n"
        if reader:
            rig.start(reader, bench.cores()[1])
            time.sleep(0.3)
    file = rig.work / f"logs-{peer}-{place}.cfg"
    file.write_text(text)
    haptk = [str(Path(sys.executable).with_name("haptk")), "proxy", "-db"]
    argv = (
        haptk if peer == "haptk" else [str(shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin")), "-db"]
    )
    with (rig.work / f"logs-{peer}-{place}.out").open("wb") as out:
        child = subprocess.Popen(
            ["taskset", "-c", str(bench.cores()[0]), *argv, "-f", str(file)],
            stdout=out if place == "file" else subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    rig.running.append(child)
    bench.wait_port(port)
    return child, port


def logs(bench: Any, rig: Any, rounds: int, seconds: float) -> list[str]:
    """The rows to print. `bench` is the module bench_proxy."""
    peers = ("haptk", "haproxy") if shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin") else ("haptk",)
    if not shutil.which("socat"):
        return ["logs: socat is not installed"]
    live = {(peer, place): _start(bench, rig, peer, place) for place in PLACES for peer in peers}
    found: dict[tuple[str, str], list[float]] = {key: [] for key in live}
    for _, port in live.values():
        bench.load(bench.CASES["keep64"], port, 1)
    for _ in range(rounds):
        for key, (child, port) in live.items():
            before = bench.cpu_s(child.pid)
            done = bench.load(bench.CASES["keep64"], port, seconds)["requests"]
            found[key].append((bench.cpu_s(child.pid) - before) / max(done, 1.0) * 1e6)
    out = []
    for place in PLACES:
        words = []
        for peer in peers:
            own = found[peer, place]
            words.append(f"{peer} {statistics.median(own):.1f} us")
            if place != "none":
                ratio = statistics.median(a / b for a, b in zip(own, found[peer, "none"], strict=True))
                words[-1] += f" ({ratio:.3f} of none{f', aim {AIM}' if peer == 'haptk' else ''})"
        if len(peers) == 2:
            pairs = zip(found["haptk", place], found["haproxy", place], strict=True)
            words.append(f"ratio {statistics.median(a / b for a, b in pairs):.2f}")
        out.append(f"logs {place}: " + ", ".join(words))
    return out

"""haptk's proxy against HAProxy, nginx and a bare C relay: the same file, the same backends, interleaved rounds.

The proxy under test is alone on core 0 (of those we may use); the backends (nginx) and the load (wrk) share the last
core. What is compared is the CPU time that the proxy's process spends per request, from /proc/PID/task/*/schedstat:
it does not depend on how fast the load is, and little on what else the machine does. Each round runs every proxy
once; the ratio is taken within the round, and the median of the ratios is printed.

    scripts/bench proxy [--rounds N] [--seconds S] [--cases keep64,close,...] [--peers haproxy,nginx,relay] [--json]
                        [--html FILE]

Besides the cases by CPU there are `latency` (p50 and p99 at half of the highest rate that HAProxy reached just before,
from a load that sends on time whether or not answers come) and `idle` (resident memory at start and for each of many
connections that wait between two requests). `watched` compares haptk with itself: with a statistics page, metrics and
`show stat` asked for every five seconds, and with `option httplog` over UDP besides. `logs` says what log lines cost haptk
and HAProxy, by the place they go to. `longlived` holds thousands of idle TCP and WebSocket connections with some that talk
among them, and `reload` reloads a hundred times in a row under wrk: see lasting.py.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

from rigging import Rig, build, cores, cpu_s, free_port, rss_kb, wait_port

BODY = "x" * 73
SPECIAL = ("latency", "idle", "watched", "logs", "longlived", "reload")
AIMS = {
    "keep64": 0.75,
    "keep256": 0.70,
    "keep1000": 0.70,
    "close": 0.85,
    "body1m": 1.0,
    "tcp": 1.0,
    "threads2": 0.80,
    "threads4": 0.80,
    "close2": 0.85,
    "close4": 0.85,
    "relay": 1.15,
    "prefix": 1.10,
}


LEARNED = """    stick-table type string len 64 size 100k expire 30m
    stick match req.cook(JSESSIONID)
    stick store-response res.cook(JSESSIONID)
"""
# What many a file has: a few conditions on path, headers and source, and edits of both heads.
RULES = """    acl static path_end .png .css .js
    acl internal src 10.0.0.0/8 192.168.0.0/16
    acl old hdr_sub(User-Agent) -i msie
    acl login path_reg ^/(login|signin)/
    http-request deny if { path_beg /admin } !internal
    http-request redirect location /upgrade if old
    http-request set-header X-Forwarded-Proto http
    http-request set-header X-Real-Ip %[src]
    http-request set-path /%[path] if login
    http-request del-header X-Debug unless internal
    http-response set-header X-Frame-Options DENY unless { status 304 }
    http-response del-header Server
"""


@dataclass(frozen=True)
class Case:
    """One kind of load: wrk's arguments, and what one unit of work is."""

    name: str
    connections: int
    path: str = "/"
    headers: tuple[str, ...] = ("Cookie: JSESSIONID=A~0123456789abcdef; theme=dark",)
    mode: str = "http"
    unit: str = "request"
    threads: int = 1  # nbthread of both; with several they run on all cores, beside the load


CASES = {
    case.name: case
    for case in (
        Case("keep64", 64),
        Case("keep256", 256),
        Case("keep1000", 1000),
        Case("close", 64, headers=("Cookie: JSESSIONID=A~0123456789abcdef", "Connection: close")),
        Case("body1m", 16, path="/mega", unit="MB"),
        Case("tcp", 64, mode="tcp", unit="message"),
        Case("threads2", 64, threads=2),
        Case("threads4", 64, threads=4),
        Case("close2", 64, headers=("Cookie: JSESSIONID=A~0123456789abcdef", "Connection: close"), threads=2),
        Case("close4", 64, headers=("Cookie: JSESSIONID=A~0123456789abcdef", "Connection: close"), threads=4),
        Case("learned", 64, headers=("Cookie: JSESSIONID=0123456789abcdef; theme=dark",), mode="learned"),
        Case("rules", 64, path="/app/page?x=1", mode="rules"),
    )
}


def nginx_backend(rig: Rig) -> str:
    a, b = rig.backends
    (rig.work / "mega").write_bytes(b"m" * 1_000_000)
    path = rig.work / "backend.conf"
    path.write_text(
        f"""daemon off; worker_processes 1; pid {rig.work}/backend.pid; error_log /dev/null;
worker_rlimit_nofile 20000;
events {{ worker_connections 10000; }}
http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 600;
server {{ listen 127.0.0.1:{a} backlog=8192; listen 127.0.0.1:{b} backlog=8192;
location / {{ add_header Set-Cookie "JSESSIONID=0123456789abcdef; Path=/"; return 200 "{BODY}"; }}
location /mega {{ root {rig.work}; }} }} }}
"""
    )
    return str(path)


def haproxy_cfg(rig: Rig, port: int, mode: str, threads: int = 1) -> str:
    a, b = rig.backends
    path = rig.work / f"{mode}-{port}.cfg"
    sticky = LEARNED if mode == "learned" else "    cookie JSESSIONID prefix\n"
    http = f"    option http-keep-alive\n{sticky}    option forwardfor\n"
    http += RULES if mode == "rules" else ""
    cookies = ("cookie A", "cookie B") if mode in ("http", "rules") else ("", "")
    path.write_text(
        f"""global
    maxconn 9000
    nbthread {threads}
defaults
    mode {"tcp" if mode == "tcp" else "http"}
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen bench
    bind 127.0.0.1:{port}
    balance roundrobin
{http if mode != "tcp" else ""}    server A 127.0.0.1:{a} {cookies[0]}
    server B 127.0.0.1:{b} {cookies[1]}
"""
    )
    return str(path)


def nginx_proxy(rig: Rig, port: int) -> str:
    a, b = rig.backends
    path = rig.work / "proxy.conf"
    path.write_text(
        f"""daemon off; worker_processes 1; pid {rig.work}/proxy.pid; error_log /dev/null;
worker_rlimit_nofile 20000;
events {{ worker_connections 20000; }}
http {{ access_log off; keepalive_requests 1000000000;
upstream farm {{ server 127.0.0.1:{a}; server 127.0.0.1:{b}; keepalive 512; keepalive_requests 1000000000; }}
server {{ listen 127.0.0.1:{port} backlog=8192;
location / {{ proxy_pass http://farm; proxy_http_version 1.1; proxy_set_header Connection "";
proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }} }} }}
"""
    )
    return str(path)


def start_peer(rig: Rig, peer: str, mode: str, threads: int = 1) -> tuple[subprocess.Popen[bytes], int] | None:
    """Start one proxy; None when it cannot do this mode."""
    port = free_port()
    own = str(Path(sys.executable).with_name("haptk"))
    if peer == "before":
        own, peer = os.environ["HAPTK_BEFORE"], "haptk"  # the program of another build: --peers before
    if peer == "prefix":
        peer, mode = "haptk", "http"  # our own prefix mode, for the learned table to compare with
    if peer == "haptk":
        argv = [own, "proxy", "-q", "-f", haproxy_cfg(rig, port, mode, threads)]
    elif peer.startswith("haproxy"):
        program = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin")
        if not program:
            return None
        argv = [program, "-db", "-q", "-f", haproxy_cfg(rig, port, mode, threads)]
    elif mode != "http" or threads > 1:
        return None
    elif peer == "nginx":
        argv = ["nginx", "-c", nginx_proxy(rig, port)]
    else:
        argv = [build(rig, "relay"), str(port), str(rig.backends[0])]
    child = rig.start(argv, cores()[0] if threads == 1 else ",".join(map(str, sorted(os.sched_getaffinity(0)))))
    wait_port(port)
    return child, port


def load(case: Case, port: int, seconds: float) -> dict[str, float]:
    """One wrk run; requests and bytes done, errors seen."""
    argv = ["taskset", "-c", str(cores()[1]), "wrk", "-t1", f"-c{case.connections}", f"-d{max(1, round(seconds))}s"]
    argv += ["--latency", *(word for header in case.headers for word in ("-H", header))]
    argv.append(f"http://127.0.0.1:{port}{case.path}")
    out = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    done = re.search(r"(\d+) requests in", out)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    return {
        "requests": float(done[1]) if done else 0.0,
        "errors": float(sum(map(int, errors.groups())) if errors else 0) + (float(wrong[1]) if wrong else 0.0),
    }


def measure(rig: Rig, case: Case, peers: list[str], rounds: int, seconds: float) -> dict[str, list[dict[str, float]]]:
    """peer -> one row per round: CPU microseconds per unit, units per second, errors."""
    live = {peer: started for peer in peers if (started := start_peer(rig, peer, case.mode, case.threads))}
    rows: dict[str, list[dict[str, float]]] = {peer: [] for peer in live}
    for _, port in live.values():
        load(case, port, 1)
    for _ in range(rounds):
        for peer, (child, port) in live.items():
            before, began = cpu_s(child.pid), time.monotonic()
            got = load(replace(case, headers=CASES["keep64"].headers) if peer == "prefix" else case, port, seconds)
            spent, took = cpu_s(child.pid) - before, time.monotonic() - began
            units = max(got["requests"], 1.0)
            rows[peer].append({"us": spent / units * 1e6, "rate": units / took, "errors": got["errors"]})
    for child, _ in live.values():
        child.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(3)
        child.kill()
        rig.running.remove(child)
    return rows


def paced(program: str, port: int, rate: int, seconds: float) -> tuple[float, float]:
    """p50 and p99 in microseconds."""
    argv = ["taskset", "-c", str(cores()[1]), program, str(port), "64", str(rate), str(seconds)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    return float(done[1]), float(done[2])


def latency(rig: Rig, rounds: int, seconds: float) -> list[str]:
    """Both proxies at half of HAProxy's highest rate, interleaved; medians of the ratios."""
    program = build(rig, "pace")
    live = {peer: started for peer in ("haptk", "haproxy") if (started := start_peer(rig, peer, "http"))}
    if len(live) < 2:
        return ["latency: haproxy is not installed"]
    half = int(load(CASES["keep64"], live["haproxy"][1], 2)["requests"] / 2 / 2)
    rows: dict[str, list[tuple[float, float]]] = {peer: [] for peer in live}
    for _ in range(rounds):
        for peer, (_, port) in live.items():
            rows[peer].append(paced(program, port, half, seconds))
    out = []
    for index, name in enumerate(("p50", "p99")):
        own, other = ([row[index] for row in rows[peer]] for peer in ("haptk", "haproxy"))
        ratio = statistics.median(a / b for a, b in zip(own, other, strict=True))
        out.append(
            f"latency {name} at {half}/s: haptk {statistics.median(own):.0f} us, "
            f"haproxy {statistics.median(other):.0f} us, ratio {ratio:.2f} (aim 1.0)"
        )
    return out


def idle(rig: Rig) -> list[str]:
    """Resident memory at start, and per connection that has had one answer and waits for the next request."""
    count = min(10000, resource.getrlimit(resource.RLIMIT_NOFILE)[1] // 2 - 500, 8500)
    request = b"GET / HTTP/1.1\r\nHost: a\r\nCookie: JSESSIONID=A~0123456789abcdef\r\n\r\n"
    each: dict[str, float] = {}
    out = []
    for peer in ("haptk", "haproxy"):
        started = start_peer(rig, peer, "http")
        if started is None:
            continue
        child, port = started
        before = rss_kb(child.pid)
        socks = []
        for _ in range(count):
            sock = socket.create_connection(("127.0.0.1", port), 5)
            sock.sendall(request)
            sock.recv(4096)
            socks.append(sock)
        time.sleep(0.5)
        each[peer] = (rss_kb(child.pid) - before) * 1024 / count
        out.append(
            f"idle {peer}: {before / 1024:.1f} MB at start, {each[peer]:.0f} bytes per idle connection ({count})"
        )
        for sock in socks:
            sock.close()
    if len(each) == 2:
        out.append(f"idle ratio {each['haptk'] / each['haproxy']:.2f} (aim 1.0; at start 40 MB)")
    return out


class Watcher:
    """Asks for the page, the metrics and `show stat` every five seconds, and reads log lines away, until `close`."""

    def __init__(self, port: int, path: Path) -> None:
        self.port, self.path = port, path
        self.ending = threading.Event()
        self.log = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.log.bind(("127.0.0.1", 0))
        self.log.settimeout(0.2)
        self.lines = 0
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self._look, self._read)]

    def start(self) -> None:
        for thread in self.threads:
            thread.start()

    def _look(self) -> None:
        while not self.ending.wait(5.0):  # three times as often as a Prometheus by default
            for what in ("/stats", "/metrics"):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5) as sock:
                    sock.sendall(f"GET {what} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
                    while sock.recv(65536):
                        pass
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(self.path))
                sock.sendall(b"show stat\n")
                while sock.recv(65536):
                    pass

    def _read(self) -> None:
        while not self.ending.is_set():
            with contextlib.suppress(OSError):
                self.log.recv(65536)
                self.lines += 1

    def close(self) -> None:
        self.ending.set()
        for thread in self.threads:
            thread.join(5)
        self.log.close()


def watched(rig: Rig, rounds: int, seconds: float) -> list[str]:
    """CPU per request with eyes on it, as a ratio of the same without; interleaved, medians."""
    program = str(Path(sys.executable).with_name("haptk"))
    live: dict[str, tuple[subprocess.Popen[bytes], int]] = {}
    watchers: list[Watcher] = []
    for kind in ("plain", "stats", "logs"):
        port = free_port()
        text = Path(haproxy_cfg(rig, port, "http")).read_text()
        watcher = Watcher(port, rig.work / f"{kind}.sock")
        if kind != "plain":
            text = text.replace("global\n", f"global\n    stats socket {watcher.path} level admin\n", 1)
            service = "    http-request use-service prometheus-exporter if { path /metrics }\n"
            text = text.replace("listen bench\n", f"listen bench\n    stats uri /stats\n{service}", 1)
            watchers.append(watcher)
        if kind == "logs":
            address = f"127.0.0.1:{watcher.log.getsockname()[1]}"
            text = text.replace("listen bench\n", f"listen bench\n    option httplog\n    log {address} local0\n", 1)
        file = rig.work / f"watched-{kind}.cfg"
        file.write_text(text)
        live[kind] = (rig.start([program, "proxy", "-q", "-f", str(file)], cores()[0]), port)
        wait_port(port)
    for watcher in watchers:
        watcher.start()
    found: dict[str, list[float]] = {kind: [] for kind in live}
    for _, port in live.values():
        load(CASES["keep64"], port, 1)
    for _ in range(rounds):
        for kind, (child, port) in live.items():
            before = cpu_s(child.pid)
            done = load(CASES["keep64"], port, seconds)["requests"]
            found[kind].append((cpu_s(child.pid) - before) / max(done, 1.0) * 1e6)
    for watcher in watchers:
        watcher.close()
    out = []
    for kind, own in found.items():
        ratio = statistics.median(a / b for a, b in zip(own, found["plain"], strict=True))
        aim = "" if kind == "plain" else f", ratio {ratio:.3f} (aim 1.05)"
        out.append(f"watched {kind}: {statistics.median(own):.1f} us per request{aim}")
    return out


def summary(case: Case, rows: dict[str, list[dict[str, float]]]) -> list[dict[str, object]]:
    """Medians, and the median of the per-round ratios haptk / peer."""
    own = rows.get("haptk", [])
    out: list[dict[str, object]] = []
    for peer, found in rows.items():
        ratio = statistics.median(a["us"] / b["us"] for a, b in zip(own, found, strict=True)) if own else None
        aim = (
            AIMS.get(peer if peer in ("relay", "prefix") else case.name)
            if peer in ("relay", "haproxy", "prefix")
            else None
        )
        out.append(
            {
                "case": case.name,
                "unit": case.unit,
                "proxy": peer,
                "us": round(statistics.median(row["us"] for row in found), 2),
                "low": round(min(row["us"] for row in found), 2),
                "high": round(max(row["us"] for row in found), 2),
                "rate": round(statistics.median(row["rate"] for row in found)),
                "errors": sum(row["errors"] for row in found),
                "ratio": round(ratio, 3) if ratio is not None and peer != "haptk" else None,
                "aim": aim,
            }
        )
    return out


def table(lines: list[dict[str, object]]) -> str:
    head = f"{'case':<10}{'proxy':<10}{'CPU us/unit':>12}{'(min-max)':>16}{'units/s':>10}{'errors':>8}{'haptk/it':>10}{'aim':>6}"
    out = [head]
    for row in lines:
        span = f"{row['low']}-{row['high']}"
        ratio = "" if row["ratio"] is None else row["ratio"]
        out.append(
            f"{row['case']:<10}{row['proxy']:<10}{row['us']:>12}{span:>16}{row['rate']:>10}{row['errors']:>8.0f}"
            f"{ratio:>10}{row['aim'] or '':>6}"
        )
    return "\n".join(out)


def page(lines: list[dict[str, object]]) -> str:
    """One self-contained HTML file: a bar per proxy and case."""
    top = max(float(str(row["us"])) for row in lines)
    bars = []
    y = 0
    for row in lines:
        width = float(str(row["us"])) / top * 520
        color = "#2a7" if row["proxy"] == "haptk" else "#999"
        label = escape(f"{row['case']} {row['proxy']}")
        note = escape(f"{row['us']} us/{row['unit']}" + (f", haptk/it {row['ratio']}" if row["ratio"] else ""))
        bars.append(
            f'<text x="0" y="{y + 13}">{label}</text><rect x="150" y="{y}" width="{width:.0f}" height="16" fill="{color}"/>'
            f'<text x="{156 + width:.0f}" y="{y + 13}">{note}</text>'
        )
        y += 22
    return (
        "<!doctype html><meta charset=utf-8><title>CPU per request</title>"
        '<h1 style="font:18px sans-serif">CPU time of the proxy per unit of work</h1>'
        f'<svg width="900" height="{y}" style="font:12px sans-serif">{"".join(bars)}</svg>'
    )


@contextlib.contextmanager
def rigged() -> Iterator[Rig]:
    with tempfile.TemporaryDirectory(prefix="haptk-bench-") as work:
        Path(work).chmod(0o755)
        rig = Rig(Path(work), (free_port(), free_port()))
        try:
            rig.start(["nginx", "-c", nginx_backend(rig)], cores()[1])
            wait_port(rig.backends[0])
            yield rig
        finally:
            rig.stop()


def special(name: str) -> Callable[[Rig, int, float], list[str]]:
    """The cases that print rows of their own."""
    import lasting
    import logcost

    cases = {"latency": latency, "watched": watched, "longlived": lasting.longlived, "reload": lasting.reload}
    return cases.get(name) or (lambda rig, rounds, seconds: logcost.logs(sys.modules[__name__], rig, rounds, seconds))


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench proxy", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--cases", default=",".join((*CASES, *SPECIAL)))
    parser.add_argument("--peers", default="haproxy,nginx,relay")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--html", type=Path)
    chosen = parser.parse_args()
    unknown = [name for name in chosen.cases.split(",") if name not in (*CASES, *SPECIAL)]
    if unknown:
        parser.error(f"no case is named {', '.join(unknown)}; there are {', '.join((*CASES, *SPECIAL))}")
    missing = [name for name in ("wrk", "nginx", "taskset") if not shutil.which(name, path="/usr/bin:/usr/sbin:/bin")]
    if missing:
        print(f"not installed: {', '.join(missing)}", file=sys.stderr)
        return 69
    lines: list[dict[str, object]] = []
    for name in chosen.cases.split(","):
        if name in SPECIAL:
            with rigged() as rig:
                words = idle(rig) if name == "idle" else special(name)(rig, chosen.rounds, chosen.seconds)
            print("\n".join(words), file=sys.stderr if chosen.json else sys.stdout, flush=True)
            continue
        with rigged() as rig:
            # the relay takes one read for one message and never closes: only keep-alive with small answers fits it
            peers = ["haptk", *(peer for peer in chosen.peers.split(",") if peer)]
            if name == "learned":
                peers = ["haptk", *(peer for peer in peers if peer.startswith("haproxy")), "prefix"]
            if not name.startswith("keep"):
                peers = [peer for peer in peers if peer != "relay"]
            found = summary(CASES[name], measure(rig, CASES[name], peers, chosen.rounds, chosen.seconds))
        lines += found
        if not chosen.json:
            print(table(found), flush=True)
    if chosen.json:
        print(json.dumps(lines, indent=2))
    if chosen.html:
        chosen.html.write_text(page(lines))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

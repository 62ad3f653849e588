"""What health checks cost a proxy: CPU of N checked servers, haptk and HAProxy side by side on one machine at one time.

    scripts/bench health [--servers 2000] [--inter 2] [--seconds 10] [--json]

All servers are one nginx. Aim: at most 1.5 of HAProxy's CPU for 2,000 HTTP checks, each every 2 s.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.bench.rigging import cpu_s, free_port, rss_kb, wait_port

HAPTK = str(Path(sys.executable).with_name("haptk"))
KINDS = {"http": "option httpchk GET /", "connection": ""}


def config(folder: Path, name: str, rule: str, port: int, servers: int, inter_s: float) -> Path:
    lines = ["defaults", " mode http", " timeout connect 2s", " timeout client 9s", " timeout server 9s", " timeout check 2s",
             f" default-server check inter {int(inter_s * 1000)}ms", "frontend any", f" bind {folder}/{name}.sock",
             " default_backend be", "backend be", f" {rule}" if rule else ""]  # fmt: skip
    lines += [f" server s{number} 127.0.0.1:{port}" for number in range(servers)]
    file = folder / f"{name}.cfg"
    file.write_text("\n".join([*lines, ""]))
    return file


def nginx(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    port = free_port()
    file = folder / "nginx.conf"
    file.write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;\n"
        "events { worker_connections 4096; }\n"
        f"http {{ access_log off; server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ return 200 ok; }} }} }}\n"
    )
    child = subprocess.Popen(["nginx", "-e", f"{folder}/error.log", "-c", str(file)])
    wait_port(port)
    return child, port


def measure(folder: Path, rule: str, port: int, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    programs = {"haproxy": ["haproxy", "-db"], "haptk": [HAPTK, "proxy"]}
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, argv in programs.items():
            file = config(folder, name, rule, port, options.servers, options.inter)
            running[name] = subprocess.Popen(
                [*argv, "-f", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        time.sleep(2 * options.inter + 2)  # all servers are fully up
        before = {name: cpu_s(child.pid) for name, child in running.items()}
        time.sleep(options.seconds)
        return {
            name: {
                "cpu_percent": 100 * (cpu_s(child.pid) - before[name]) / options.seconds,
                "us_per_check": 1e6
                * (cpu_s(child.pid) - before[name])
                * options.inter
                / options.seconds
                / options.servers,
                "rss_mb": rss_kb(child.pid) / 1024,
            }
            for name, child in running.items()
        }
    finally:
        for child in running.values():
            child.kill()
            child.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=int, default=2000)
    parser.add_argument("--inter", type=float, default=2.0, help="seconds between two checks of one server")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as text:
        child, port = nginx(Path(text))
        try:
            for kind, rule in KINDS.items():
                found[kind] = measure(Path(text), rule, port, options)
        finally:
            child.kill()
            child.wait()
    if options.json:
        print(json.dumps(found))
        return
    print(f"{options.servers} servers, each checked every {options.inter:g} s")
    for kind, each in found.items():
        for name, row in each.items():
            print(
                f"{kind:12} {name:8} {row['cpu_percent']:6.2f} % CPU  {row['us_per_check']:6.1f} us per check  {row['rss_mb']:6.1f} MB"
            )
        print(f"{kind:12} ratio    {each['haptk']['cpu_percent'] / each['haproxy']['cpu_percent']:6.2f}")


if __name__ == "__main__":
    main()

"""What benchmarks of the proxy share: cores, processes and what they spend."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent


def cores() -> tuple[int, int]:
    """The core for the proxy, and the one for everything else."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[-1]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def cpu_s(pid: int) -> float:
    """CPU seconds of all threads of a process and of its children (nginx works in one), exact to microseconds."""
    total = 0
    pids = [pid, *(int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    for one in pids:
        for task in Path(f"/proc/{one}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def rss_kb(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) if found else 0


def wait_port(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}")


@dataclass
class Rig:
    """The files and processes of one run."""

    work: Path
    backends: tuple[int, int]
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, argv: list[str], core: int | str) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            ["taskset", "-c", str(core), *argv], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.work
        )
        self.running.append(child)
        return child

    def stop(self) -> None:
        for child in self.running:
            child.send_signal(signal.SIGTERM)
        for child in self.running:
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()


def build(rig: Rig, name: str) -> str:
    """Compile one of the C programs beside this file."""
    target = rig.work / name
    if not target.exists():
        subprocess.run([os.environ.get("CC", "cc"), "-O2", "-o", str(target), str(HERE / f"{name}.c")], check=True)
    return str(target)

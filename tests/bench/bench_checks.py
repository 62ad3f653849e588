"""What checks cost: CPU of one cold `check process` and `check tcp`, and the wall time of 500 checks at once.

Interleaved rounds, medians and minima; `python -c pass` and `import click` stand beside them, because this machine's speed
changes from minute to minute. Aims: under 60 ms of CPU cold, under a second for 500 on loopback. Bytecode has to be
cached, as it is in an installed package: one uncounted round writes it.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import statistics
import sys
import tempfile
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.bench.child import cost_ms

HAPTK = str(Path(sys.executable).with_name("haptk"))
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
AT_ONCE = 500


class Site(threading.Thread):
    """A web server for many connections at once, or with `silent` one that accepts and never answers."""

    def __init__(self, *, silent: bool = False) -> None:
        super().__init__(daemon=True)
        self.silent = silent
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(1024)
        self.at = f"127.0.0.1:{self.listener.getsockname()[1]}"

    def run(self) -> None:
        selector = selectors.DefaultSelector()
        selector.register(self.listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is self.listener:
                    selector.register(self.listener.accept()[0], selectors.EVENT_READ)
                    continue
                channel = key.fileobj
                assert isinstance(channel, socket.socket)
                try:
                    data = channel.recv(4096)
                    if data and self.silent:
                        continue
                    if data:
                        channel.sendall(ANSWER)
                except OSError:
                    pass
                selector.unregister(channel)
                channel.close()


def measure(rounds: int) -> dict[str, dict[str, float]]:
    site, silent = Site(), Site(silent=True)
    site.start()
    silent.start()
    me = Path(f"/proc/{os.getpid()}/comm").read_text().strip()
    urls = [f"http://{site.at}/{number}" for number in range(AT_ONCE)]
    cases = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import click": [sys.executable, "-c", "import click"],
        "check process": [HAPTK, "check", "process", me],
        "check tcp": [HAPTK, "check", "tcp", site.at],
        "check http": [HAPTK, "check", "http", urls[0]],
        f"{AT_ONCE} x check http": [HAPTK, "check", "http", *urls],
        f"{AT_ONCE} x check tcp": [HAPTK, "check", "tcp", *[site.at] * AT_ONCE],
        f"{AT_ONCE} silent, -t 500ms": [HAPTK, "check", "http", "-t", "500ms", *[f"http://{silent.at}/"] * AT_ONCE],
    }
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    with tempfile.TemporaryDirectory() as cache:
        env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        env["PYTHONPYCACHEPREFIX"] = cache
        for number in range(rounds + 1):
            for name, argv in cases.items():
                found = cost_ms(argv, env)
                if number:
                    seen[name].append(found)
    return {
        name: {
            "cpu_ms": round(statistics.median(cpu for cpu, _ in rows), 1),
            "cpu_ms_min": round(min(cpu for cpu, _ in rows), 1),
            "wall_ms": round(statistics.median(wall for _, wall in rows), 1),
        }
        for name, rows in seen.items()
    }


def main(argv: list[str]) -> int:
    rounds = int(argv[argv.index("--rounds") + 1]) if "--rounds" in argv else 9
    found = measure(rounds)
    if "--json" in argv:
        print(json.dumps(found, indent=2))
        return 0
    print(f"{'':<26}{'CPU ms':>8}{'least':>8}{'wall ms':>9}   (medians of {rounds} rounds)")
    for name, row in found.items():
        print(f"{name:<26}{row['cpu_ms']:>8}{row['cpu_ms_min']:>8}{row['wall_ms']:>9}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

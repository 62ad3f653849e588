"""The rise/fall machine beside the real HAProxy: scripted servers answer both, and both must see the same changes.

Every server has random rules and a random script of answers. HAProxy checks it and logs its changes; the same answers
are fed to `core.health` in the order in which HAProxy got them. The two sequences of states must be equal, and HAProxy's
message has to come between the check that made the change and the second one after it: within one interval, counted in
checks and not in seconds, so that a busy machine does not matter.

With `-m slow` or CI=true 200 scripts run at once instead of 25.
"""

from __future__ import annotations

import os
import random
import re
import selectors
import socket
import subprocess
from pathlib import Path

import pytest

from haptk.core.health import CheckRules, Health, State, Verdict
from haptk.io import clock

ANSWERS = {
    "+": b"HTTP/1.0 200 OK\r\n\r\n",
    "-": b"HTTP/1.0 503 Service Unavailable\r\n\r\n",
    "4": b"HTTP/1.0 404 Not Found\r\n\r\n",
    "x": b"",  # closes without an answer
    "g": b"garbage\r\n\r\n",
    "t": None,  # says nothing until the check's time-out
}
VERDICTS = {"+": Verdict.PASS, "4": Verdict.DRAIN}
CHANGE = re.compile(r"Server be/s(\d+) is (UP|DOWN|stopping)\b")
STATES = {"UP": State.UP, "DOWN": State.DOWN, "stopping": State.DRAIN}
CHECK_TIMEOUT_MS = 120
LENGTH = 24


class Scripted:
    """One server: its rules, its script, how far it is, and what each side made of it."""

    def __init__(self, number: int, rng: random.Random) -> None:
        self.rise = rng.randint(1, 4)
        self.fall = rng.randint(1, 4)
        self.inter_ms = rng.randint(150, 250)
        self.fastinter_ms = rng.choice((0, rng.randint(80, 140)))
        self.downinter_ms = rng.choice((0, rng.randint(150, 300)))
        # Runs of the same answer, so that both thresholds are reached often.
        script = ""
        while len(script) < LENGTH:
            script += rng.choice("+++++--xg4t") * rng.randint(1, 4)
        self.script = script[:LENGTH]
        rules = CheckRules(
            rise=self.rise,
            fall=self.fall,
            inter_s=self.inter_ms / 1000,
            fastinter_s=self.fastinter_ms / 1000 or None,
            downinter_s=self.downinter_ms / 1000 or None,
        )
        self.health = Health(f"s{number}", rules)
        self.number = number
        self.checks = 0
        self.expected: list[tuple[State, int]] = []
        self.logged: list[tuple[State, int]] = []
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(64)
        self.socket.setblocking(False)

    def line(self) -> str:
        words = (
            f"server s{self.number} 127.0.0.1:{self.socket.getsockname()[1]} check rise {self.rise} fall {self.fall}"
        )
        words += f" inter {self.inter_ms}"
        if self.fastinter_ms:
            words += f" fastinter {self.fastinter_ms}"
        if self.downinter_ms:
            words += f" downinter {self.downinter_ms}"
        return words

    def answer(self) -> bytes | None:
        """The next answer of the script, judged by our side at the same moment; after its end all is well."""
        mark = self.script[self.checks] if self.checks < LENGTH else "+"
        self.checks += 1
        verdict = VERDICTS.get(mark, Verdict.FAIL)
        if verdict is Verdict.DRAIN and not self.health.state.usable:
            verdict = Verdict.FAIL  # disable-on-404 is nothing to a server that is down
        change = self.health.check(verdict, mark, float(self.checks))
        if change is not None:
            self.expected.append((change.new, self.checks))
        return ANSWERS[mark]

    def done(self) -> bool:
        """The script is over, and so long ago that the last change is logged, too."""
        return self.checks >= LENGTH + 6


class Stage:
    """One thread, one selector: all servers, their connections, and the socket for HAProxy's log."""

    def __init__(self, servers: list[Scripted]) -> None:
        self.servers = servers
        self.log = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.log.bind(("127.0.0.1", 0))
        self.log.setblocking(False)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.log, selectors.EVENT_READ, None)
        self.seen: dict[socket.socket, bytes] = {}
        for server in servers:
            self.selector.register(server.socket, selectors.EVENT_READ, server)

    def run(self, limit_s: float, haproxy: subprocess.Popen[bytes]) -> None:
        deadline = clock.monotonic() + limit_s
        while clock.monotonic() < deadline and not all(server.done() for server in self.servers):
            if haproxy.poll() is not None:
                return
            for key, _ in self.selector.select(0.2):
                if key.fileobj is self.log:
                    continue
                if isinstance(key.fileobj, socket.socket) and key.fileobj in self.seen:
                    self._request(key.fileobj, key.data)
                else:
                    self._accept(key.data)
                self._read_log()  # before the next answer is given: the order is what is compared
            self._read_log()

    def _accept(self, server: Scripted) -> None:
        channel, _ = server.socket.accept()
        channel.setblocking(False)
        self.seen[channel] = b""
        self.selector.register(channel, selectors.EVENT_READ, server)

    def _request(self, channel: socket.socket, server: Scripted) -> None:
        try:
            part = channel.recv(4096)
        except OSError:
            part = b""
        self.seen[channel] += part
        if part and not self.seen[channel].endswith(b"\r\n\r\n"):
            return
        answer = server.answer() if part else b""
        if answer is None:
            self.seen[channel] = b""  # HAProxy closes it when its time is over
            return
        try:
            channel.sendall(answer)
        except OSError:
            pass
        self._drop(channel)

    def _drop(self, channel: socket.socket) -> None:
        self.selector.unregister(channel)
        del self.seen[channel]
        channel.close()

    def _read_log(self) -> None:
        while True:
            try:
                text = self.log.recv(65536).decode("utf-8", "replace")
            except BlockingIOError:
                return
            if found := CHANGE.search(text):
                server = self.servers[int(found[1])]
                server.logged.append((STATES[found[2]], server.checks))

    def close(self) -> None:
        self.selector.close()
        for channel in self.seen:
            channel.close()
        for server in self.servers:
            server.socket.close()
        self.log.close()


def configuration(servers: list[Scripted], log_port: int, folder: Path) -> str:
    lines = [
        "global",
        f"  log 127.0.0.1:{log_port} len 4096 local0 notice",
        "  spread-checks 0",
        "defaults",
        "  mode http",
        "  log global",
        f"  timeout connect {CHECK_TIMEOUT_MS}ms",
        "  timeout server 1s",
        "  timeout client 1s",
        f"  timeout check {CHECK_TIMEOUT_MS}ms",
        "frontend nobody",  # haproxy does not start without a listener
        f"  bind {folder}/listener",
        "backend be",
        "  option httpchk GET /",
        "  http-check disable-on-404",
        "  no option log-health-checks",
    ]
    return "\n".join([*lines, *(f"  {server.line()}" for server in servers), ""])


def compare(count: int, seed: int, folder: Path, limit_s: float) -> None:
    rng = random.Random(seed)
    servers = [Scripted(number, rng) for number in range(count)]
    stage = Stage(servers)
    config = folder / "haproxy.cfg"
    config.write_text(configuration(servers, stage.log.getsockname()[1], folder))
    with (folder / "haproxy.err").open("wb") as errors:
        haproxy = subprocess.Popen(["haproxy", "-db", "-f", str(config)], stdout=errors, stderr=errors)
    try:
        stage.run(limit_s, haproxy)
    finally:
        haproxy.terminate()
        haproxy.wait(20)
        stage.close()
    unfinished = [server.number for server in servers if not server.done()]
    assert not unfinished, (folder / "haproxy.err").read_text()
    wrong = []
    for server in servers:
        same = [state for state, _ in server.expected] == [state for state, _ in server.logged]
        near = all(
            at <= logged_at <= at + 1 for (_, at), (_, logged_at) in zip(server.expected, server.logged, strict=False)
        )
        if not (same and near):
            wrong.append(
                f"seed {seed}: {server.line()}\n  script {server.script}\n  haptk   {show(server.expected)}\n"
                f"  haproxy {show(server.logged)}"
            )
    assert not wrong, "\n".join(wrong)
    assert sum(len(server.expected) for server in servers) > 2 * count  # the scripts did move the states


def show(changes: list[tuple[State, int]]) -> str:
    return " ".join(f"{state.value}@{at}" for state, at in changes)


@pytest.mark.real("haproxy")
def test_twenty_five_scripts(tmp_path: Path) -> None:
    compare(25, 1, tmp_path, 60)


@pytest.mark.slow
@pytest.mark.real("haproxy")
def test_two_hundred_scripts(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if "slow" not in str(request.config.getoption("markexpr")) and os.environ.get("CI") != "true":
        pytest.skip("200 scripts run with -m slow, and with CI=true")
    for seed in range(2, 6):
        compare(50, seed, tmp_path, 110)

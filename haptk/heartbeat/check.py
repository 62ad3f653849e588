"""The local check: is the service that this node would serve with alive? A thread probes, rise and fall judge."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass

from haptk.core.health import CheckRules, State, Verdict
from haptk.core.health import Health as Counter
from haptk.core.heartbeat.model import Health
from haptk.errors import OperatorError
from haptk.io import clock
from haptk.io.probe import ProbeResult, probe_http, probe_tcp

_URL = re.compile(r"http://(?:\[([0-9A-Fa-f:.]+)\]|([^/:\[\]]+))(?::(\d{1,5}))?(/\S*)?")
_TCP = re.compile(r"tcp:(?:\[([0-9A-Fa-f:.]+)\]|([^/:\[\]]+)):(\d{1,5})")


@dataclass(frozen=True)
class CheckSpec:
    """What to probe: `path` None is a TCP connection only."""

    host: str
    port: int
    path: str | None
    rules: CheckRules
    timeout_s: float

    def probe(self) -> ProbeResult:
        if self.path is None:
            return probe_tcp(self.host, self.port, self.timeout_s)
        host = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        headers = [("Host", host), ("Connection", "close")]
        return probe_http("GET", self.path, "HTTP/1.1", self.host, self.port, headers, timeout_s=self.timeout_s)


def parse(text: str, rules: CheckRules, timeout_s: float) -> CheckSpec:
    """`http://HOST[:PORT][/PATH]` or `tcp:HOST:PORT`; OperatorError says what is accepted."""
    if found := _URL.fullmatch(text):
        host, port, path = found[1] or found[2], int(found[3] or 80), found[4] or "/"
    elif found := _TCP.fullmatch(text):
        host, port, path = found[1] or found[2], int(found[3]), None
    else:
        raise OperatorError(what=f"--check {text!r}: http://HOST:PORT/PATH or tcp:HOST:PORT is accepted")
    if not 0 < port < 65536:
        raise OperatorError(what=f"--check {text!r}: {port} is not a port")
    return CheckSpec(host, port, path, rules, timeout_s)


class Checker:
    """Probes in a thread of its own; `report(health, reason)` is called there at the first verdict and on changes."""

    def __init__(self, spec: CheckSpec, report: Callable[[Health, str], None]) -> None:
        self._spec = spec
        self._report = report
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="local check", daemon=True)
        self.last: ProbeResult | None = None

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()

    def _work(self) -> None:
        counter = Counter("local check", self._spec.rules, clock.monotonic())
        seen = passed = failed = 0
        told: Health | None = None
        while not self._stop.is_set():
            result = self.last = self._spec.probe()
            counter.check(Verdict.PASS if result.ok else Verdict.FAIL, result.reason, clock.monotonic())
            seen += 1
            passed, failed = (passed + 1, 0) if result.ok else (0, failed + 1)
            health = Health.UP if counter.state is State.UP else Health.DOWN
            # Before the first change the counter's start value says nothing: wait for a full rise or fall.
            judged = told is not None or passed >= self._spec.rules.rise or failed >= self._spec.rules.fall
            if judged and health is not told:
                told = health
                self._report(health, result.reason)
            due = counter.due_at()
            wait = self._spec.rules.inter_s if due is None else due - clock.monotonic()
            self._stop.wait(max(0.01, wait))

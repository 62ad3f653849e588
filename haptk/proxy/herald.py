"""Tells the log targets of each backend what becomes of its servers: core/herald.py's sentences, sent as syslog.

One sink for each backend that logs. Nothing here waits: a line that cannot be sent is dropped, as a line of traffic is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from haptk.core import herald
from haptk.core.health import State
from haptk.io.exchange import ProbeResult
from haptk.proxy.logsink import LogSink
from haptk.proxy.outcomes import CHECKS
from haptk.proxy.tables import Backend, ProxyTables, Server

if TYPE_CHECKING:
    from haptk.proxy.health import Checked

WITH_STATUS = ("L7OK", "L7OKC", "L7STS")  # outcomes that carry the answer's status
Look = Callable[[int], dict[str, Any]]


@dataclass
class _Known:
    """One server as it was when it was last spoken of."""

    backend: Backend
    server: Server
    state: State = State.UP
    seen: bool = False
    weight: int = 1


class Herald:
    """`see` every server whenever its state may have changed; `look(gid)` says what it has to do (`sessions`, `queued`)."""

    def __init__(self, tables: ProxyTables, look: Look, before: Herald | None = None) -> None:
        self.look = look
        self._listens = {front.name for front in tables.frontends if front.is_listen}
        self._known = [_Known(backend, server) for backend in tables.backends for server in backend.servers]
        self._gids: dict[str, Sequence[int]] = {}
        self._sinks: dict[str, LogSink] = {}
        at = 0
        for backend in tables.backends:
            self._gids[backend.name] = range(at, at + len(backend.servers))
            at += len(backend.servers)
            if backend.log.targets:
                self._sinks[backend.name] = LogSink(backend.log)
        old = {(one.backend.name, one.server.name): one for one in before._known} if before else {}
        for one in self._known:
            if (known := old.get((one.backend.name, one.server.name))) is not None:
                one.state, one.seen = known.state, known.seen

    def adopt(self, backend: Backend, server: Server) -> None:
        """A server that was added at run time, under the next index."""
        self._gids[backend.name] = (*self._gids[backend.name], len(self._known))
        self._known.append(_Known(backend, server))

    def close(self) -> None:
        """Close the sockets."""
        for sink in self._sinks.values():
            sink.close()

    def see(self, one: Checked, state: State, why: str, *, via: str = "") -> None:
        """`one` is in `state` now, because of `why` (see core.herald.Event). Says so when that is new."""
        known = self._known[one.gid]
        old, known.state, known.weight = known.state, state, one.weight
        first, known.seen = not known.seen, True
        sink = self._sinks.get(known.backend.name)
        if first or old is state or sink is None:
            return  # how a server begins is no news
        check = found(one) if why == "check" else None
        drained = one.health.wish == "drain"
        around = self._around(one.gid, known.backend)
        event = herald.Event(
            one.name, known.server.backup, old, state, why, around, check=check, via=via, drained=drained, name=known.server.hostname,
            told=known.backend.log_checks,
        )  # fmt: skip
        for level, line in herald.sentences(event):
            sink.write(line, level)
        if old is State.UP and not around.active + around.backup:
            level, line = herald.nobody_left(known.backend.name, listen=known.backend.name in self._listens)
            sink.write(line, level)

    def checked(self, one: Checked, *, good: bool) -> None:
        """A check that changed what is known, under `option log-health-checks`."""
        known = self._known[one.gid]
        sink = self._sinks.get(known.backend.name)
        check = found(one)
        if sink is None or check is None or not known.backend.log_checks:
            return
        spare = known.server.backup
        conditional = one.last is not None and one.last.code == "L7OKC"
        up = one.health.health >= one.health.rules.rise
        # here HAProxy looks at the weight only, not at what an administrator has forced
        progress = f"{one.health.progress().split()[0]} {('UP' if one.weight else 'DRAIN') if up else 'DOWN'}"
        level, line = herald.checked(
            one.name, spare=spare, good=good, conditional=conditional, check=check, progress=progress
        )
        sink.write(line, level)

    def agent_checked(self, one: Checked) -> None:
        """An agent whose answer is another one than before, under `option log-health-checks`."""
        known = self._known[one.gid]
        sink = self._sinks.get(known.backend.name)
        if sink is None or one.agent is None or not known.backend.log_checks:
            return
        state, up = one.agent.state, not one.health.agent_down
        check = herald.Checked(
            CHECKS.get(state.code, state.code),
            0 if state.code in WITH_STATUS else None,
            encoded(state.text),
            state.duration_ms,
        )
        level, line = herald.checked(
            one.name, spare=known.server.backup, good=state.code == "L7OK", conditional=False, check=check,
            progress=f"1/1 {'UP' if one.weight else 'DRAIN'}" if up else "0/1 DOWN", kind="Agent",
        )  # fmt: skip
        sink.write(line, level)

    def moved(self, one: Checked, old: str, new: str, by: str) -> None:
        """A server is at another address."""
        sink = self._sinks.get(self._known[one.gid].backend.name)
        if sink is not None and new and old != new:
            level, line = herald.moved(one.name, old, new, by)
            sink.write(line, level)

    def _around(self, gid: int, backend: Backend) -> herald.Around:
        usable = [
            known for known in (self._known[each] for each in self._gids[backend.name]) if known.state is State.UP
        ]
        active = sum(not known.server.backup and known.weight > 0 for known in usable)
        backup = sum(known.server.backup and known.weight > 0 for known in usable)
        now = self.look(gid)
        queued = sum(int(self.look(each).get("queued", 0)) for each in self._gids[backend.name])
        around = herald.Around(active, backup, int(now.get("sessions", 0)), int(now.get("queued", 0)))
        return replace(around, queued=queued - around.requeued)


def found(one: Checked) -> herald.Checked | None:
    """What the last check of a server found, in words."""
    last: ProbeResult | None = one.last
    if last is None:
        return None
    code = last.code or "UNK"
    status = last.status if code in WITH_STATUS else None
    return herald.Checked(CHECKS.get(code, code), status, encoded(last.reason), round(last.duration_s * 1000))


def encoded(text: str) -> str:
    """A text of strangers as HAProxy writes it to a log: what is not printable, quotes and angles in hex."""
    return "".join(char if " " <= char <= "~" and char not in '<>"' else f"<{ord(char):02X}>" for char in text)

"""What the log says when a server changes: HAProxy's sentences, which alerting scripts have read for years. Pure.

The words, levels and numbers were found by leading HAProxy 2.6 through every change (tests/diff/test_diff_herald.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from haptk.core.health import State

NOTICE, ALERT, EMERG = "notice", "alert", "emerg"
Line = tuple[str, str]  # level, sentence


@dataclass(frozen=True)
class Checked:
    """What the last check of a server found: HAProxy's words for its code, the answer's status, a text, milliseconds."""

    outcome: str
    status: int | None
    info: str
    duration_ms: int

    def words(self) -> str:
        """`, reason: ..., code: ..., info: "...", check duration: ...ms`."""
        code = "" if self.status is None else f", code: {self.status}"
        info = f', info: "{self.info}"' if self.info else ""
        took = f", check duration: {self.duration_ms}ms" if self.duration_ms >= 0 else ""
        return f", reason: {self.outcome}{code}{info}{took}"


@dataclass(frozen=True)
class Around:
    """What is left in the backend after the change: usable servers, and what the server had to do before it."""

    active: int
    backup: int
    sessions: int = 0
    requeued: int = 0
    queued: int = 0

    def left(self) -> str:
        """After a loss."""
        return (
            f" {self.active} active and {self.backup} backup servers left.{self._running()} {self.sessions} sessions active, "
            f"{self.requeued} requeued, {self.queued} remaining in queue."
        )

    def online(self) -> str:
        """After a gain, or while sessions may stay."""
        return (
            f" {self.active} active and {self.backup} backup servers online.{self._running()} "
            f"{self.requeued} sessions requeued, {self.queued} total in queue."
        )

    def _running(self) -> str:
        return " Running on backup." if self.backup and not self.active else ""


@dataclass(frozen=True)
class Event:
    """One change of a server. `why` is `check`, `admin`, `name` (looked up anew: `name`) or `track`; `via` the server it
    follows, or what the name server said.

    `drained` says that an administrator has forced it to drain, `told` that the check has been logged already.
    """

    server: str  # backend/server
    spare: bool
    old: State
    new: State
    why: str
    around: Around
    check: Checked | None = None
    via: str = ""
    name: str = ""
    drained: bool = False
    told: bool = False


def sentences(event: Event) -> list[Line]:
    """What is logged of a change, in order."""
    who = f"{'Backup ' if event.spare else ''}Server {event.server}"
    if State.MAINT in (event.old, event.new):
        return _maintenance(event, who)
    if event.why == "admin" and event.new is State.DRAIN:
        return [(NOTICE, f"{who} enters drain state.{event.around.online()}")]
    if event.why == "admin" and event.old is State.DRAIN:
        return [(NOTICE, f"{who} is {'UP' if event.new is State.UP else 'DOWN'} (leaving forced drain).")]
    via = f" via {event.via}" if event.via else ""
    reason = event.check.words() if event.check is not None and not event.told and not event.via else ""
    if event.new is State.DOWN:
        level = NOTICE if event.old is State.DRAIN else ALERT
        lines = [(level, f"{who} is DOWN{via}{reason}.{event.around.left()}")]
    elif event.new is State.DRAIN and not event.drained:
        lines = [(NOTICE, f"{who} is stopping{via}{reason}.{event.around.online()}")]
    else:
        lines = [(NOTICE, f"{who} is UP{via}{reason}.{event.around.online()}")]
    if event.drained:
        lines.append((NOTICE, f"{who} remains in forced drain mode."))
    return lines


def _maintenance(event: Event, who: str) -> list[Line]:
    if event.new is State.MAINT:
        why = f" ({event.via})" if event.why == "name" else f" via {event.via}" if event.via else ""
        if event.old is State.DOWN:
            return [(NOTICE, f"{who} was DOWN and now enters maintenance{why}.")]
        return [(ALERT, f"{who} is going DOWN for maintenance{why}.{event.around.left()}")]
    word = f"{'DOWN' if event.new is State.DOWN else 'UP'}/{'DRAIN' if event.drained else 'READY'}"
    if event.why == "name":
        return [
            (NOTICE, f"{who} ('{event.name}') is {word} (resolves again)."),
            (NOTICE, f"{who} administratively READY thanks to valid DNS answer."),
        ]
    if event.via:
        return [(NOTICE, f"{who} is {word} (leaving maintenance).")]
    return [(NOTICE, f"{who} is {word} (leaving forced maintenance).")]


def nobody_left(proxy: str, *, listen: bool) -> Line:
    """When the last usable server of a backend is gone."""
    return (EMERG, f"{'proxy' if listen else 'backend'} {proxy} has no server available!")


def checked(
    server: str, *, spare: bool, good: bool, conditional: bool, check: Checked, progress: str, kind: str = "Health"
) -> Line:
    """One check under `option log-health-checks`; `progress` is as in `2/3 UP`, `kind` Health or Agent."""
    result = f"{'conditionally ' if conditional else ''}succeeded" if good else "failed"
    words = f"{kind} check for {'backup ' if spare else ''}server {server} {result}{check.words()}, status: {progress}."
    return (NOTICE, words)


def moved(server: str, old: str, new: str, by: str) -> Line:
    """When a server has another address."""
    return (NOTICE, f"{server} changed its IP from {old or '(none)'} to {new} by {by}.")

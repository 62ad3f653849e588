"""auto_failback legacy: the protocol before nice_failback. A node that comes up asks for its own groups one by one.

No starting, resource or ask_resources: `ip-request ipaddr=<first resource>` to everybody, the holder stops the group
and answers `ip-request-resp ... ok=OK` to the asker, who starts it. A dead node's groups are taken as ever. So an
address always goes home when its node returns, and nothing can be moved on request.
"""

from __future__ import annotations

from typing import Any

from haptk.core.heartbeat import wire
from haptk.core.heartbeat.holdings import Group
from haptk.core.heartbeat.model import Hold, Level, Op, Outcome
from haptk.core.heartbeat.resources import Negotiation
from haptk.core.heartbeat.tables import GroupState, PhaseSignal

ASK_EVERY_S = 5.0


class LegacyNegotiation(Negotiation):
    """The same wishes, told with the old messages."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._asked_at: dict[int, float] = {}
        self._owed: dict[int, str] = {}

    def on_comm_up(self, now: float) -> None:
        self.machine.go(PhaseSignal.COMM_UP)
        self._settle("auto_failback legacy")

    def on_starting(self, message: wire.Message, now: float) -> None:
        return

    def on_resource(self, message: wire.Message, now: float) -> None:
        return

    def on_ask(self, message: wire.Message, now: float) -> None:
        self.tell(Level.WARN, f"{self.peer.name} speaks the newer protocol: is its auto_failback not legacy?")

    def give(self, bits: Hold, why: str, now: float, *, check: bool = False) -> str:
        return "auto_failback is legacy, which knows no standby"

    def on_ip_request(self, message: wire.Message, now: float) -> None:
        """The owner of a group asks for it: give it up if we have it, and say so."""
        group = self._group(message)
        if group is None or self.holdings.mine(group, self.peer.name):
            return
        if group.held:
            self._owed[group.index] = self.peer.name
            self.holdings.stop(group, Op.RELEASE, f"{self.peer.name} asks for what is its own")
        elif not group.changing:
            self._answer(group)
        else:
            self._owed[group.index] = self.peer.name

    def on_ip_response(self, message: wire.Message, now: float) -> None:
        """The holder has given the group up."""
        group = self._group(message)
        wanted = group is not None and not group.held and not group.changing
        if group is not None and wanted and wire.text(message, "ok") == "OK" and group.index in self._asked_at:
            del self._asked_at[group.index]
            self.holdings.start(group, f"{self.peer.name} gave it up")

    def on_done(self, ticket: int, outcome: Outcome, now: float) -> None:
        super().on_done(ticket, outcome, now)
        for index in list(self._owed):
            group = self.holdings.groups[index]
            if group.changing:
                continue
            del self._owed[index]
            if group.state is GroupState.RELEASED:
                self._answer(group)

    def _group(self, message: wire.Message) -> Group | None:
        key = wire.text(message, "ipaddr")
        return next((group for group in self.holdings.groups if group.config.key == key), None)

    def _answer(self, group: Group) -> None:
        message: wire.Message = {"t": "ip-request-resp", "dest": self.peer.name, "ipaddr": group.config.key}
        self.send({**message, "weown": "yes", "ok": "OK"})

    def _decide(self, group: Group, now: float) -> None:
        mine = self.holdings.mine(group, self.peer.name)
        if group.held:
            self.grants.lost(group, theirs=False)
            return
        if now < group.retry_at:
            return
        if self.peer.gone:
            self._take_from_the_dead(group, now)
        elif mine and self.peer.able and now >= self._asked_at.get(group.index, float("-inf")) + ASK_EVERY_S:
            self._asked_at[group.index] = now
            self.send({"t": "ip-request", "ipaddr": group.config.key})

    def _announce(self, now: float, *, force: bool = False) -> None:
        return

    def send_resource(self, hold: Hold, *, stable: bool) -> None:
        return

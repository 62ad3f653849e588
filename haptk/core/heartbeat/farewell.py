"""The graceful stop: finish what is under way, release everything, say good-bye, see that the peer took it, leave.

A resource that cannot be stopped keeps us here, because after a good-bye the peer would start it a second time. What was
only released for a taker, and not taken, is really stopped before we leave.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from haptk.core.heartbeat import wire
from haptk.core.heartbeat.model import Finished, Level, Op
from haptk.core.heartbeat.tables import GroupState, Move, Phase, PhaseSignal

if TYPE_CHECKING:
    from haptk.core.heartbeat.resources import Negotiation

LINGER_S = 2.0
"""After `shutdone` the real daemon goes on for about 2 s; the peer may still ask for a resend."""

LINGER_TAKER_S = 5.0


class Farewell:
    """The stop of one node; `wanted` starts it at the next look, `finish` is called at its end."""

    def __init__(self, negotiation: Negotiation, finish: Callable[[Finished], None]) -> None:
        self.negotiation = negotiation
        self._finish = finish
        self.wanted = False
        self._releasing = False
        self._linger_until: float | None = None
        self._again_at: float | None = None
        self._gave: set[int] = set()

    def times(self) -> list[float | None]:
        """When something is due."""
        return [self._linger_until, self._again_at]

    def advance(self, now: float) -> None:
        """Go as far as is possible now."""
        negotiation = self.negotiation
        changing = negotiation.holdings.changing
        if negotiation.phase is not Phase.SHUTDOWN:
            if changing or not negotiation.mover.quiet:
                negotiation.once("stop", "the stop waits until the current resource activity is finished")
                return
            self._begin()
        elif self._releasing and not changing:
            if self._stuck(now):
                return
            self._say_good_bye(now)
        if self._linger_until is not None and (now >= self._linger_until or self._taken_over()):
            self._end()

    def _begin(self) -> None:
        negotiation = self.negotiation
        negotiation.machine.go(PhaseSignal.STOP)
        negotiation.tell(Level.INFO, "Heartbeat shutdown in progress.", "stopping")
        if negotiation.mover.state is not Move.IDLE:
            negotiation.mover.peer_gone()
        message: wire.Message = {"t": "resource", "rsc_hold": "none", "rtype": "full", "isstable": "0"}
        negotiation.send({**message, "info": "shutdown"})
        op = Op.RELEASE if negotiation.peer.able else Op.STOP
        for group in negotiation.holdings.groups:
            if group.held:
                if op is Op.RELEASE:
                    self._gave.add(group.index)
                negotiation.holdings.stop(group, op, "this node stops")
        self._releasing = True

    def _stuck(self, now: float) -> bool:
        """Whether something did not stop; it is tried again every `retry_s`."""
        negotiation = self.negotiation
        held = [group for group in negotiation.holdings.groups if group.held]
        if not held:
            return False
        if self._again_at is None:
            names = ", ".join(group.config.key for group in held)
            negotiation.tell(Level.CRIT, f"not leaving: {names} could not be stopped; trying again", "stop_blocked")
            self._again_at = now + negotiation.config.timing.retry_s
        elif now >= self._again_at:
            self._again_at = None
            for group in held:
                negotiation.holdings.stop(group, Op.STOP, "trying again to stop it")
        return True

    def _say_good_bye(self, now: float) -> None:
        negotiation, peer = self.negotiation, self.negotiation.peer
        self._releasing = False
        negotiation.send({"t": "shutdone", "st": "dead"})
        # Long enough for the status that shows the peer a lost good-bye, and for the resend.
        linger = max(LINGER_S, negotiation.config.timing.keepalive_s + 1.0)
        wait = max(linger, LINGER_TAKER_S) if self._gave and peer.haptk else linger
        self._linger_until = now + (wait if peer.able else 0.0)

    def _taken_over(self) -> bool:
        """A haptk peer says that it holds everything we gave."""
        claims = self.negotiation.peer.claims
        return bool(self._gave) and claims is not None and self._gave <= claims

    def _end(self) -> None:
        negotiation = self.negotiation
        self._linger_until = None
        left = [group for group in negotiation.holdings.groups if group.index in self._gave]
        if negotiation.peer.haptk and not self._taken_over() and left:
            self._gave.clear()
            for group in left:
                if group.state is GroupState.RELEASED:
                    negotiation.holdings.stop(group, Op.STOP, f"{negotiation.peer.name} did not take it")
            self._releasing = True
            return
        self._finish(Finished("Heartbeat shutdown complete."))

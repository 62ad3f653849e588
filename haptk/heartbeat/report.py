"""What `haptk heartbeat status` tells, taken from the core; and what a reload cannot change."""

from __future__ import annotations

import os
from typing import Any

from haptk.core.heartbeat.node import Node
from haptk.heartbeat.settings import Settings

STATUS_EVENTS = {
    "peer_up", "peer_dead", "peer_left", "resource_started", "resource_stopped", "resource_lost", "active", "stopping"
}  # fmt: skip


def snapshot(node: Node, settings: Settings, now: float) -> dict[str, Any]:
    """The state of the node as one JSON object. `stable` is what the peer is told; ages are seconds."""
    peer, negotiation = node.peer, node.negotiation
    holdings = negotiation.holdings
    return {
        "node": node.config.name,
        "pid": os.getpid(),
        "state": node.state.value,
        "phase": negotiation.phase.value,
        "stable": negotiation.stable,
        "hold": holdings.hold(peer.name).word,
        "rscstatus": negotiation.word,
        "generation": node.config.generation,
        "uuid": node.config.uuid.hex(),
        "auto_failback": node.config.failback.value,
        "move": negotiation.mover.state.value,
        "stopping": negotiation.stop_wanted,
        "check": {"state": negotiation.health.value},
        "witnesses": node.witnesses.state(now),
        "timing": {
            "keepalive_s": settings.timing.keepalive_s,
            "deadtime_s": settings.timing.deadtime_s,
            "initdead_s": settings.timing.initdead_s,
            "warntime_s": settings.timing.warntime_s,
        },
        "peer": {
            "name": peer.name or None,
            "address": settings.peer_address,
            "state": "left" if peer.left else peer.state.value,
            "stable": peer.stable,
            "hold": peer.hold.word,
            "haptk": peer.haptk,
            "check": peer.health.value,
            "generation": peer.generation,
            "heard_s_ago": round(now - peer.heard_at, 3) if peer.ever_heard else None,
            "dead_time_s": peer.dead_time_s,
            "missing": len(peer.incoming.missing),
            "links": {name: link.state.value for name, link in peer.links.items()},
        },
        "resources": [
            {
                "name": group.config.key,
                "members": list(group.config.resources),
                "owner": node.config.owner_of(group.config, peer.name),
                "state": group.state.value,
                "held": group.held,
                "seen": group.seen.value if group.seen else None,
                "failures": group.failures,
                "looks": group.counter.progress() if group.held and group.counter else None,
                "lease": negotiation.grants.of(group).value if negotiation.grants.on else None,
                "why": group.why,
            }
            for group in holdings.groups
        ],
    }


def differences(old: Settings, new: Settings) -> list[str]:
    """The settings that differ from the running ones and need a restart."""
    names = (
        "node",
        "peer",
        "links",
        "timing",
        "failback",
        "groups",
        "ping_nodes",
        "check",
        "lease",
        "state_dir",
        "control",
    )
    return [name for name in names if getattr(old, name) != getattr(new, name)]

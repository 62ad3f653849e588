"""What the simulation is worth: rules that are taken out are found, and the faults reach every state of the tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import Enum
from typing import Any

import pytest

from haptk.core.heartbeat import tables
from haptk.core.heartbeat.grants import Grants
from haptk.core.heartbeat.holdings import Holdings
from haptk.core.heartbeat.resources import Negotiation
from haptk.core.heartbeat.standby import Mover
from haptk.core.heartbeat.witness import Witnesses
from haptk.core.lease_keeper import Keeper
from tests.sim.scenarios import FAULTS, run_seed


def _nothing(*_args: object, **_fields: object) -> None:
    return None


BROKEN_RULES: dict[str, tuple[type, str, Any, Iterable[int]]] = {
    # what is taken out, and seeds that notice it
    "nobody takes what nobody holds": (Negotiation, "_take_orphan", _nothing, range(50)),
    "a death moves nothing": (Negotiation, "_take_from_the_dead", _nothing, range(50)),
    "a lost address is not noticed": (Holdings, "_not_ours", _nothing, range(50)),
    "a dead service is not noticed": (Holdings, "_bad_look", _nothing, range(50)),
    "a failure is never forgotten": (Holdings, "forgive", _nothing, (414,)),
    "two claims are not settled": (Negotiation, "_settle_conflict", _nothing, range(50)),
    "a sick node keeps everything": (Negotiation, "_give_for_health", _nothing, range(70, 80)),
    "an abandoned move is waited for": (Mover, "_abandoned", lambda *_: False, (191,)),
    "no witness is needed": (Negotiation, "_witnessed", lambda *_: True, range(140, 150)),
    "an answer from before a pause counts": (Witnesses, "last_answer", lambda self: max(self._heard.values()), (373,)),
    "no lease is needed": (Grants, "may_take", lambda *_: True, range(50)),
    "a refused renewal is not judged": (Keeper, "_judge", _nothing, (64,)),
}


@pytest.mark.parametrize("rule", BROKEN_RULES)
def test_the_simulation_finds_a_broken_rule(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rule is taken out in turn; a simulation that stays green then would prove nothing."""
    owner, name, instead, seeds = BROKEN_RULES[rule]
    monkeypatch.setattr(owner, name, instead)
    assert any(run_seed(seed).violation for seed in seeds)


NOT_REACHED = {
    "node": {"up + says init"},  # a node that says init again is a new generation, which was forgotten before
    "link": {"up + a packet came", "unknown + silent for the dead time"},  # passed over, for speed; no link unheard
    "phase": {  # the order of a real node's messages: haptk's tell it all at once (tests/core, tests/interop)
        "both starting + peer says starting", "both starting + peer says resource", "both starting + asked to stop",
        "resources heard + peer says starting", "resources heard + peer says resource",
        "resources heard + asked to stop", "starting + asked to stop",
    },
    "group": {  # nobody looks at, stops or starts what is not ours, not failed or not seen; the table allows it
        "ceded + status: ours", "ceded + stop or release it", "failed + status: ours", "failed + stop or release it",
        "released + status: ours", "released + stop or release it", "unknown + start it", "unknown + stop or release it",
    },
    "move": {"taker: starting + the peer died or left"},  # a start that takes longer than a dead time
}  # fmt: skip


def test_the_faults_reach_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step of every state machine is taken, but for those that are named here with their reason."""
    taken: dict[str, set[tuple[Enum, Enum]]] = {name: set() for name in tables.ALL}
    known = {id(table): name for name, (_, table) in tables.ALL.items()}
    go = tables.Machine.go

    def count(self: Any, signal: Enum) -> Enum:
        taken[known[id(self._table)]].add((self.state, signal))
        return go(self, signal)  # type: ignore[no-any-return]

    monkeypatch.setattr(tables.Machine, "go", count)
    faults: Counter[str] = Counter()
    for seed in range(200):
        faults.update(set(run_seed(seed).world.faults))
    assert set(FAULTS) <= set(faults) | {"oneway"}  # it counts as a cut
    for name, (_, table) in tables.ALL.items():
        left = {f"{state.value} + {signal.value}" for state, signal in set(table) - taken[name]}
        assert left <= NOT_REACHED[name]

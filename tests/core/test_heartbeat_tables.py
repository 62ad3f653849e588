"""The state tables are enforced, and the diagrams in the docs are drawn from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from haptk.core.heartbeat import tables
from haptk.errors import InternalError

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "heartbeat-states.md"


def test_a_step_outside_its_table_raises() -> None:
    machine = tables.Machine("group web", tables.GROUP, tables.GroupState.RELEASED)
    assert not machine.can(tables.GroupSignal.STARTED)
    with pytest.raises(InternalError, match=r"group web is 'released' and cannot take 'start succeeded'"):
        machine.go(tables.GroupSignal.STARTED)
    assert machine.state is tables.GroupState.RELEASED


@pytest.mark.parametrize("name", sorted(tables.ALL))
def test_every_state_can_be_reached_and_left(name: str) -> None:
    table = tables.ALL[name][1]
    states = type(next(iter(table.values())))
    starts = {"group": "UNKNOWN", "node": "INIT", "link": "UNKNOWN", "phase": "INIT", "move": "IDLE"}
    reached = {states[starts[name]]}
    while more := {after for (state, _), after in table.items() if state in reached} - reached:
        reached |= more
    assert reached == set(states)
    ends = set(states) - {state for state, _ in table}
    assert ends <= {tables.Phase.SHUTDOWN}


def test_the_diagrams_are_current(request: pytest.FixtureRequest) -> None:
    parts = ["# States of the heartbeat\n\nDrawn from the tables in haptk/core/heartbeat/tables.py.\n"]
    for name, (title, _) in tables.ALL.items():
        parts.append(f"## {title}\n\n```mermaid\n{tables.mermaid(name)}\n```\n")
    wanted = "\n".join(parts)
    if request.config.getoption("--regenerate"):
        PAGE.write_text(wanted)
    assert PAGE.read_text() == wanted

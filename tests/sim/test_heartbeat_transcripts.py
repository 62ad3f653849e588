"""The classical cases as text: above the line what happens, below it what the nodes said and did. Review the diff.

`pytest tests/sim/test_heartbeat_transcripts.py --regenerate` rewrites the files after a wanted change.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from haptk.core.heartbeat.model import Failback, Health
from tests.sim.checkers import check_end
from tests.sim.world import World

CASES = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))
LINE = "----"


def play(script: list[str]) -> World:
    """Run the commands of a case: `SECONDS WORDS...`, or `set WORD VALUE` before the first of them."""
    world = World(1)
    until = 0.0
    for line in script:
        words = line.split()
        if not words or words[0] == "#":
            continue
        if words[0] == "set":
            configure(world, words[1], words[2])
            continue
        until = float(words[0])
        world.at(until, lambda words=words: command(world, *words[1:]))  # type: ignore[misc]
    world.run(until)
    return world


def configure(world: World, name: str, value: str) -> None:
    if name == "failback":
        world.failback = Failback(value)
    elif name == "kind":
        world.kind = value
    elif name == "witness":
        world.witnesses = (value,)
    elif name == "health":
        for box in world.boxes.values():
            box.health = Health(value)
    else:
        raise ValueError(name)


def command(world: World, verb: str, *words: str) -> None:
    simple = {
        "boot": world.boot,
        "crash": world.crash,
        "stop": world.stop,
    }
    if verb in simple:
        simple[verb](*words)
    elif verb == "kill":
        world.crash(words[0], resource_survives=True)
    elif verb == "cut":
        world.cut(words[0], words[1])
    elif verb == "heal":
        world.heal()
    elif verb == "freeze":
        world.freeze(words[0], float(words[1]))
    elif verb == "health":
        world.set_health(words[0], Health(words[1]))
    elif verb == "broken":
        world.boxes[words[0]].broken = True
    elif verb == "repaired":
        world.boxes[words[0]].broken = False
    elif verb == "clock":
        world.step_clock(words[0], float(words[1]))
    elif verb == "unseen":
        world.boxes[words[0]].witness = False
    elif verb == "standby":
        box = world.boxes[words[0]]
        assert box.node is not None
        assert not box.node.give(box.node.negotiation.holdings.hold(box.peer), world.local(box))
        world.flush(box)
    elif verb == "end":
        check_end(world)
    else:
        raise ValueError(verb)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_transcript(path: Path, request: pytest.FixtureRequest) -> None:
    script, _, expected = path.read_text().partition(f"{LINE}\n")
    found = "\n".join(play(script.splitlines()).transcript) + "\n"
    if request.config.getoption("--regenerate"):
        path.write_text(f"{script}{LINE}\n{found}")
        return
    assert found == expected, f"{path.name} has changed; --regenerate rewrites it"


def test_there_are_the_twelve_classical_cases() -> None:
    assert len(CASES) >= 12

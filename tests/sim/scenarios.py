"""Faults, chosen by the seed: what happens to the world and when. Nothing here knows what is right."""

from __future__ import annotations

import random
from dataclasses import dataclass

from haptk.core.heartbeat.model import Failback, Health
from tests.sim.checkers import NoSpin, TwoBelievers, Violation, check_end, check_no_flapping
from tests.sim.world import WITNESS, World

FAULTS_UNTIL_S = 60.0
QUIET_S = 60.0


@dataclass
class Result:
    """How a seed ended."""

    seed: int
    world: World
    violation: str = ""


def run_seed(seed: int) -> Result:
    """One seed from boot to the end of the quiet time."""
    rng = random.Random(seed * 2654435761 % 2**32)
    world = World(seed, kind=rng.choice(["exclusive", "exclusive", "script"]))
    world.failback = rng.choice([Failback.OFF, Failback.OFF, Failback.ON])
    if rng.random() < 0.25:
        world.witnesses = (WITNESS,)
    if rng.random() < 0.4:
        for box in world.boxes.values():
            box.health = Health.UP
    for box in world.boxes.values():
        box.drift = rng.uniform(-2e-4, 2e-4)
    world.watchers = [TwoBelievers(world), NoSpin()]
    world.at(rng.uniform(0, 3), lambda: world.boot("a"))
    world.at(rng.uniform(0, 20) if rng.random() < 0.3 else rng.uniform(0, 3), lambda: world.boot("b"))
    for _ in range(rng.randint(1, 6)):
        _plan(world, rng, rng.uniform(4, FAULTS_UNTIL_S))
    world.at(FAULTS_UNTIL_S + 0.1, lambda: calm(world))
    try:
        world.run(FAULTS_UNTIL_S + QUIET_S)
        check_end(world)
        check_no_flapping(world, world.fault_count + 2)
    except Violation as violation:
        return Result(seed, world, str(violation))
    return Result(seed, world)


def calm(world: World) -> None:
    """The end of all faults: repair what an operator would repair."""
    world.heal()
    world.cloud.mode, world.cloud.lag_s = "up", 0.0
    for box in world.boxes.values():
        box.broken, box.witness = False, True
        if box.health is Health.DOWN:
            world.set_health(box.name, Health.UP)


def _plan(world: World, rng: random.Random, when: float) -> None:
    name = rng.choice("ab")
    other = "b" if name == "a" else "a"
    lasts = rng.choice([rng.uniform(0.2, 3), rng.uniform(3, 15)])
    kind = rng.choice(
        ["crash", "kill", "freeze", "cut", "oneway", "loss", "noise", "clock", "cloud", "lag", "sick", "broken", "stop"]
    )
    if kind in ("crash", "kill"):
        world.at(when, lambda: world.crash(name, resource_survives=kind == "kill"))
        if rng.random() < 0.8:
            world.at(when + lasts, lambda: world.boot(name))
    elif kind == "freeze":
        world.at(when, lambda: world.freeze(name, lasts))
    elif kind in ("cut", "oneway"):
        world.at(when, lambda: world.cut(name, other))
        if kind == "cut":
            world.at(when, lambda: world.cut(other, name))
        if world.witnesses:
            _lose_witness(world, rng, when, lasts, name)
        world.at(when + lasts, world.heal)
    elif kind == "loss":
        world.at(when, lambda: _disturb(world, loss=0.3))
        world.at(when + lasts, world.heal)
    elif kind == "noise":
        world.at(when, lambda: _disturb(world, duplicate=0.3, delay=(0.0, 0.4)))
        world.at(when + lasts, world.heal)
    elif kind == "clock":
        world.at(when, lambda: world.step_clock(name, rng.choice([-4000.0, -30.0, 30.0, 4000.0])))
    elif kind == "stop":
        world.at(when, lambda: world.stop(name))
        world.at(when + lasts + 10, lambda: world.boot(name))
    else:
        _plan_service(world, rng, kind, name, when, lasts)


def _plan_service(world: World, rng: random.Random, kind: str, name: str, when: float, lasts: float) -> None:
    box = world.boxes[name]
    if kind == "cloud":
        mode = rng.choice(["slow", "throttled", "down"])

        def spoil() -> None:
            world.fault_count += 2
            world.note("cloud", mode)
            world.cloud.mode = mode

        world.at(when, spoil)
        world.at(when + lasts, lambda: setattr(world.cloud, "mode", "up"))
    elif kind == "lag":
        world.at(when, lambda: setattr(world.cloud, "lag_s", 3.0))
        world.at(when + lasts, lambda: setattr(world.cloud, "lag_s", 0.0))
    elif kind == "sick" and box.health is not Health.NONE:
        world.at(when, lambda: world.set_health(name, Health.DOWN))
        world.at(when + lasts, lambda: world.set_health(name, Health.UP))
    elif kind == "broken":

        def breaks() -> None:
            world.fault_count += 2
            world.note(name, "its resource does not start any more")
            box.broken = True

        world.at(when, breaks)
        world.at(when + lasts, lambda: setattr(box, "broken", False))


def _disturb(
    world: World, *, loss: float = 0.0, duplicate: float = 0.0, delay: tuple[float, float] | None = None
) -> None:
    world.fault_count += 1
    world.note("net", f"loss {loss:.0%}, duplicates {duplicate:.0%}, delay {delay or 'none'}")
    for link in world.links.values():
        link.loss, link.duplicate = loss, duplicate
        link.delay_s = delay or link.delay_s


def _lose_witness(world: World, rng: random.Random, when: float, lasts: float, name: str) -> None:
    """In a real cut one side usually loses the rest of the world too."""
    box = world.boxes[name]
    world.at(when, lambda: setattr(box, "witness", rng.random() < 0.3))
    world.at(when + lasts, lambda: setattr(box, "witness", True))

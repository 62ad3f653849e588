"""`show events [RING] [-w] [-n]`: the log lines that a `ring` section keeps, as HAProxy shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from haptk.proxy.runtime.world import World

if TYPE_CHECKING:
    from haptk.proxy.runtime.commands import Caller

HEAD = "Supported events sinks are listed below. Add -w(wait), -n(new). Any key to stop\n"
OPTIONS = {"-w": "w", "-n": "n", "-nw": "wn", "-wn": "wn"}


@dataclass
class Follow:
    """Who waits for more lines of a ring, and from which place on."""

    ring: Any
    place: int

    def more(self) -> bytes:
        """The lines since the last call."""
        lines, self.place = self.ring.read(self.place)
        return b"".join(line + b"\n" for line in lines)


def show_events(world: World, caller: Caller, args: list[str]) -> str:
    """The rings, or the lines of one. With -w the caller is told of new lines until it says something."""
    rings = world.engine.journal.rings if world.engine.journal is not None else {}
    if not args:
        rows = (
            f"    {ring.name:<10} : type=buffer, {ring.dropped} dropped, {ring.description}\n"
            for ring in rings.values()
        )
        return HEAD + "".join(rows)
    ring = rings.get(args[0])
    if ring is None:
        return "No such event sink"
    if any(word not in OPTIONS for word in args[1:]):
        return "unknown option"
    asked = "".join(OPTIONS[word] for word in args[1:])
    lines, place = ring.read(ring.end if "n" in asked else 0)
    if "w" in asked:
        caller.follow = Follow(ring, place)
    return b"".join(line + b"\n" for line in lines).decode("latin-1")

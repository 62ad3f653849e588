"""What every provider can do: tell who is in the name, and plan a change that is made only when somebody agrees."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Plan:
    """A change as lines for people; `commit` makes it, whole or not at all."""

    lines: tuple[str, ...]
    surprises: tuple[str, ...]
    commit: Callable[[], None]


class Provider(Protocol):
    """Route 53 or a server that takes dynamic updates."""

    def look(self) -> dict[str, int]:
        """Weights by address (1 where there are none); raises what says why it cannot be told."""

    def declared(self) -> Plan:
        """The plan that makes the name what cluster.toml declares."""

    def plan(self, edits: Mapping[str, int]) -> Plan:
        """The plan for some addresses: new weights, 0 leaves the name; everything else stays as it is."""


def surprises(before: Iterable[str], after: Iterable[str]) -> tuple[str, ...]:
    """A sentence when more than a third of the addresses would leave."""
    there = set(before)
    lost = there - set(after)
    if len(lost) * 3 > len(there):
        return (f"{len(lost)} of {len(there)} addresses would leave the name: {', '.join(sorted(lost))}",)
    return ()

"""`haptk dns watch`: rounds of checks, and the decisions of haptk.core.dns carried out at the provider.

What was withdrawn is on disk before the provider is asked, so that a watch that dies between the two neither forgets an
address that it took out nor returns one that an administrator drained.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from haptk.cluster.schema import Cluster
from haptk.core.dns import Decision, Declared, Membership, emptied
from haptk.core.health import CheckRules
from haptk.dns.members import Result
from haptk.dns.provider import Provider
from haptk.errors import ConfigError, HaptkError
from haptk.io import clock
from haptk.io.files import write_atomic


def rules_of(cluster: Cluster) -> CheckRules:
    """Rise, fall and interval as the declaration has them for the servers."""
    check = cluster.check
    return CheckRules(rise=check.rise, fall=check.fall, inter_s=float(check.interval))


def read_state(path: Path, name: str) -> dict[str, int]:
    """What an earlier watch of this name withdrew: weights by address. ConfigError for a file that is none of ours."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(file=path, line=1, why=f"cannot be read as the state of a watch: {error}") from error
    entries = found.get("withdrawn") if isinstance(found, dict) else None
    if not isinstance(entries, dict) or not all(type(weight) is int and weight > 0 for weight in entries.values()):
        raise ConfigError(file=path, line=1, why='accepted is {"name": ..., "withdrawn": {ADDRESS: WEIGHT}}')
    return entries if found.get("name") == name else {}


@dataclass
class Watch:
    """One watch; `step` is one round. `act` false only says what would be done."""

    declared: Declared
    provider: Provider
    probe: Callable[[], Mapping[str, Result]]
    membership: Membership
    state: Path
    log: Callable[[str], None]
    act: bool = True
    _last: tuple[str, ...] = ()

    def step(self) -> Decision:
        """Check everybody, decide, act. A provider that refuses or is silent is logged, and the next round tries again."""
        results = self.probe()
        # While all answer and nobody is out nothing can move: Route 53, which takes five calls a second, is not asked.
        calm = not self.membership.withdrawn and all(well for well, _ in results.values())
        live = {} if calm else self._live()
        decision = self.membership.round(live, results, clock.monotonic())
        words = [f"{'returning' if weight else 'withdrawing'} {self.declared.label(address)}"
                 for address, weight in decision.edits.items()]  # fmt: skip
        said = (*decision.reasons, *words)
        if said != self._last:
            for line in said:
                self.log(line)
            self._last = said
        if live is not None and decision.edits and not emptied(live, decision.edits):
            self._carry_out(decision.edits, live)
        return decision

    def _live(self) -> dict[str, int] | None:
        try:
            return self.provider.look()
        except HaptkError as error:
            self.log(f"cannot see the name: {error}")
            return None

    def _carry_out(self, edits: Mapping[str, int], live: Mapping[str, int]) -> None:
        if not self.act:
            return
        leaving = {address: live[address] for address, weight in edits.items() if weight == 0}
        self._remember({**self.membership.withdrawn, **leaving})
        try:
            self.provider.plan(edits).commit()
        except HaptkError as error:
            self.log(f"not changed, to be tried again: {error}")
            return
        self.membership.done(edits, live)
        self._remember(self.membership.withdrawn)

    def _remember(self, withdrawn: Mapping[str, int]) -> None:
        body = {"name": self.declared.name, "withdrawn": dict(withdrawn)}
        write_atomic(self.state, json.dumps(body).encode() + b"\n")

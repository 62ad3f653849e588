"""A lease for each group as a witness: somebody outside who lets only one node at a time have it. Off by default.

The shell keeps the leases (DynamoDB) and says in three states what it knows: ours, the other's, or nothing. The core
says which it wants (`Claim`): what is held, started or stopped here, and what would be taken from a silent peer.

* A taker waits for `ours`: while the store is silent nobody takes anything from a peer that cannot be heard.
* A holder goes on while the store is silent. It lets go of a script when the lease is the other's and the other is not
  heard or says that it holds it too; an address it keeps, because the cloud itself says whose that is.
* Two nodes that hear each other need no witness: what they agree on is done, and the lease follows.
* Two claims to one group are settled by the lease where exactly one of the two has it.
"""

from __future__ import annotations

from collections.abc import Callable

from haptk.core.heartbeat.holdings import Group, Holdings
from haptk.core.heartbeat.model import Claim, Grant, Level, NodeConfig, Op, Say
from haptk.core.heartbeat.peers import Peer


class Grants:
    """What the leases say about our groups, and which of them we want."""

    def __init__(
        self,
        config: NodeConfig,
        holdings: Holdings,
        peer: Peer,
        say: Callable[[Say], None],
        claim: Callable[[Claim], None],
    ):
        self.on = config.leases
        self._holdings = holdings
        self._peer = peer
        self._say = say
        self._claim = claim
        self._grants = [Grant.UNKNOWN] * len(holdings.groups)
        self._wanted: set[int] = set()
        self._told = [Claim(-1 - index, index, False, False) for index in range(len(holdings.groups))]
        self._tickets = 0

    def of(self, group: Group) -> Grant:
        return self._grants[group.index]

    def ours(self) -> set[int]:
        """Groups whose lease we have."""
        return {index for index, grant in enumerate(self._grants) if grant is Grant.OURS}

    def granted(self, ticket: int, grant: Grant, why: str) -> None:
        """The shell knows something new about the lease that claim `ticket` was for."""
        index = next((claim.group for claim in self._told if claim.ticket == ticket and claim.wanted), None)
        if index is None:
            return
        before, self._grants[index] = self._grants[index], grant
        if before is not grant:
            key = self._holdings.groups[index].config.key
            level = Level.WARN if before is Grant.OURS and index in self._holdings.held() else Level.INFO
            fields = (("group", index), ("grant", grant.value), ("reason", why))
            self._say(Say(level, f"the lease of {key} is {grant.value}: {why}", "lease", fields))

    def may_take(self, group: Group) -> bool:
        """Whether a group may be taken from a peer that cannot be heard; asking is wanting its lease."""
        if not self.on:
            return True
        self._wanted.add(group.index)
        return self.of(group) is Grant.OURS

    def lost(self, group: Group, theirs: bool) -> bool:
        """Whether a held script has to be let go, because the other node has its lease; True when it is stopped now."""
        if not self.on or group.config.exclusive or self.of(group) is not Grant.OTHERS:
            return False
        if self._peer.able and not theirs:
            return False  # an old lease of a node that says itself that it does not hold it
        self._holdings.stop(group, Op.RELEASE, "the other node has its lease")
        return True

    def yields(self, group: Group) -> bool | None:
        """Who lets go of a group that both hold: we, the other (False), or None where the leases do not tell."""
        if not self.on:
            return None
        we, they = self.of(group) is Grant.OURS, group.index in self._peer.leases
        return None if we == they else they

    def tell(self) -> None:
        """Tell the shell what is wanted, where that has changed; call it after all decisions."""
        if not self.on:
            return
        for group in self._holdings.groups:
            here = group.held or group.changing
            wanted = here or group.index in self._wanted
            told = self._told[group.index]
            if (told.wanted, told.here) == (wanted, here):
                continue
            self._tickets += 1
            self._told[group.index] = claim = Claim(self._tickets, group.index, wanted, here)
            if not wanted:
                self._grants[group.index] = Grant.UNKNOWN  # it is let go at this moment
            self._claim(claim)
        self._wanted.clear()

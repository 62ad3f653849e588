"""Who holds an address and what to do about it: three states, never two, and every decision with its sentence.

Theory. An address has at most one holder at a time, and EC2 alone says who. This module never asks; it judges what a
shell saw and names the one call that may follow.

1. `Unknown` is never folded into a neighbour: when nobody can be asked, nothing is done to the address.
2. Metadata may say "yours" at once, but its "no" is only a hint, because it lags a fresh association: a negative is
   confirmed with the API before it counts.
3. Taking is one call with reassociation allowed. There is no "release, then take": between the two nobody would own it.
4. Releasing is a compare-and-delete: it names the handle (an association id) that was seen as *ours*. A handle dies with
   its association, so a release that comes too late finds nothing and takes nothing from the new holder.
5. A lost answer is not a failure and not a success: the only cure is to look again.

States and records are named tuples: a poll pays for the making of every class (0.15 ms against 1.5 for a frozen
dataclass). Two of the three states are never equal as tuples: their lengths or the types of their first fields differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple


class Holder(NamedTuple):
    """The interface that has the address; each field may be unknown to the source that told."""

    interface: str | None = None
    instance: str | None = None
    private_ip: str | None = None

    def __str__(self) -> str:
        text = self.interface or self.instance or "an unnamed holder"
        if self.private_ip:
            text += f" ({self.private_ip})"
        if self.interface and self.instance:
            text += f" of {self.instance}"
        return text


class Ours(NamedTuple):
    """This node holds the address. `since` is the Unix time in seconds from which on this is known, if it is."""

    source: str
    since: float | None = None

    def __str__(self) -> str:
        return f"ours (says {self.source})"


class NotOurs(NamedTuple):
    """Another node holds it (`holder`), or nobody does (None)."""

    holder: Holder | None = None
    source: str = ""

    def __str__(self) -> str:
        return f"not ours: {f'held by {self.holder}' if self.holder else 'nobody holds it'}"


class Last(NamedTuple):
    """What was known before the sources fell silent, and how long ago that was, in seconds."""

    state: Ours | NotOurs
    age_s: float


class Unknown(NamedTuple):
    """Nobody could be asked. `why` is for a person; `last` is the last known state with its age, if there is one.

    `trouble` is the name of the error class behind it (`AwsDenied`), for contracts that tell kinds of failure apart.
    """

    why: str
    last: Last | None = None
    trouble: str = ""

    def __str__(self) -> str:
        if self.last is None:
            return f"unknown: {self.why}"
        was = "ours" if isinstance(self.last.state, Ours) else "not ours"
        return f"unknown: {self.why}; {self.last.age_s:.0f} s ago it was {was}"

    @property
    def last_was_ours(self) -> bool:
        """True when the last known state is ours, however old it is."""
        return self.last is not None and isinstance(self.last.state, Ours)


Status = Ours | NotOurs | Unknown


class Target(NamedTuple):
    """Where the address belongs on this node.

    `interfaces` are the interface ids that count as this node (the first is where a start puts the address);
    `private_ip` pins one address of that interface, None means any; `instance` makes every interface of this
    instance count, and is None when the operator named one interface.
    """

    interfaces: tuple[str, ...] = ()
    private_ip: str | None = None
    instance: str | None = None

    def covers(self, holder: Holder) -> bool:
        """Whether `holder` is this node, at the private address that was asked for."""
        here = (holder.interface is not None and holder.interface in self.interfaces) or (
            self.instance is not None and holder.instance == self.instance
        )
        return here and (self.private_ip is None or holder.private_ip == self.private_ip)

    def __str__(self) -> str:
        return str(Holder(self.interfaces[0] if self.interfaces else None, self.instance, self.private_ip))


class Sighting(NamedTuple):
    """What the API said: the holder (None: nobody) and the handle with which exactly this holding can be released."""

    holder: Holder | None = None
    handle: str | None = None


class Silence(NamedTuple):
    """The API gave no usable answer; `answered` is True when it did answer, but with a refusal (throttled, denied)."""

    why: str
    answered: bool = False
    trouble: str = ""
    gone: bool = False  # the API did answer: no such address exists


class Metadata(Enum):
    """What the instance metadata said about the address."""

    HELD = "held"  # this interface has it
    ABSENT = "absent"  # it does not know of it: a hint only
    SILENT = "silent"  # it did not answer, or was not asked


# How long metadata may still show what EC2 has changed already, in seconds; generous, it is only used to doubt.
METADATA_LAG_S = 60.0


def judge(
    metadata: Metadata, seen: Sighting | Silence | None, target: Target, last: Last | None = None
) -> Status | None:
    """The state that follows from what was seen; None means "ask the API first".

    `seen` is None as long as the API was not asked. An answer of the API wins over metadata, which may lag either way:
    a "yours" of metadata that contradicts the last known state is confirmed too, and is not believed alone before the
    lag is over. Otherwise this node would show the address as running just after it released it.
    """
    if isinstance(seen, Sighting):
        if seen.holder is not None and target.covers(seen.holder):
            return Ours(source="EC2")
        return NotOurs(holder=seen.holder, source="EC2")
    doubted = last is not None and isinstance(last.state, NotOurs)
    if metadata is Metadata.HELD and not doubted:
        return Ours(source="metadata")
    if seen is None:
        return None
    hint = ""
    if metadata is Metadata.HELD and last is not None:
        if last.age_s > METADATA_LAG_S:
            return Ours(source="metadata")
        hint = f"the metadata service lists it, but {last.age_s:.0f} s ago EC2 did not, and "
    elif metadata is Metadata.ABSENT:
        hint = "the metadata service does not list it, which may be lag, and "
    return Unknown(why=hint + seen.why, last=last, trouble=seen.trouble)


class Call(Enum):
    """The one call that a plan asks for."""

    NOTHING = "nothing"
    TAKE = "take"
    RELEASE = "release"
    REFUSE = "refuse"  # the wish cannot be met and nothing may be sent


class Plan(NamedTuple):
    """One decision: the call, the handle to release (RELEASE only) and the sentence for the log."""

    call: Call
    because: str
    handle: str | None = None


def plan_start(status: Status, target: Target, *, blind: bool = False) -> Plan:
    """What a start does in this state.

    `blind` says that a take can be sent although the holder could not be seen: the object to take is known by id and
    the API does answer (it only refused the question, as a throttled one does).
    """
    match status:
        case Ours(source=source):
            return Plan(Call.NOTHING, f"it is on {target} already (says {source})")
        case NotOurs(holder=None):
            return Plan(Call.TAKE, f"nobody holds it; taking it to {target}")
        case NotOurs(holder=holder):
            return Plan(Call.TAKE, f"held by {holder}; taking it to {target}")
        case Unknown(why=why) if blind:
            return Plan(Call.TAKE, f"the holder could not be seen ({why}), but the API answers; taking it to {target}")
        case Unknown(why=why):
            return Plan(Call.REFUSE, f"not taken: {why}")


def plan_takeover(metadata: Metadata, target: Target) -> Plan | None:
    """What a warm agent's start does with no question before it: the one call, unless metadata says that it is here.

    None means that the holder has to be asked for first (`plan_start`): metadata alone does not prove that it is ours.
    """
    if metadata is Metadata.HELD:
        return None
    seen = "the metadata of this node does not list it" if metadata is Metadata.ABSENT else "metadata is silent"
    return Plan(Call.TAKE, f"{seen}; taking it to {target} from whoever holds it")


def choose_place(
    private_ips: Sequence[str], taken: Mapping[str, str], address: str, wanted: str | None = None
) -> tuple[str | None, str | None]:
    """Where on an interface an Elastic IP goes: (private address, None), or (None, the address that is in the way).

    `private_ips` are the interface's, the primary first; `taken` says which Elastic IP is on which of them. (None, None)
    means that nothing is known of the interface: EC2 chooses.
    """
    if wanted is not None:
        occupant = taken.get(wanted)
        return (wanted, None) if occupant in (None, address) else (None, occupant)
    for private_ip in private_ips:
        if taken.get(private_ip) in (None, address):
            return private_ip, None
    return None, taken[private_ips[0]] if private_ips else None


def plan_stop(seen: Sighting | Silence, target: Target) -> Plan:
    """What a stop does: release exactly the holding that was seen as ours, or nothing.

    A holding without a handle (a route) cannot be released conditionally: it is left for the next holder to replace.
    """
    if isinstance(seen, Silence) and seen.gone:
        return Plan(Call.NOTHING, f"nothing to release: {seen.why}")
    if isinstance(seen, Silence):
        return Plan(Call.REFUSE, f"not released: cannot see who holds it: {seen.why}")
    if seen.holder is None:
        return Plan(Call.NOTHING, "nobody holds it; nothing to release")
    if not target.covers(seen.holder):
        return Plan(Call.NOTHING, f"held by {seen.holder}, not by {target}; left alone")
    if seen.handle is None:
        return Plan(
            Call.NOTHING,
            f"left on {seen.holder}: EC2 cannot delete it only if it is still ours; a start elsewhere moves it",
        )
    return Plan(Call.RELEASE, f"releasing it from {seen.holder} by {seen.handle}", handle=seen.handle)


class Step(NamedTuple):
    """One thing that happened on the way; `at` is Unix time in seconds."""

    at: float
    what: str


class Outcome(NamedTuple):
    """How a start or stop ended: whether the wish is met, the state that is known now, and why.

    `acted` is True when a call that changes something was sent (also when its answer was lost); `trouble` is the name
    of the error class behind a failure (`AwsDenied`), empty without one.
    """

    ok: bool
    status: Status
    acted: bool
    because: str
    steps: tuple[Step, ...] = ()
    trouble: str = ""

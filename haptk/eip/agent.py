"""The address agent: observe, plan, act, and observe again where an answer was lost, within one deadline.

All methods block, are thread-safe and never raise for what AWS or the network does: that is in the status or outcome
they return. They are made for a daemon's worker thread as for a command. Decisions are in `core.vip`; this module only
asks, sends and writes down.

Kept warm (`warm()`): the identity of this node, the allocation, the credentials and a connection, so that a takeover is
one request. Not covered by a deadline: name resolution, which the system's resolver bounds.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping

from haptk.aws import imds as metadata_service
from haptk.aws.client import Access, Clients
from haptk.aws.deadline import Deadline
from haptk.aws.ec2 import Ec2
from haptk.aws.imds import Imds, ImdsError
from haptk.core.vip import (
    Call,
    Last,
    Metadata,
    NotOurs,
    Ours,
    Outcome,
    Plan,
    Sighting,
    Silence,
    Status,
    Step,
    Target,
    Unknown,
    judge,
    plan_start,
    plan_stop,
    plan_takeover,
)
from haptk.core.vip import Holder as Holder
from haptk.eip import spec as specs
from haptk.eip.identity import Identity, WhoAmI
from haptk.eip.kinds import kind_of
from haptk.eip.memory import Memory
from haptk.errors import (
    AwsDenied,
    AwsError,
    AwsNotFound,
    AwsThrottled,
    AwsUnreachable,
    HaptkError,
    InternalError,
    OperatorError,
)
from haptk.io import clock

STATUS_DEADLINE_S = 3.6
CHANGE_DEADLINE_S = 20.0
RELEASED = "released"
OURS = "ours"
NOT_OURS = "not-ours"


class Agent:
    """One address and this node. `interface` and `private_ip` say where on this node it belongs (default: anywhere).

    `on_step` is called with each Step at once, from the calling thread. `ask_metadata=False` is for a caller that has
    just found the metadata service silent: it is not waited for again. Raises OperatorError for arguments that mean
    nothing.
    """

    def __init__(
        self,
        address: str,
        interface: str | None = None,
        private_ip: str | None = None,
        *,
        access: Access | None = None,
        clients: Clients | None = None,
        env: Mapping[str, str] | None = None,
        on_step: Callable[[Step], None] | None = None,
        ask_metadata: bool = True,
    ) -> None:
        environment = dict(os.environ if env is None else env)
        self.address = address
        self._spec = specs.parse(address)
        specs.check_interface(interface)
        specs.check_private_ip(private_ip)
        self._endpoint = metadata_service.endpoint_of(environment)
        self._ask_metadata = ask_metadata
        self._run_dir = metadata_service.run_dir(environment)
        self._memory = Memory(self._run_dir, self._endpoint, interface, private_ip)
        self._who = WhoAmI(self._memory, interface, private_ip)
        self._clients = clients or Clients(access)
        self._kind = kind_of(self._spec, Ec2(self._clients), self._memory)
        self._lock = threading.Lock()
        self._local = threading.local()
        self._on_step = on_step

    @property
    def label(self) -> str:
        """The address as a person knows it."""
        return self._kind.label

    # What is known.

    def status(self, deadline_s: float = STATUS_DEADLINE_S) -> Status:
        """Ours, NotOurs or Unknown within about `deadline_s` seconds: metadata first, the API for what it denies."""
        deadline = Deadline(deadline_s)
        last = self.last()
        try:
            identity, metadata = self._metadata(deadline)
        except HaptkError as error:
            return Unknown(why=str(error), last=last, trouble=type(error).__name__)
        verdict = judge(metadata, None, identity.target, last)
        if verdict is None:
            verdict = judge(metadata, self._see(deadline), identity.target, last)
        return self._remembered(_settled(verdict))

    def _metadata(self, deadline: Deadline) -> tuple[Identity, Metadata]:
        client = self._imds(deadline)
        with self._lock:
            identity = self._who.find(client)
        found = self._read_metadata(client, identity)
        if found is Metadata.ABSENT and not self._who.recent():
            # What was remembered of this node may be old (an interface was moved): look again before believing a "no".
            with self._lock:
                fresh = self._who.find(client, fresh=True)
            if fresh != identity:
                return fresh, self._read_metadata(client, fresh)
        return identity, found

    def _read_metadata(self, client: Imds | None, identity: Identity) -> Metadata:
        if client is None or identity.mac is None:
            return Metadata.SILENT
        try:
            return self._kind.metadata(client, identity.mac, identity.target)
        except ImdsError:
            return Metadata.SILENT

    def _imds(self, deadline: Deadline) -> Imds | None:
        if self._endpoint is None or not self._ask_metadata:
            return None
        client: Imds | None = getattr(self._local, "imds", None)
        if client is None:
            try:
                client = self._local.imds = Imds(self._endpoint, self._run_dir)
            except ImdsError:
                return None
        # Metadata may cost a third of the deadline: the API has to have its turn when it hangs.
        client.timeout_s = min(metadata_service.TIMEOUT_S, max(0.1, deadline.left() / 3))
        return client

    def _see(self, deadline: Deadline) -> Sighting | Silence:
        try:
            return self._kind.observe(deadline)
        except HaptkError as error:
            answered = isinstance(error, AwsThrottled | AwsDenied)
            gone = isinstance(error, AwsNotFound)
            return Silence(why=str(error), answered=answered, trouble=type(error).__name__, gone=gone)

    # What is remembered.

    def last(self) -> Last | None:
        """The last known state with its age; None when nothing was ever known since boot."""
        kept = self._memory.last(self.address)
        if kept is None:
            return None
        state, since, confirmed, holder = kept
        age_s = max(0.0, clock.wall() - confirmed)
        if state == OURS:
            return Last(Ours(source="memory", since=since), age_s)
        return Last(NotOurs(holder=None if holder == "-" else Holder(interface=holder), source="memory"), age_s)

    def _released(self) -> bool:
        kept = self._memory.last(self.address)
        return kept is not None and kept[0] == RELEASED

    def _remembered(self, status: Status) -> Status:
        match status:
            case Ours(source=source):
                if isinstance(self._spec, specs.Route) and self._released():
                    return NotOurs(holder=None, source="released by this node")
                return Ours(source=source, since=self._memory.remember_last(self.address, OURS))
            case NotOurs(holder=holder):
                if not self._released() or holder is not None:
                    self._memory.remember_last(self.address, NOT_OURS, (holder.interface if holder else None) or "-")
        return status

    # What is done.

    def start(self, deadline_s: float = CHANGE_DEADLINE_S) -> Outcome:
        """Bring the address here. Success when it is here at the end, whoever brought it; one changing call at most,
        and a second one only when what was known of the allocation turned out to be old."""
        deadline = Deadline(deadline_s)
        journal = Journal(self._on_step)
        try:
            identity, metadata = self._metadata(deadline)
        except HaptkError as error:
            return journal.failed(Unknown(str(error), self.last(), type(error).__name__), str(error))
        target = identity.target
        plan = plan_takeover(metadata, target) if self._kind.ready() else None
        if plan is None:
            status, plan = self._plan_start(metadata, target, deadline)
            if plan.call is Call.NOTHING:
                self._memory.remember_last(self.address, OURS)
                return journal.done(self._remembered(status), plan.because)
            if plan.call is Call.REFUSE:
                return journal.failed(status, plan.because)
        journal.note(plan.because)
        try:
            placed = self._kind.place(self._imds(deadline), identity.mac, target, self._run_dir, deadline)
        except HaptkError as error:
            return journal.failed(Unknown(str(error), self.last(), type(error).__name__), str(error))
        return self._take(placed, deadline, journal, plan)

    def _plan_start(self, metadata: Metadata, target: Target, deadline: Deadline) -> tuple[Status, Plan]:
        seen = self._see(deadline)
        status = _settled(judge(metadata, seen, target, self.last()))
        blind = isinstance(seen, Silence) and seen.answered and self._kind.can_take_blind()
        return status, plan_start(status, target, blind=blind)

    def _take(self, target: Target, deadline: Deadline, journal: Journal, plan: Plan, again: bool = True) -> Outcome:
        journal.send("take")
        try:
            held = self._kind.take(target, deadline)
        except AwsNotFound as error:
            if again and isinstance(self._see(deadline), Sighting):
                journal.note(f"{error}; what was known of it was old, it is asked anew")
                return self._take(target, deadline, journal, plan, again=False)
            return journal.failed(Unknown(str(error), self.last(), type(error).__name__), str(error))
        except (AwsThrottled, AwsDenied) as error:
            return journal.failed(Unknown(str(error), self.last(), type(error).__name__), str(error))
        except HaptkError as error:
            return self._look_again(target, deadline, journal, error)
        status = self._took()
        return journal.done(status, f"moved to {held.holder} ({held.handle or 'no handle'}); before: {plan.because}")

    def _took(self) -> Ours:
        return Ours(source="EC2", since=self._memory.remember_last(self.address, OURS, fresh=True))

    def _look_again(self, target: Target, deadline: Deadline, journal: Journal, error: HaptkError) -> Outcome:
        journal.note(f"{error}; looking again, the call may have arrived")
        seen = self._see(deadline)
        status = self._remembered(_settled(judge(Metadata.SILENT, seen, target, self.last())))
        if isinstance(status, Ours):
            return journal.done(status, f"it is on {target}; the answer to the call was lost ({error})")
        return journal.failed(status, str(error), type(error).__name__)

    def stop(self, deadline_s: float = CHANGE_DEADLINE_S) -> Outcome:
        """Let the address go if it is here. Success when it is not here at the end; never takes it from another node."""
        deadline = Deadline(deadline_s)
        journal = Journal(self._on_step)
        try:
            with self._lock:
                # An old identity would make "it is another's" of what is ours, and leave it here for ever.
                identity = self._who.find(self._imds(deadline), fresh=not self._who.recent())
        except HaptkError as error:
            return journal.failed(Unknown(str(error), self.last(), type(error).__name__), str(error))
        for _attempt in range(2):
            seen = self._see(deadline)
            plan = plan_stop(seen, identity.target)
            if isinstance(seen, Silence) and plan.call is Call.NOTHING:
                return journal.done(NotOurs(holder=None, source="EC2"), plan.because)
            if isinstance(seen, Silence):
                return journal.failed(Unknown(seen.why, self.last(), seen.trouble), plan.because)
            if plan.call is not Call.RELEASE or plan.handle is None:
                return journal.done(self._stopped(seen, identity.target), plan.because)
            journal.note(plan.because)
            outcome = self._release(plan.handle, identity.target, deadline, journal)
            if outcome is not None:
                return outcome
        why = "released twice, and both answers were lost"
        return journal.failed(Unknown(why, self.last(), AwsUnreachable.__name__), why)

    def _stopped(self, seen: Sighting, target: Target) -> NotOurs:
        if isinstance(self._spec, specs.Route) and seen.holder is not None and target.covers(seen.holder):
            self._memory.remember_last(self.address, RELEASED)
            return NotOurs(holder=None, source="released by this node")
        status = NotOurs(holder=seen.holder, source="EC2")
        self._remembered(status)
        return status

    def _release(self, handle: str, target: Target, deadline: Deadline, journal: Journal) -> Outcome | None:
        """Send the release; None when its answer was lost and it has to be looked at again."""
        journal.send("release")
        try:
            self._kind.release(handle, target, deadline)
            because = f"released {handle}"
        except AwsNotFound:
            because = f"{handle} was gone already: somebody acted first, nothing was taken from them"
        except (AwsThrottled, AwsDenied) as error:
            return journal.failed(Unknown(str(error), self.last(), type(error).__name__), str(error))
        except AwsError as error:
            if deadline.left() < 1.0:
                return journal.failed(Unknown(str(error), self.last(), type(error).__name__), str(error))
            journal.note(f"{error}; looking again, the call may have arrived")
            return None
        self._memory.remember_last(self.address, NOT_OURS)
        self._kind.forget_place(target, self._run_dir)
        return journal.done(NotOurs(holder=None, source="EC2"), because)

    def misplaced(self) -> str | None:
        """Why this host cannot be the one that the operator meant (its metadata lists no such interface); None if it can.

        A metadata service that does not answer proves nothing.
        """
        client = self._imds(Deadline(STATUS_DEADLINE_S))
        if client is None:
            return None
        try:
            self._who.check(client)
        except OperatorError as error:
            return str(error)
        except ImdsError:
            return None
        return None

    def warm(self, deadline_s: float = CHANGE_DEADLINE_S) -> None:
        """Make a later `start(deadline_s)` cost one request: identity, credentials, allocation, connection.

        Worth repeating once a minute, which also keeps the connection alive. Raises the HaptkError of what is missing.
        """
        deadline = Deadline(deadline_s)
        with self._lock:
            self._who.find(self._imds(deadline), fresh=True)
        self._clients.credentials_ready()
        self._kind.observe(deadline)


class Journal:
    """What happened during one start or stop, in order, and its end."""

    def __init__(self, on_step: Callable[[Step], None] | None) -> None:
        self._on_step = on_step
        self._steps: list[Step] = []
        self._acted = False

    def note(self, what: str) -> None:
        step = Step(clock.wall(), what)
        self._steps.append(step)
        if self._on_step is not None:
            self._on_step(step)

    def send(self, call: str) -> None:
        """Note that a changing call is about to be sent."""
        self._acted = True
        self.note(f"{call} sent")

    def done(self, status: Status, because: str) -> Outcome:
        self.note(because)
        return Outcome(True, status, self._acted, because, tuple(self._steps))

    def failed(self, status: Status, because: str, trouble: str = "") -> Outcome:
        self.note(because)
        found = trouble or (status.trouble if isinstance(status, Unknown) else "")
        return Outcome(False, status, self._acted, because, tuple(self._steps), found)


def _settled(verdict: Status | None) -> Status:
    """The verdict after the API was asked: `judge` always has one then."""
    if verdict is None:
        raise InternalError(what="no verdict although the API was asked")
    return verdict

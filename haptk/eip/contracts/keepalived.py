"""keepalived's notifications: they come concurrently and out of order, and the newest state wins.

Theory. keepalived starts one process for each change of state and waits for none of them, so two may run at once and
the older may come last. Order is taken from the kernel, not from arrival: a process carries the moment of its start
(/proc/self/stat, clock ticks since boot) and, within a tick, its pid. Each process writes its state down as the wanted
one unless a newer one is written already; then it waits for its turn at the one action lock and, holding it, acts on
whatever is wanted *then*. So a flurry of changes ends in the newest state, whichever process carries it out, and all
others find nothing left to do.

What a state means. MASTER (and MASTER_RX_LOWER_PRI, which exists because the other node may have taken the address
meanwhile): take it. BACKUP, FAULT, STOP, DELETED: a take that has not begun yet is cancelled, and the address stays where
it is; the new master takes it in one call, so there is no moment in which nobody has it. `release=fault,stop` lets go
in these states.

After both nodes were master for a while, the one that stays master need not hear that the other had the address: the
other may step down before it sends anything. Notifications alone cannot mend that, so `check ADDRESS keep=1`, as a
track_script, compares what is with what the newest state wants, and takes the address back. Two masters that cannot
hear each other would pull at it in turn; a pause that doubles from 5 s to 5 min keeps that rare.
"""

from __future__ import annotations

import fcntl
import os
import select
import sys
from pathlib import Path

from haptk.aws import imds
from haptk.aws.imds import file_name, read_private, write_private
from haptk.core.vip import NotOurs, Outcome, Status, Unknown
from haptk.eip import watch
from haptk.eip.agent import CHANGE_DEADLINE_S, Agent
from haptk.eip.contracts.request import STATES, Request
from haptk.errors import CannotWrite, MissingFile, OperatorError
from haptk.io import clock

Ticket = tuple[int, int]
# How long a process waits for its turn, in seconds: two changes before it, each at its deadline.
TURN_S = 2 * CHANGE_DEADLINE_S
# Pauses between two takes by `keep=1` from another holder, in seconds.
PAUSE_S, PAUSE_MAX_S = 5.0, 300.0


def run(request: Request, agents: list[Agent]) -> int:
    """Carry out a notification, or serve a FIFO until it ends; returns the exit code."""
    release = _release_states(request.options.get("release", ""))
    if request.action == "fifo":
        return Fifo(Path(request.fifo), request.options.get("instance"), agents, release).serve()
    turns = Turns(Path(imds.run_dir(os.environ)), request.addresses)
    return turns.run(born(), request.state, agents, release)


def keep(request: Request, agents: list[Agent], seconds: float) -> int:
    """`check ... keep=1`: nothing is asked of a backup; a master has the address or gets it. Returns the exit code."""
    turns = Turns(Path(imds.run_dir(os.environ)), request.addresses)
    if turns.newest() != "MASTER":
        return 0
    code = 0
    for agent in agents:
        state = watch.status(agent, seconds)
        outcome = turns.keep(agent, state, CHANGE_DEADLINE_S)
        if outcome is not None:
            print(f"{agent.label}: taken back: {outcome.because}", file=sys.stderr)
            code = max(code, 0 if outcome.ok else 1)
        elif isinstance(state, Unknown) and request.options.get("unknown") == "1":
            code = 1
    return code


def _release_states(text: str) -> frozenset[str]:
    chosen = frozenset(word.upper() for word in text.split(",") if word)
    unknown = chosen - {"BACKUP", "FAULT", "STOP", "DELETED"}
    if unknown:
        raise OperatorError(what=f"release={text}: backup, fault, stop and deleted are accepted")
    return chosen


def born(pid: int | None = None) -> Ticket:
    """The place of a process in the order of starts: (clock ticks since boot, pid), see proc(5)."""
    chosen = os.getpid() if pid is None else pid
    stat = Path(f"/proc/{chosen}/stat").read_text()
    # The name of the program may hold blanks and brackets; what follows its last bracket does not.
    return int(stat.rpartition(")")[2].split()[19]), chosen


class Turns:
    """The wanted state of some addresses, the last one carried out, and the lock under which that is done."""

    def __init__(self, directory: Path, addresses: list[str]) -> None:
        self._directory = directory
        name = file_name("keepalived", "+".join(sorted(addresses)))
        self._wanted = str(directory / f"{name}.wanted")
        self._done = str(directory / f"{name}.done")
        self._short = directory / f"{name}.lock"
        self._action = directory / f"{name}.turn"

    def run(self, ticket: Ticket, state: str, agents: list[Agent], release: frozenset[str]) -> int:
        """Make `state` the wanted one if it is the newest, then bring about what is wanted; returns the exit code."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._announce(ticket, state):
            print(f"{state} is older than what was announced meanwhile; nothing to do", file=sys.stderr)
            return 0
        lock = self._lock(self._action, TURN_S)
        try:
            wanted = self._read(self._wanted)
            if wanted is None or wanted == self._read(self._done):
                return 0
            outcomes = [carry_out(wanted[1], agent, release) for agent in agents]
            if all(outcome is None or outcome.ok for outcome in outcomes):
                self._write(self._done, wanted)
                return 0
            return 1
        finally:
            os.close(lock)

    def newest(self) -> str:
        """The newest state that was announced; empty when none was since boot."""
        wanted = self._read(self._wanted)
        return "" if wanted is None else wanted[1]

    def keep(self, agent: Agent, state: Status, seconds: float) -> Outcome | None:
        """As the master: take the address when another has it and the pause is over; None when there is nothing to do."""
        if self.newest() != "MASTER" or not isinstance(state, NotOurs):
            return None
        until, pause_s = self._pause(agent.address)
        if state.holder is not None and clock.wall() < until:
            return None
        if state.holder is not None:
            # A quiet time as long as the last pause ends the quarrel; one take right after it begins a new one.
            calm = clock.wall() > until + pause_s
            pause_s = PAUSE_S if calm else min(PAUSE_MAX_S, 2 * pause_s)
            write_private(self._pause_path(agent.address), f"{clock.wall() + pause_s:.3f} {pause_s:g}\n")
        lock = self._lock(self._action, TURN_S)
        try:
            return watch.start(agent, seconds) if self.newest() == "MASTER" else None
        finally:
            os.close(lock)

    def _pause_path(self, address: str) -> str:
        return str(self._directory / file_name("keepalived", address, "pause"))

    def _pause(self, address: str) -> tuple[float, float]:
        words = (read_private(self._pause_path(address)) or "").split()
        try:
            return float(words[0]), float(words[1])
        except (IndexError, ValueError):
            return 0.0, PAUSE_S

    def _announce(self, ticket: Ticket, state: str) -> bool:
        lock = self._lock(self._short, 5.0)
        try:
            found = self._read(self._wanted)
            if found is not None and found[0] > ticket:
                return False
            self._write(self._wanted, (ticket, state))
            return True
        finally:
            os.close(lock)

    def _lock(self, path: Path, patience_s: float) -> int:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        until = clock.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return handle
            except BlockingIOError:
                if clock.monotonic() > until:
                    os.close(handle)
                    raise OperatorError(what=f"{path} has been locked for {patience_s:g} s by another change") from None
                clock.sleep(0.01)

    @staticmethod
    def _read(path: str) -> tuple[Ticket, str] | None:
        words = (read_private(path) or "").split()
        if len(words) != 3 or not (words[0].isdigit() and words[1].isdigit()):
            return None
        return (int(words[0]), int(words[1])), words[2]

    @staticmethod
    def _write(path: str, wanted: tuple[Ticket, str]) -> None:
        (ticks, pid), state = wanted
        if not write_private(path, f"{ticks} {pid} {state}\n"):
            raise CannotWrite(path=path, why="the order of notifications cannot be kept")


def carry_out(state: str, agent: Agent, release: frozenset[str]) -> Outcome | None:
    """What a state asks of one address; None when it asks nothing."""
    if state == "MASTER":
        outcome = watch.start(agent, CHANGE_DEADLINE_S)
    elif state in release:
        outcome = watch.stop(agent, CHANGE_DEADLINE_S)
    else:
        print(f"{agent.label}: {state}: left where it is", file=sys.stderr)
        return None
    print(f"{agent.label}: {state}: {outcome.because}", file=sys.stderr)
    return outcome


def parse_line(line: str) -> tuple[str, str, str] | None:
    """(kind, name, state) of a FIFO line like `INSTANCE "VI_1" MASTER 101`; None for anything else."""
    head, quote, rest = line.strip().partition(' "')
    name, end, tail = rest.rpartition('" ')
    words = tail.split()
    if head not in ("INSTANCE", "GROUP") or not quote or not end or not words or words[0] not in STATES:
        return None
    return head, name, STATES[words[0]]


class Fifo:
    """One long-lived process that keepalived feeds: in order by nature, warm, and a flurry of lines costs one change."""

    def __init__(self, path: Path, instance: str | None, agents: list[Agent], release: frozenset[str]) -> None:
        self._path = path
        self._instance = instance
        self._agents = agents
        self._release = release

    def serve(self) -> int:
        """Read until keepalived closes the FIFO; returns the exit code."""
        try:
            handle = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise MissingFile(path=self._path, why=error.strerror) from error
        for agent in self._agents:
            watch.within(CHANGE_DEADLINE_S, lambda agent=agent: _warm(agent), lambda: None)  # type: ignore[misc]
        buffered = b""
        try:
            while True:
                part = os.read(handle, 65536)
                if not part:
                    return 0
                buffered += part
                # Whatever else has arrived makes these lines old: only the newest state is carried out.
                while select.select([handle], [], [], 0)[0]:
                    more = os.read(handle, 65536)
                    if not more:
                        break
                    buffered += more
                lines, newline, rest = buffered.rpartition(b"\n")
                buffered = rest if newline else buffered
                self._newest(lines.decode("utf-8", "replace").splitlines())
        finally:
            os.close(handle)

    def _newest(self, lines: list[str]) -> None:
        for line in reversed(lines):
            found = parse_line(line)
            if found is not None and self._instance in (None, found[1]):
                for agent in self._agents:
                    carry_out(found[2], agent, self._release)
                return


def _warm(agent: Agent) -> None:
    try:
        agent.warm()
    except Exception as error:
        print(f"{agent.label}: not warm: {error}", file=sys.stderr)

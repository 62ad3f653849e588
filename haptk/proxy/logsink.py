"""Where the reference's log lines go: syslog over UDP or a unix socket, stdout, stderr, a descriptor. Never blocks, never raises.

A line that cannot be sent is counted and dropped: traffic is worth more than its record. The compiled workers have
haptk/_fast/logwriter.pyx instead.
"""

from __future__ import annotations

import os
import socket
import threading

from haptk.core.logline import syslog_header
from haptk.formats.haproxy_cfg.logs import FACILITIES, LEVELS
from haptk.io import clock
from haptk.proxy.logformats import header_of
from haptk.proxy.tables import LogPlan, LogTarget

RETRY_S = 1.0  # between two looks for a receiver that went away


class LogSink:
    """The targets of one frontend, opened once. Lines for a ring are kept by nobody here."""

    def __init__(self, plan: LogPlan) -> None:
        self.plan = plan
        self.lost = 0
        self.lines = 0
        self._lock = threading.Lock()
        self._open = [(target, _Place(target), _Sample(target)) for target in plan.targets]

    def write(self, message: str, level: str = "info", structured: str = "") -> None:
        """Send one line to every target whose limits let the level through."""
        with self._lock:
            self.lines += 1
            for target, place, sample in self._open:
                number = LEVELS.index(level)
                if number <= LEVELS.index(target.level) and sample.wants():
                    self._send(target, place, max(number, LEVELS.index(target.min_level)), message, structured)

    def _send(self, target: LogTarget, place: _Place, level: int, message: str, structured: str) -> None:
        now = clock.wall()
        form = header_of(target.format, self.plan.hostname)
        header = syslog_header(
            form, FACILITIES.index(target.facility), level, now, clock.local_offset_s(now), self.plan.hostname,
            self.plan.tag, os.getpid(), structured,
        )  # fmt: skip
        data = message.encode("latin-1", "replace")
        if target.address in ("stdout", "stderr") or target.address.startswith("fd@"):
            whole = header.encode() + data[: target.length] + b"\n"
        else:
            whole = (header.encode() + data)[: target.length] + b"\n"
        if not place.send(whole):
            self.lost += 1

    def close(self) -> None:
        """Close the sockets."""
        for _, place, _ in self._open:
            place.close()


class _Place:
    """Where the lines of one target go. A syslog daemon that was started again, or is first found in the chroot, is looked for."""

    def __init__(self, target: LogTarget) -> None:
        self.target = target
        self.again_at = 0.0
        self.channel: socket.socket | int | None = _connect(target)

    def send(self, line: bytes) -> bool:
        """Whether the line went out, after one more look for the receiver where it is not where it was."""
        if self._put(line):
            return True
        if isinstance(self.channel, int) or clock.monotonic() < self.again_at:
            return False
        self.close()
        self.again_at = clock.monotonic() + RETRY_S
        self.channel = _connect(self.target)
        return self._put(line)

    def _put(self, line: bytes) -> bool:
        try:
            if isinstance(self.channel, int):
                os.write(self.channel, line)
            elif self.channel is not None:
                self.channel.send(line)
            return self.channel is not None
        except BlockingIOError:
            self.again_at = clock.monotonic() + RETRY_S  # it is there, and slow: no other one would be found
            return False
        except OSError:
            return False

    def close(self) -> None:
        """Close the socket."""
        if isinstance(self.channel, socket.socket):
            self.channel.close()
        self.channel = None


class _Sample:
    """`sample RANGES:SIZE`: which lines of a period a target gets."""

    def __init__(self, target: LogTarget) -> None:
        self.numbers = {number for low, high in target.sample for number in range(low, high + 1)}
        self.size = target.sample_size
        self.seen = 0

    def wants(self) -> bool:
        if not self.numbers:
            return True
        self.seen = self.seen % self.size + 1
        return self.seen in self.numbers


def _connect(target: LogTarget) -> socket.socket | int | None:
    if target.address.startswith("ring@"):
        return None
    if target.address in ("stdout", "stderr"):
        return 1 if target.address == "stdout" else 2
    if target.address.startswith("fd@"):
        return int(target.address[3:])
    try:
        if target.address.startswith(("/", "\0")):
            channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            channel.setblocking(False)
            channel.connect(target.address)
            return channel
        host, _, port = target.address.rpartition(":")
        host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
        channel = socket.socket(
            socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
        )
        channel.setblocking(False)
        channel.connect((host, int(port)))
        return channel
    except OSError:
        return None

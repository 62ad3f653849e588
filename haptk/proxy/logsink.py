"""Where log lines go: syslog over UDP or a unix socket, stdout, stderr, an inherited descriptor. Never blocks, never raises.

A line that cannot be sent is counted and dropped: traffic is worth more than its record.
"""

from __future__ import annotations

import os
import socket

from haptk.core.logline import syslog_line
from haptk.formats.haproxy_cfg.logs import FACILITIES, LEVELS
from haptk.io import clock
from haptk.proxy.tables import LogPlan, LogTarget


class LogSink:
    """The targets of one frontend (or backend), opened once."""

    def __init__(self, plan: LogPlan) -> None:
        self.plan = plan
        self.lost = 0
        self.host = socket.gethostname()
        self._open = [(target, _connect(target)) for target in plan.targets]

    def write(self, message: str, level: str = "info") -> None:
        """Send one line to every target whose limits let the level through."""
        now = clock.wall()
        for target, place in self._open:
            number = LEVELS.index(level)
            if number > LEVELS.index(target.level):
                continue
            number = max(number, LEVELS.index(target.min_level))
            priority = FACILITIES.index(target.facility) * 8 + number
            default = "raw" if isinstance(place, int) else "local"
            name = target.format if target.format not in ("", "rfc3164") else default
            data = syslog_line(name, priority, now, self.host, self.plan.tag, os.getpid(), message)[: target.length]
            try:
                if isinstance(place, int):
                    os.write(place, data if data.endswith(b"\n") else data[:-1] + b"\n")
                elif place is not None:
                    place.send(data)
                else:
                    self.lost += 1
            except OSError:
                self.lost += 1

    def close(self) -> None:
        """Close the sockets."""
        for _, place in self._open:
            if isinstance(place, socket.socket):
                place.close()


def _connect(target: LogTarget) -> socket.socket | int | None:
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

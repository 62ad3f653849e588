"""sd_notify(3) in a few lines: tell systemd what state a daemon is in. Does nothing where no NOTIFY_SOCKET is set."""

from __future__ import annotations

import os
import socket

from haptk.io import clock

_channel: socket.socket | None = None  # of a process that will not see the path any more


def keep() -> None:
    """Open the way to systemd now: after a `chroot` its socket has no name. Later notifications take it."""
    global _channel  # noqa: PLW0603 (there is one systemd)
    if _channel is None and (address := _address()):
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            channel.connect(address)
        except OSError:
            channel.close()
        else:
            _channel = channel


def _address() -> str:
    target = os.environ.get("NOTIFY_SOCKET", "")
    if not target.startswith(("/", "@")):
        return ""
    return "\0" + target[1:] if target.startswith("@") else target


def notify(**fields: str | int) -> bool:
    """Send one datagram, for instance `notify(READY=1, STATUS="holding 203.0.113.10")`; True when it was sent."""
    address = _address()
    if not address:
        return False
    payload = "\n".join(f"{key}={value}" for key, value in fields.items())
    if _channel is not None:
        try:
            _channel.send(payload.encode())
        except OSError:
            return False
        return True
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.sendto(payload.encode(), address)
        except OSError:
            return False
    return True


def ready(status: str) -> bool:
    return notify(READY=1, STATUS=status)


def reloading(status: str) -> bool:
    """RELOADING and MONOTONIC_USEC have to travel in one message (Type=notify-reload)."""
    return notify(RELOADING=1, MONOTONIC_USEC=clock.monotonic_usec(), STATUS=status)


def stopping(status: str) -> bool:
    return notify(STOPPING=1, STATUS=status)


def watchdog() -> bool:
    return notify(WATCHDOG=1)


def watchdog_interval_s() -> float | None:
    """Half of WATCHDOG_USEC in seconds, the interval at which to ping; None when systemd asks for none."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID", "")
    if not usec.isdigit() or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 2_000_000

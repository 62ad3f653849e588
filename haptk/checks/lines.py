"""Line protocols over one Exchange: buffered reading with a limit, and a probe that ends as a finding whatever happens."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from haptk.checks.base import Finding, Limits, conclude
from haptk.io.exchange import Exchange, Failed
from haptk.report.nagios import State

BYTES_MAX = 4 * 1024 * 1024


class Denied(Failed):
    """The peer is well and refuses us: wrong or missing credentials say nothing about the service."""


class Lines:
    """Reads lines and counted bytes. A peer that ends early or sends too much is a Failed with HAProxy's code."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.buffer = b""

    def _more(self) -> None:
        part = self.exchange.receive()
        if not part:
            raise Failed("L7RSP", f"{self.exchange.where} closed in the middle of its answer")
        self.buffer += part
        if len(self.buffer) > BYTES_MAX:
            raise Failed("L7RSP", f"{self.exchange.where} answered with more than {BYTES_MAX} bytes")

    def line(self) -> bytes:
        """The next line without its end."""
        while b"\n" not in self.buffer:
            self._more()
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.removesuffix(b"\r")

    def exactly(self, count: int) -> bytes:
        """The next `count` bytes and the line end behind them, which is dropped."""
        if count > BYTES_MAX:
            raise Failed("L7RSP", f"{self.exchange.where} announced {count} bytes")
        while len(self.buffer) < count + 2:
            self._more()
        data, self.buffer = self.buffer[:count], self.buffer[count + 2 :]
        return data

    def rest(self) -> bytes:
        """Everything until the peer closes."""
        while True:
            part = self.exchange.receive()
            if not part:
                return self.buffer
            self.buffer += part
            if len(self.buffer) > BYTES_MAX:
                raise Failed("L7RSP", f"{self.exchange.where} answered with more than {BYTES_MAX} bytes")


def shown(data: bytes) -> str:
    """What a peer said, for a sentence: short, and printable by `nagios.plain`."""
    return data[:80].decode("utf-8", "replace")


def fresh_value() -> bytes:
    """A value that no earlier check and no other node's check has stored."""
    return secrets.token_hex(16).encode()


def converse(
    host: str, port: int, timeout_s: float, limits: Limits, talk: Callable[[Exchange, Lines], Finding]
) -> Finding:
    """Connect, `talk`, close. `talk` may raise Failed; its finding gets the time of the whole as its first figure."""
    exchange = Exchange(host, port, timeout_s)
    try:
        exchange.connect()
        found = talk(exchange, Lines(exchange))
        time = limits.time(exchange.result(True, "", "").duration_s, timeout_s)
        return conclude(found.state, found.text, (time, *found.perf), found.more, found.facts)
    except Failed as failed:
        # Not being allowed to ask is our misfortune, not the service's.
        denied = isinstance(failed, Denied) or failed.reason.endswith("permission denied")
        state = State.UNKNOWN if denied else State.CRITICAL
        time = limits.time(exchange.result(False, "", "").duration_s, timeout_s)._replace(warning=None, critical=None)
        return Finding(state, f"{failed.reason} ({failed.code})", (time,), facts={"code": failed.code})
    except OSError as error:
        return Finding(State.UNKNOWN, f"this machine could not probe {exchange.where}: {error}")
    finally:
        exchange.close()

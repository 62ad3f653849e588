"""`tcp`: connect, optionally over TLS, send something and expect something, under one deadline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from haptk.checks.base import Check, Finding, Limits, conclude
from haptk.io import clock
from haptk.io.exchange import Exchange, Failed, ProbeResult
from haptk.report.nagios import Perf, State

if TYPE_CHECKING:
    from haptk.io.tls import TlsWish

FIGURES = ("time", "certificate")
MAX_BYTES = 1 << 20  # of an answer that expectations see, as haptk.io.probe has it


class Expect(NamedTuple):
    """An expectation as haptk.io.probe reads it."""

    kind: str
    pattern: str
    negate: bool = False


class Step(NamedTuple):
    """A step of a scripted TCP probe."""

    action: str
    data: bytes = b""
    port: int = 0
    expect: Expect | None = None


def regex(text: str) -> str:
    """The pattern itself; ValueError when it is none."""
    import re

    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from None
    return text


def tls_wish(name: str, ca_file: str | None, no_verify: bool) -> TlsWish:
    """What is asked of a TLS peer; imports ssl, so only called where TLS is wanted."""
    from haptk.io.tls import TlsWish

    return TlsWish(name, not no_verify, ca_file)


def tcp(
    host: str,
    port: int,
    timeout_s: float,
    limits: Limits,
    *,
    send: bytes = b"",
    expect: Sequence[Expect] = (),
    tls: TlsWish | None = None,
    max_bytes: int = MAX_BYTES,
) -> Check:
    """A check that a connection is accepted and, with `send` or `expect`, that the answer is as expected."""

    def look(timeout_s: float) -> Finding:
        if send or expect:
            from haptk.io.probe import probe_tcp

            steps = [Step("send", send)] if send else []
            steps += [Step("expect", expect=wish) for wish in expect]
            return of_probe(
                probe_tcp(host, port, timeout_s, steps=steps, tls=tls, max_bytes=max_bytes), timeout_s, limits
            )
        # A bare connect needs none of the protocols of haptk.io.probe, and their import costs more than the check.
        return of_probe(_connect(host, port, timeout_s, tls), timeout_s, limits)

    where = host if host.startswith("/") else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return Check("TCP", where, timeout_s, look)


def _connect(host: str, port: int, timeout_s: float, tls: TlsWish | None) -> ProbeResult:
    exchange = Exchange(host, port, timeout_s, tls=tls)
    try:
        exchange.connect()
        return exchange.result(True, "L6OK" if tls else "L4OK", f"{exchange.where} accepts connections")
    except Failed as failed:
        return exchange.result(False, failed.code, failed.reason)
    except OSError as error:
        return exchange.result(False, "SOCKERR", f"this machine could not probe {exchange.where}: {error}")
    finally:
        exchange.close()


def of_probe(result: ProbeResult, timeout_s: float, limits: Limits) -> Finding:
    """A probe's result as a finding: its code in the text, its time and the certificate's days as figures."""
    perf = [limits.time(result.duration_s, timeout_s)]
    text = f"{result.reason} ({result.code})"
    if result.tls is not None:
        perf.append(certificate_days(result, limits))
        text += f", {result.tls.version}"
    # A machine without sockets left cannot say anything about the service, nor can half an answer.
    failed = State.UNKNOWN if result.code in ("SOCKERR", "UNK") else State.CRITICAL
    state = State.OK if result.ok else failed
    if not result.ok:
        # Its time says how long the failure took; thresholds on it would add nothing.
        perf[0] = perf[0]._replace(warning=None, critical=None)
    facts = {"code": result.code, "status": result.status}
    return conclude(state, text, perf, facts=facts)


def certificate_days(result: ProbeResult, limits: Limits) -> Perf:
    """Days until the peer's certificate ends; by default a warning below 14 and an alarm below 3."""
    limits.default("certificate", warning="14:", critical="3:")
    end = result.tls.not_after if result.tls is not None else None
    days = None if end is None else (end - clock.wall()) / 86400
    return limits.perf("certificate", None if days is None else round(days, 2))

"""Numbers, times, sizes and addresses as haproxy.cfg writes them. Each function returns a value or raises Refused."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass

from haptk.formats.haproxy_cfg.model import Refused

_TIME_UNITS_US = {"us": 1, "ms": 1000, "s": 10**6, "m": 60 * 10**6, "h": 3600 * 10**6, "d": 86400 * 10**6}
_MAX_TIME_MS = 2**31 - 1  # HAProxy refuses more: its timers are signed 32-bit milliseconds


def time_s(text: str, what: str, unit: str = "ms") -> float:
    """Seconds of a time such as `30s`, `2h` or `5000` (plain numbers are in `unit`). Milliseconds are rounded up."""
    found = re.fullmatch(r"(\d+)(us|ms|s|m|h|d)?", text)
    if not found:
        raise Refused(
            f"{what}: {text!r} is no time; accepted is a number with one of us ms s m h d, {unit} when absent"
        )
    microseconds = int(found[1]) * _TIME_UNITS_US[found[2] or unit]
    milliseconds = -(-microseconds // 1000)
    if milliseconds > _MAX_TIME_MS:
        raise Refused(f"{what}: {text} is too long, at most {_MAX_TIME_MS} ms (about 24.8 days)")
    return milliseconds / 1000


def seconds(text: str, what: str) -> int:
    """Whole seconds of a time whose plain numbers are seconds (cookie maxidle, stats refresh, slowstart in part)."""
    return int(time_s(text, what, unit="s"))


def integer(text: str, what: str, low: int = 0, high: int = 2**31 - 1) -> int:
    """A whole number within `low` and `high`."""
    if not re.fullmatch(r"[+-]?\d{1,18}", text) or not low <= int(text) <= high:
        raise Refused(f"{what}: {text!r} is not a whole number from {low} to {high}")
    return int(text)


def size(text: str, what: str) -> int:
    """A size with an optional k, m or g (binary)."""
    found = re.fullmatch(r"(\d{1,12})([kKmMgG]?)", text)
    if not found:
        raise Refused(f"{what}: {text!r} is no size; accepted is a number with an optional k, m or g")
    return int(found[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[found[2].lower()]


def one_of(text: str, what: str, accepted: tuple[str, ...]) -> str:
    """`text` when it is one of the accepted words."""
    if text not in accepted:
        raise Refused(f"{what}: {text!r} is unknown; accepted are {', '.join(accepted)}")
    return text


# What `$NAME` in an address sees: the environment of the program as the lines above have changed it. Set for each line.
ENVIRONMENT: ContextVar[Mapping[str, str]] = ContextVar("ENVIRONMENT")
ABSTRACT_BYTES = 108  # sun_path: HAProxy fills an abstract name up with NUL bytes, and they are part of the name


def expand(text: str) -> str:
    """`$NAME` and `${NAME}` in an address, which HAProxy expands there without quotes too; unknown ones are empty.

    This is another, simpler grammar than that of words in double quotes: no default, no list, and what it does not
    know (`$` before a blank name, an open brace) disappears without an error.
    """
    if "$" not in text:
        return text
    environ = ENVIRONMENT.get({})
    return re.sub(
        r"\$(?:\{([A-Za-z0-9_]*)\}?|([A-Za-z0-9_]*))", lambda found: environ.get(found[1] or found[2] or "", ""), text
    )


@dataclass(frozen=True)
class Address:
    """A parsed address word. Exactly one of host (maybe ""), `unix_path` or `fd` says where; `host` "" is any address.

    `fd` is an inherited descriptor's number. `port_offset` holds `+N`/`-N`; `ports` a range as (low, high).
    """

    host: str = ""
    ports: tuple[int, int] = (0, 0)
    port_offset: int | None = None
    unix_path: str = ""
    fd: int = -1
    family: int = 0  # 4 or 6 where the text says it
    has_port: bool = False

    @property
    def port(self) -> int:
        return self.ports[0]


_PREFIXES = ("ipv4@", "ipv6@", "unix@", "abns@", "fd@", "sockpair@", "udp4@", "udp6@", "udp@", "tcp4@", "tcp6@", "tcp@")


def address(text: str, what: str, *, port_range: bool = False, offset: bool = False) -> Address:
    """An address: `host:port`, `:port`, `*:port`, `[v6]:port`, `v6::port`, `/path`, `unix@path`, `abns@name`, `fd@N`.

    A port may be a range (`port_range`) or relative (`offset`). Abstract sockets keep a NUL first in `unix_path`, and
    are as long as the kernel's structure. Variables are expanded.
    """
    text = expand(text)
    family = 0
    prefix = next((known for known in _PREFIXES if text.startswith(known)), "")
    rest = text[len(prefix) :]
    if prefix == "fd@":
        return Address(fd=integer(rest, f"{what}: the descriptor of {text!r}", 0, 1 << 20))
    if prefix in ("sockpair@", "udp@", "udp4@", "udp6@"):
        raise Refused(f"{what}: {prefix} is known to HAProxy but not to haptk, which takes TCP and unix stream sockets")
    if prefix in ("unix@", "abns@") or text.startswith("/"):
        path = rest
        if not path or len(path.encode("utf-8", "surrogateescape")) > 97:
            raise Refused(f"{what}: a socket path has 1 to 97 bytes, {path!r} has not")
        return Address(unix_path=("\0" + path).ljust(ABSTRACT_BYTES, "\0") if prefix == "abns@" else path)
    if prefix:
        family = 6 if "6" in prefix else 4 if "4" in prefix else 0
    host, port_text = _split_port(rest)
    low_high, relative = _ports(port_text, what, text, port_range=port_range, offset=offset)
    if host in ("*", "0.0.0.0"):
        host, family = "", family or 4
    elif host == "::":
        host, family = "", 6
    elif host:
        family = _family_of(host, what) or family
    return Address(host=host, ports=low_high, port_offset=relative, family=family, has_port=bool(port_text))


def _split_port(text: str) -> tuple[str, str]:
    """Host and port text. `::1` alone is a host; in `a::1:80` the last number is the port, as HAProxy reads it."""
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        return (host, rest.removeprefix(":")) if closed else (text, "")
    host, colon, port = text.rpartition(":")
    return (host, port) if colon else (text, "")


def _ports(text: str, what: str, whole: str, *, port_range: bool, offset: bool) -> tuple[tuple[int, int], int | None]:
    if not text:
        return (0, 0), None
    if offset and text[0] in "+-":
        return (0, 0), integer(text, f"{what}: the port offset of {whole!r}", -65535, 65535)
    low, dash, high = text.partition("-")
    if dash and not port_range:
        raise Refused(f"{what}: a port range is not accepted here ({whole!r})")
    first = integer(low, f"{what}: the port of {whole!r}", 0, 65535)
    last = integer(high, f"{what}: the port of {whole!r}", 0, 65535) if dash else first
    if last < first:
        raise Refused(f"{what}: the port range of {whole!r} runs backwards")
    return (first, last), None


def _family_of(host: str, what: str) -> int:
    try:
        return ipaddress.ip_address(host).version
    except ValueError:
        pass
    if not re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})", host):
        raise Refused(f"{what}: {host!r} is neither an IP address nor a host name")
    return 0

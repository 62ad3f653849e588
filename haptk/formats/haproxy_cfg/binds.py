"""`bind` lines: addresses, ranges, unix sockets, inherited descriptors, and their options (configuration.txt 5.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from haptk.formats.haproxy_cfg import units
from haptk.formats.haproxy_cfg.model import Args, Refused, Section, names

_LEVELS = ("user", "operator", "admin")


def _number(low: int, high: int) -> Callable[[Args, str], Any]:
    return lambda args, word: units.integer(args.take(f"the value of {word}"), word, low, high)


def _text(args: Args, word: str) -> str:
    return args.take(f"the value of {word}")


def _mode(args: Args, word: str) -> int:
    text = args.take("the file mode")
    try:
        return int(text, 8)
    except ValueError:
        raise Refused(f"{word}: {text!r} is no octal file mode") from None


def _level(args: Args, word: str) -> str:
    return units.one_of(args.take("the level"), word, _LEVELS)


def _exposed(args: Args, word: str) -> str:
    return units.one_of(args.take("what to expose"), word, ("listeners",))


def _severity(args: Args, word: str) -> str:
    return units.one_of(args.take("how severities are shown"), word, ("none", "number", "string"))


def _flag(_args: Args, _word: str) -> bool:
    return True


# option -> (key in the bind's settings, reader)
OPTIONS: dict[str, tuple[str, Callable[[Args, str], Any]]] = {
    "accept-proxy": ("accept_proxy", _flag),
    "backlog": ("backlog", _number(1, 2**31 - 1)),
    "maxconn": ("maxconn", _number(1, 2**31 - 1)),
    "name": ("name", _text),
    "id": ("id", _number(1, 2**31 - 1)),
    "mode": ("mode", _mode),
    "uid": ("uid", _number(0, 2**31 - 1)),
    "gid": ("gid", _number(0, 2**31 - 1)),
    "user": ("user", _text),
    "group": ("group", _text),
    "v4v6": ("v4v6", _flag),
    "v6only": ("v6only", _flag),
    "transparent": ("transparent", _flag),
    "level": ("level", _level),
    "expose-fd": ("expose_fd", _exposed),
    "severity-output": ("severity_output", _severity),
}

# Known to HAProxy 2.6 and harmless to leave out: hints to the scheduler and the kernel.
HINTS = {"process": 1, "thread": 1, "nice": 1, "defer-accept": 0, "tfo": 0, "shards": 1}

UNSUPPORTED = names(
    "accept-netscaler-cip interface mss namespace proto tcp-ut ssl allow-0rtt alpn ca-file ca-ignore-err ca-sign-file "
    "ca-sign-pass ca-verify-file ciphers ciphersuites crl-file crt crt-ignore-err crt-list curves ecdhe force-sslv3 "
    "force-tlsv10 force-tlsv11 force-tlsv12 force-tlsv13 generate-certificates no-ca-names no-sslv3 no-tls-tickets "
    "no-tlsv10 no-tlsv11 no-tlsv12 no-tlsv13 npn prefer-client-ciphers ssl-max-ver ssl-min-ver strict-sni "
    "tls-ticket-keys verify"
)


def read_options(section: Section, args: Args, what: str) -> dict[str, Any]:
    """The option words of a bind or `stats socket` line as a dict."""
    options: dict[str, Any] = {}
    for word in args:
        if word in OPTIONS:
            key, read = OPTIONS[word]
            options[key] = read(args, word)
        elif word in HINTS:
            if HINTS[word]:
                args.take(f"the value of {word}")
            section.warn(args.line, f"{what} {word}: accepted; it has no effect in haptk")
        elif word in UNSUPPORTED:
            raise Refused(f"{what}: HAProxy knows {word!r}, haptk does not; accepted are {_names()}")
        else:
            raise Refused(f"{what}: unknown word {word!r}, which HAProxy does not know either; accepted are {_names()}")
    return options


def _names() -> str:
    return ", ".join(sorted({*OPTIONS, *HINTS}))


def addresses(text: str, what: str) -> list[dict[str, Any]]:
    """Every listening address of a comma-separated list, ranges expanded to one entry each."""
    found: list[dict[str, Any]] = []
    for part in text.split(","):
        parsed = units.address(part, what, port_range=True)
        place: dict[str, Any] = {"text": part, "family": parsed.family}
        if parsed.unix_path:
            found.append({**place, "unix_path": parsed.unix_path})
        elif parsed.fd >= 0:
            found.append({**place, "fd": parsed.fd})
        else:
            low, high = parsed.ports
            if low == 0:
                raise Refused(f"{what}: {part!r} has no port; accepted is ADDRESS:PORT or ADDRESS:LOW-HIGH")
            found += [{**place, "host": parsed.host, "port": port} for port in range(low, high + 1)]
    return found


def bind(section: Section, args: Args) -> None:
    """`bind [ADDRESS]:PORT[-HIGH][, ...] [options]`; also the address on an old `listen NAME ADDRESS` line."""
    places = addresses(args.take("an address"), "bind")
    options = read_options(section, args, "bind")
    for place in places:
        section.append("binds", {**place, **options, "line": args.line.where})

"""`resolvers` sections: which name servers are asked for servers' names, and how long an answer holds (configuration.txt 5.3.2)."""

from __future__ import annotations

import ipaddress

from haptk.formats.haproxy_cfg import units
from haptk.formats.haproxy_cfg.model import Args, Directive, Refused, Section

HOLDS = ("nx", "obsolete", "other", "refused", "timeout", "valid")
FAMILIES = ("ipv4", "ipv6")
OPTIONS = ("allow-dup-ip", "ignore-weight", "prevent-dup-ip")


def _nameserver(section: Section, args: Args) -> None:
    name = args.take("a name")
    text = units.expand(args.take("an address"))
    over_tcp = text.startswith(("tcp@", "tcp4@", "tcp6@"))
    bare = text.partition("@")[2] if text.startswith(("udp@", "udp4@", "udp6@", "tcp@", "tcp4@", "tcp6@")) else text
    place = units.address(bare, f"nameserver {name}")
    if place.unix_path or place.fd >= 0 or not place.host or not place.family:
        raise Refused(f"nameserver {name}: {text!r} is no IP address with a port, as in 10.0.0.2:53")
    if args:
        raise Refused(f"nameserver {name}: HAProxy may know {args.peek()!r}, haptk takes an address only")
    if name in [known["name"] for known in section.get("nameservers", ())]:
        raise Refused(f"nameserver {name}: another one of this section has the same name")
    section.append("nameservers", {"name": name, "host": place.host, "port": place.port or 53, "tcp": over_tcp})


def _hold(section: Section, args: Args) -> None:
    what = units.one_of(args.take("a status"), "hold", HOLDS)
    section.merge("holds", **{what: units.time_s(args.take("a time"), f"hold {what}")})
    args.done()


def _timeout(section: Section, args: Args) -> None:
    what = units.one_of(args.take("an event"), "timeout", ("resolve", "retry"))
    value = units.time_s(args.take("a time"), f"timeout {what}")
    if value <= 0:
        raise Refused(f"timeout {what}: the time is more than 0")
    section.merge("timeouts", **{what: value})
    args.done()


def _retries(section: Section, args: Args) -> None:
    section.set("retries", units.integer(args.take("a number"), "resolve_retries", 1, 100))
    args.done()


def _payload(section: Section, args: Args) -> None:
    section.set("payload", units.integer(args.take("a size"), "accepted_payload_size", 512, 65535))
    args.done()


def _system(section: Section, args: Args) -> None:
    args.done()
    section.set("system", args.line.where)


RESOLVERS: dict[str, Directive] = {
    "accepted_payload_size": Directive(_payload, "r"),
    "hold": Directive(_hold, "r"),
    "nameserver": Directive(_nameserver, "r"),
    "parse-resolv-conf": Directive(_system, "r"),
    "resolve_retries": Directive(_retries, "r"),
    "timeout": Directive(_timeout, "r"),
}


def prefer(args: Args, word: str) -> str:
    """The value of `resolve-prefer`."""
    return units.one_of(args.take("a family"), word, FAMILIES)


def options(args: Args, word: str) -> tuple[str, ...]:
    """The value of `resolve-opts`."""
    return tuple(units.one_of(each, word, OPTIONS) for each in args.take("a list of options").split(","))


def networks(args: Args, word: str) -> tuple[str, ...]:
    """The value of `resolve-net`: where addresses are preferred from."""
    found = []
    for each in args.take("a list of networks").split(","):
        try:
            found.append(str(ipaddress.ip_network(each, strict=False)))
        except ValueError:
            raise Refused(f"{word}: {each!r} is no network, as in 10.0.0.0/8") from None
    return tuple(found)

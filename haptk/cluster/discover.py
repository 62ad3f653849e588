"""From files that somebody has to a Draft: haproxy.cfg, ha.cf, haresources and keepalived.conf, with their known faults.

A file is recognised by its words, not by its name. What it says is taken over; what it gets wrong is named, and the
declaration made from it is right.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from haptk.cluster import faults
from haptk.cluster.draft import Draft
from haptk.cluster.problem import Problem
from haptk.cluster.units import Seconds
from haptk.errors import ConfigError
from haptk.formats import ha_cf, haproxy_cfg, keepalived_conf

_IPV4 = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])")
_HARESOURCES = re.compile(r"^[A-Za-z0-9._-]+\s+\S*(::|\d+\.\d+\.\d+\.\d+)", re.M)


@dataclass
class Found:
    """What the files said, and what is wrong in them."""

    draft: Draft = field(default_factory=Draft)
    problems: list[Problem] = field(default_factory=list)
    keepalived: list[tuple[keepalived_conf.Block, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def kind_of(text: str) -> str:
    """haproxy, keepalived, ha.cf, haresources, or "" for a file that is none of them."""
    lines = [line.split() for line in text.splitlines()]
    first = {words[0] for words in lines if words and not words[0].startswith(("#", "!"))}
    if {"vrrp_instance", "vrrp_script"} & first:
        return "keepalived"
    if {"listen", "frontend", "backend"} & first:
        return "haproxy"
    if "node" in first and {"ucast", "bcast", "mcast", "keepalive", "deadtime"} & first:
        return "ha.cf"
    return "haresources" if _HARESOURCES.search(text) else ""


def discover(files: Iterable[tuple[str, str]]) -> Found:
    """Read (name, text) pairs. Raises ConfigError for a file that is none of the four or cannot be read."""
    found = Found()
    # haresources names nodes that ha.cf declares, so it comes last.
    order = {"haproxy": 0, "ha.cf": 1, "keepalived": 2, "haresources": 3, "": 4}
    for name, text in sorted(files, key=lambda pair: order[kind_of(pair[1])]):
        kind = kind_of(text)
        if not kind:
            why = "neither a haproxy.cfg nor a ha.cf, haresources or keepalived.conf: none of their words is in it"
            raise ConfigError(file=name, line=1, why=why)
        found.problems.extend(faults.in_text(text, name))
        _READERS[kind](found, name, text)
    found.problems.extend(faults.between_keepalived(found.keepalived))
    found.problems.sort()
    return found


def is_public(text: str) -> bool:
    """Whether a word is an IPv4 address of the internet."""
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        return False
    # Documentation networks count: examples are read as well.
    return not (address.is_loopback or any(address in network for network in _PRIVATE)) and not address.is_multicast


_PRIVATE = [ipaddress.IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16")]


def _haproxy(found: Found, name: str, text: str) -> None:
    config = haproxy_cfg.parse([haproxy_cfg.Source(name, text)])
    found.problems.extend(faults.in_haproxy(config, text, name))
    farms = [section for section in config.proxies() if section.get("servers")]
    if not farms:
        raise ConfigError(file=name, line=1, why="no section has servers")
    farm = max(farms, key=lambda section: len(section.get("servers")))
    if len(farms) > 1:
        found.notes.append(f"{name}: the servers of {farm.title} were taken; there are {len(farms)} farms")
    draft = found.draft
    for server in farm.get("servers"):
        place, identity = server["place"], server.get("cookie")
        draft.put(
            "servers",
            server["name"],
            address=place.host,
            port=place.ports[0] if place.ports else None,
            id=identity if identity not in (None, server["name"]) else None,
            weight=server.get("weight"),
            backup=server.get("backup") or None,
        )
    binds = [bind for section in config.proxies() for bind in section.get("binds", ()) if bind.get("port")]
    style = "classic" if farm.get("connection") == "httpclose" else None
    draft.set("frontend", port=binds[0]["port"] if binds else None, style=style)
    draft.set("session", **_session(farm, text))
    chk = farm.get("httpchk") or {}
    intervals = [server["inter_s"] for server in farm.get("servers") if server.get("inter_s")]
    interval = Seconds(intervals[0]) if intervals else None
    draft.set(
        "check",
        method=chk.get("method"),
        path=chk.get("uri"),
        interval=interval.text if interval else None,
        timeout=min(interval, Seconds(2)).text if interval is not None and interval < 2 else None,
    )


def _session(farm: haproxy_cfg.Section, text: str) -> dict[str, Any]:
    cookie = farm.get("cookie")
    if cookie and cookie.get("mode") in ("prefix", "insert", "rewrite"):
        return {"design": cookie["mode"], "cookie": cookie["name"]}
    learned = re.search(r"^\s*appsession\s+(\S+)", text, re.M) or re.search(r"res\.cook\(([^)]+)\)", text)
    if learned:
        return {"design": "learn", "cookie": learned[1]}
    return {"design": "stateless"}


def _tolerant_ha_cf(found: Found, name: str, text: str) -> ha_cf.HaCf:
    """The file without the lines that haptk's own daemon refuses (respawn, watchdog): a tier is declared without them."""
    lines = text.splitlines()
    while True:
        try:
            return ha_cf.parse("\n".join(lines), name)
        except ConfigError as error:
            number = error.fields["line"]
            if not isinstance(number, int) or not 0 < number <= len(lines) or not lines[number - 1].strip():
                raise
            found.notes.append(f"{error}; not taken over")
            lines[number - 1] = ""


def _ha_cf(found: Found, name: str, text: str) -> None:
    parsed = _tolerant_ha_cf(found, name, text)
    found.problems.extend(faults.in_ha_cf(parsed, text))
    found.draft.set("cluster", pattern="standby", contract="heartbeat")
    found.draft.set(
        "timing",
        keepalive=Seconds(parsed.keepalive_s).text,
        deadtime=Seconds(parsed.deadtime_s).text,
        warntime=Seconds(parsed.warntime).text,
        initdead=Seconds(parsed.initdead).text,
        udpport=parsed.udpport if parsed.udpport != 694 else None,
        auto_failback=True if parsed.auto_failback == "on" else None,
        ping=parsed.pings or None,
    )
    peers = [media for media in parsed.media if media.kind == "ucast"]
    matched = len(peers) == len(parsed.nodes)
    if matched:
        found.notes.append(f"{name}: ucast lines were given to the nodes in their order; check private_ip of each")
    for place, node in enumerate(parsed.nodes):
        device = parsed.media[0].device if parsed.media else None
        found.draft.put("balancers", node.lower(), private_ip=peers[place].target if matched else None, device=device)


def _haresources(found: Found, name: str, text: str) -> None:
    from haptk.formats import haresources

    nodes = found.draft.names("balancers")
    if not nodes:
        raise ConfigError(file=name, line=1, why="haresources names nodes of a ha.cf: give that file too")
    taken = 0
    for line in haresources.parse(text, name, nodes):
        for resource in line.resources:
            public = next((word for word in _IPV4.findall(resource) if is_public(word)), None)
            if public is None:
                continue
            taken += 1
            others = [node for node in nodes if node != line.node]
            label = f"address-{taken}"
            found.draft.put("addresses", label, public_ip=public, active=line.node, standby=others)
    if not taken:
        found.notes.append(f"{name}: no resource names a public address: say --address NAME=IP:ACTIVE,STANDBY")


def _keepalived(found: Found, name: str, text: str) -> None:
    root = keepalived_conf.parse(text, name)
    found.keepalived.append((root, name))
    found.problems.extend(faults.in_keepalived(root, name))
    found.draft.set("cluster", pattern="standby", contract="keepalived")
    settings = root.get("global_defs")
    label = settings.get("router_id") if settings else None
    for instance in root.all("vrrp_instance"):
        words = {key: block.value for key in ("interface", "unicast_src_ip", "advert_int", "virtual_router_id", "state")
                 if (block := instance.get(key)) is not None}  # fmt: skip
        node = label.value.lower() if label else f"lb{len(found.keepalived)}"
        found.draft.put("balancers", node, private_ip=words.get("unicast_src_ip"), device=words.get("interface"))
        if words.get("advert_int", "").replace(".", "").isdigit():
            keepalive = Seconds.parse(float(words["advert_int"]))
            dead = Seconds(4 * keepalive)
            found.draft.set("timing", keepalive=keepalive.text, warntime=Seconds(2 * keepalive).text,
                            deadtime=dead.text, initdead=Seconds(max(30.0, dead)).text)  # fmt: skip
        _address(found, instance, node, words)


def _address(found: Found, instance: keepalived_conf.Block, node: str, words: dict[str, str]) -> None:
    every = [word for block in instance.walk() for text in block.words for word in _IPV4.findall(text)]
    public = next((word for word in every if is_public(word)), None)
    number = words.get("virtual_router_id", "")
    found.draft.put("addresses", instance.value, public_ip=public, vrrp_id=int(number) if number.isdigit() else None)
    element = found.draft.arrays["addresses"][instance.value]
    if words.get("state") == "MASTER" and "active" in element and element["active"] != node:
        element["standby"] = [element.pop("active"), *element.get("standby", [])]
    if "active" not in element:
        element["active"] = node
    elif node != element["active"]:
        element["standby"] = list(dict.fromkeys([*element.get("standby", []), node]))


_READERS = {"haproxy": _haproxy, "ha.cf": _ha_cf, "haresources": _haresources, "keepalived": _keepalived}

"""A classic load balancer as it was read, and the declaration that takes its place. Pure.

An Application Load Balancer takes the place of one that speaks HTTP, a Network Load Balancer of one that speaks TCP.
Whatever has no counterpart is named and never guessed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from haptk.cluster.draft import Draft

SECURE = ("HTTPS", "SSL")
HTTP = ("HTTP", "HTTPS")
APPLICATION, BALANCER = "AppCookieStickinessPolicyType", "LBCookieStickinessPolicyType"
_TARGET = re.compile(r"(?P<protocol>[A-Z]+):(?P<port>\d+)(?P<path>/\S*)?")


@dataclass(frozen=True)
class ClassicListener:
    """One port of it and what that leads to. `policies` are names."""

    protocol: str
    port: int
    instance_protocol: str
    instance_port: int
    certificate: str = ""
    policies: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClassicServer:
    """An instance behind it. `state` is InService or OutOfService."""

    name: str
    instance: str
    address: str
    zone: str
    state: str
    why: str = ""


@dataclass(frozen=True)
class Policy:
    """A policy of a listener: its type in ELB's words, its cookie, and how many seconds that lives (None: a browser's)."""

    name: str
    kind: str
    cookie: str = ""
    life_s: int | None = None


@dataclass(frozen=True)
class Classic:
    """Everything that migrating needs. Times in seconds; `subnets` by zone."""

    name: str
    dns_name: str
    scheme: str
    vpc: str
    subnets: dict[str, str]
    security_groups: tuple[str, ...]
    listeners: tuple[ClassicListener, ...]
    servers: tuple[ClassicServer, ...]
    policies: tuple[Policy, ...]
    check: str
    interval_s: int
    timeout_s: int
    rise: int
    fall: int
    idle_s: int = 60
    draining_s: int | None = None
    notes: list[str] = field(default_factory=list, compare=False)


def migrate(found: Classic, name: str) -> tuple[Draft, list[str]]:
    """The declaration that replaces it, as a tier of this name, and a sentence for everything that changes or is lost."""
    draft = Draft()
    notes: list[str] = []
    main = _main(found, notes)
    kind = "application" if main.protocol in HTTP else "network"
    draft.set("cluster", name=name, pattern="elb")
    _servers(found, main, draft, notes)
    design, cookie = _session(found, main, kind, notes)
    draft.set("session", design=design, cookie=cookie)
    _check(found, main, draft, notes)
    plain = next((one.port for one in found.listeners if one.protocol not in SECURE), None)
    draft.set("frontend", port=plain if plain not in (None, 80) else None)
    draft.set(
        "elb",
        type=kind,
        vpc=found.vpc or None,
        subnets=dict(sorted(found.subnets.items())) or None,
        security_groups=list(found.security_groups) if kind == "application" else None,
        certificate=main.certificate or None,
        idle_timeout=f"{found.idle_s}s" if kind == "application" and found.idle_s != 60 else None,
        deregistration_delay=f"{found.draining_s}s" if found.draining_s is not None else "0s",
    )
    if found.scheme != "internet-facing":
        notes.append(f"it is {found.scheme}: haptk makes internet-facing ones only")
    if not found.vpc:
        notes.append("it is in no VPC: instances of EC2-Classic cannot be targets")
    regions: dict[str, list[str]] = {}
    for zone in sorted(found.subnets):
        regions.setdefault(zone[:-1], []).append(zone)
    for region, zones in regions.items():
        draft.put("regions", region, zones=zones)
    if kind == "application" and len(found.subnets) < 2:
        notes.append("an application load balancer needs subnets in two zones: add one to [elb] subnets")
    return draft, notes


def _main(found: Classic, notes: list[str]) -> ClassicListener:
    """The listener that the new one is made after: HTTPS before HTTP before TCP; the others are named."""
    order = ["HTTPS", "HTTP", "SSL", "TCP"]
    ranked = sorted(found.listeners, key=lambda one: (order.index(one.protocol), one.port))
    main = ranked[0]
    for one in ranked[1:]:
        if main.protocol == "HTTPS" and one.protocol == "HTTP" and one.instance_port == main.instance_port:
            notes.append(f"HTTP {one.port} will lead to HTTPS instead of to the servers")
        else:
            notes.append(f"the listener {one.protocol} {one.port} to {one.instance_port} is not taken over")
    if main.instance_protocol in SECURE:
        notes.append(f"servers are spoken to by {main.instance_protocol}: haptk's target groups speak HTTP and TCP")
    if main.certificate and main.port != 443:
        notes.append(f"TLS listens on 443, and no longer on {main.port}")
    return main


def _servers(found: Classic, main: ClassicListener, draft: Draft, notes: list[str]) -> None:
    for one in found.servers:
        draft.put("servers", one.name, address=one.address or None, port=main.instance_port, zone=one.zone or None,
                  instance=one.instance)  # fmt: skip
        if one.state != "InService":
            notes.append(f"{one.name} is {one.state} now{f': {one.why}' if one.why else ''}")


def _session(found: Classic, main: ClassicListener, kind: str, notes: list[str]) -> tuple[str, str | None]:
    """Its stickiness as a design; a policy that is none of the two is named."""
    design: tuple[str, str | None] = ("stateless", None)
    chosen = [one for one in found.policies if one.name in main.policies]
    for policy in chosen:
        if policy.kind == APPLICATION and kind == "application":
            design = ("learn", policy.cookie)
            notes.append(f"sessions on {policy.cookie} begin anew: the new one does not read AWSELB")
        elif policy.kind == BALANCER and kind == "application":
            design = ("insert", "AWSALB")
            notes.append("sessions begin anew: its cookie AWSELB becomes AWSALB")
            life = f"for {policy.life_s} s" if policy.life_s else "as long as the browser"
            notes.append(f"the new cookie lives for a day, and not {life}")
        elif policy.kind == "SSLNegotiationPolicyType":
            notes.append(f"ciphers of {policy.name}: the new one takes ELBSecurityPolicy-TLS13-1-2-2021-06")
        else:
            notes.append(f"the policy {policy.name} ({policy.kind}) is not taken over")
    return design


def _check(found: Classic, main: ClassicListener, draft: Draft, notes: list[str]) -> None:
    target = _TARGET.fullmatch(found.check)
    path = target["path"] if target is not None else None
    if target is None or path is None:
        notes.append(f"its check {found.check} asks for no path: the new one asks for / and wants 200 to 399")
    elif int(target["port"]) != main.instance_port:
        notes.append(f"its check asks port {target['port']}: the new one asks the servers' port {main.instance_port}")
    if path is not None:
        notes.append(f"its check of {path} wants 200, the new one takes 200 to 399")
    draft.set("check", method="GET", path=path, interval=f"{found.interval_s}s", timeout=f"{found.timeout_s}s",
              rise=found.rise, fall=found.fall)  # fmt: skip

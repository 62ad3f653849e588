"""cluster.toml as frozen structs: what may be declared, with the words that the reference, the man page and editors show.

One struct is one table. A field's `Meta.description` is its documentation and `extra["accepted"]` is the end of the
error message when its value is wrong; both exist once, here. What fields mean together is in rules.py.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from haptk.cluster.units import Seconds

Pattern = Literal["round-robin", "standby", "elb"]
Contract = Literal["none", "heartbeat", "keepalived", "pacemaker", "pool"]
Design = Literal["stateless", "prefix", "insert", "rewrite", "learn"]
_OCTET = r"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = rf"^({_OCTET}\.){{3}}{_OCTET}$"


def _meta(description: str, accepted: str, **constraints: Any) -> Meta:
    return Meta(description=description, extra={"accepted": accepted}, **constraints)


def _text(description: str, accepted: str, pattern: str) -> Any:
    return Annotated[str, _meta(description, accepted, pattern=pattern)]


def _port(description: str) -> Meta:
    return _meta(description, "a port from 1 to 65535", ge=1, le=65535)


NAME_ACCEPTED = "1 to 63 letters, digits, '.', '_' and '-', beginning with a letter or digit"
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
_ZONE = r"^[a-z]{2}(-[a-z]+)+-[0-9][a-z]$"
DURATION_ACCEPTED = 'a duration such as 2, "2s", "500ms", "30m" or "8h"'


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of cluster.toml."""


class Tier(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[cluster]`: the tier as a whole."""

    name: Annotated[str, _meta("Name of the tier; it names sections, records and tags.", NAME_ACCEPTED, pattern=_NAME)]
    pattern: Annotated[
        Pattern,
        _meta(
            "How the tier stays available: `round-robin` (DNS over several balancers), `standby` (the same with a "
            "standby behind every address) or `elb` (AWS's own load balancer).",
            'one of "round-robin", "standby" and "elb"',
        ),
    ]
    contract: Annotated[
        Contract,
        _meta(
            "Who moves an address in pattern `standby`: `heartbeat`, `keepalived`, `pacemaker`, or `pool` "
            "(any spare takes any address, with a lease in DynamoDB).",
            'one of "none", "heartbeat", "keepalived", "pacemaker" and "pool"',
        ),
    ] = "none"
    proxy: Annotated[
        Literal["haproxy", "haptk"],
        _meta("Which program runs the generated haproxy.cfg.", 'one of "haproxy" and "haptk"'),
    ] = "haproxy"
    heartbeat: Annotated[
        Literal["heartbeat", "haptk"],
        _meta("Which program reads the generated /etc/ha.d.", 'one of "heartbeat" and "haptk"'),
    ] = "heartbeat"
    haptk: Annotated[
        str,
        _meta(
            "Where haptk is installed on the balancers.", "an absolute path without blanks", pattern=r"^/[^\s\"'\\$;]+$"
        ),
    ] = "/usr/bin/haptk"


class Region(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[regions]]`: a region and the availability zones of it that are used."""

    name: Annotated[
        str,
        _meta("Region, as AWS names it.", 'a region such as "eu-west-1"', pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]$"),
    ]
    zones: Annotated[
        tuple[Annotated[str, Meta(pattern=_ZONE)], ...],
        _meta("Availability zones in use.", 'a list of zones such as ["eu-west-1a", "eu-west-1b"]', min_length=1),
    ]


class Balancer(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[balancers]]`: a machine that runs the proxy."""

    name: Annotated[
        str,
        _meta("Node name: what `uname -n` says there, in lower case.", "lower-case letters, digits and '-'",
              pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$"),
    ]  # fmt: skip
    zone: Annotated[str, _meta("Its availability zone.", 'a zone such as "eu-west-1a"', pattern=_ZONE)]
    private_ip: Annotated[str, _meta("Its primary private address.", "an IPv4 address", pattern=_IPV4)]
    instance: (
        Annotated[
            str,
            _meta("Its EC2 instance.", 'an instance id such as "i-0123456789abcdef0"', pattern=r"^i-[0-9a-f]{8,17}$"),
        ]
        | None
    ) = None
    interface: Annotated[
        str,
        _meta("Its network interface, to which addresses are associated; found by metadata when absent.",
              'an interface id such as "eni-0123456789abcdef0"', pattern=r"^eni-[0-9a-f]{8,17}$"),
    ] | None = None  # fmt: skip
    device: Annotated[
        str,
        _meta("Name of that interface in the operating system (`ens5` on Nitro, `eth0` before).",
              "an interface name of at most 15 characters", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,14}$"),
    ] = "ens5"  # fmt: skip
    priority: Annotated[
        int,
        _meta("VRRP priority (contract `keepalived`); by default 100, with auto_failback 150 for an active node and 100, 99 ... for standbys.",
              "a number from 1 to 254", ge=1, le=254),
    ] | None = None  # fmt: skip


class Address(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[addresses]]`: an Elastic IP and the balancers that may hold it."""

    name: Annotated[str, _meta("Name of the address, for instance `web-a`.", NAME_ACCEPTED, pattern=_NAME)]
    public_ip: Annotated[str, _meta("The Elastic IP.", "an IPv4 address", pattern=_IPV4)]
    active: Annotated[
        str,
        _meta(
            "The balancer that holds it normally; in pattern `elb` the zone whose subnet it is mapped to.",
            "the name of a balancer (or of a zone)",
            min_length=1,
        ),
    ]
    standby: Annotated[
        tuple[str, ...],
        _meta("The balancers that take it over, best first (pattern `standby`).", "a list of names of balancers"),
    ] = ()
    allocation: Annotated[
        str,
        _meta("Its allocation id; needed for an address on a network load balancer.",
              'an allocation id such as "eipalloc-0123456789abcdef0"', pattern=r"^eipalloc-[0-9a-f]{8,17}$"),
    ] | None = None  # fmt: skip
    private_ips: Annotated[
        dict[str, Annotated[str, Meta(pattern=_IPV4)]],
        _meta("The private address it belongs to on each balancer that may hold it: needed where a balancer may hold "
              "two, because a private address carries one Elastic IP.",
              'a table of balancer and private address such as { lb1 = "10.0.1.20", lb2 = "10.0.2.20" }'),
    ] = {}  # fmt: skip
    virtual_ip: Annotated[
        str,
        _meta("A secondary private address that moves with it inside one subnet (contract `keepalived`), with its "
              "prefix length.", 'an address with a prefix length such as "10.0.1.50/24"',
              pattern=_IPV4.removesuffix("$") + r"/(3[0-2]|[12]?[0-9])$"),
    ] | None = None  # fmt: skip
    vrrp_id: Annotated[
        int,
        _meta("VRRP router id (contract `keepalived`); 51, 52 ... in the order of the file by default.",
              "a number from 1 to 255", ge=1, le=255),
    ] | None = None  # fmt: skip
    weight: (
        Annotated[
            int,
            _meta(
                "Weight of its DNS record (policy `weighted`), 1 by default.", "a number from 0 to 255", ge=0, le=255
            ),
        ]
        | None
    ) = None


class Server(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[servers]]`: an application server."""

    name: Annotated[str, _meta("Name of the server.", NAME_ACCEPTED, pattern=_NAME)]
    address: Annotated[
        str,
        _meta("Its private address.", "an IPv4 address", pattern=_IPV4),
    ]
    port: Annotated[int, _port("Port of the application.")] = 8080
    zone: Annotated[str, _meta("Its availability zone.", 'a zone such as "eu-west-1a"', pattern=_ZONE)] | None = None
    instance: (
        Annotated[
            str,
            _meta("Its EC2 instance.", 'an instance id such as "i-0123456789abcdef0"', pattern=r"^i-[0-9a-f]{8,17}$"),
        ]
        | None
    ) = None
    id: Annotated[
        str,
        _meta("Its identity in the session cookie; the name by default.",
              "1 to 63 visible characters without ';', ',', '\"' and '\\'", pattern=r'^[!#-+\--:<-\[\]-~]{1,63}$'),
    ] | None = None  # fmt: skip
    weight: Annotated[int, _meta("Its share of new sessions.", "a number from 0 to 256", ge=0, le=256)] = 1
    backup: Annotated[bool, _meta("Used only when no other server is up.", "true or false")] = False


class Frontend(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[frontend]`: what the balancers listen on."""

    port: Annotated[int, _port("Port of the service.")] = 80
    style: Annotated[
        Literal["modern", "classic"],
        _meta(
            "`modern` keeps connections alive and splits frontend and backend; `classic` writes one `listen` block "
            "with `option httpclose`, as the guides of 2008 do.",
            'one of "modern" and "classic"',
        ),
    ] = "modern"
    maxconn: Annotated[int, _meta("Connections at once.", "a number from 1 to 1000000", ge=1, le=1_000_000)] = 20000
    health_port: Annotated[int, _port("Loopback port that answers for the local checks.")] = 8404
    health_path: Annotated[
        str, _meta("Path of that answer.", 'a path such as "/haptk-health"', pattern=r"^/[!-~]*$")
    ] = "/haptk-health"
    stats_port: Annotated[int, _port("Loopback port of the statistics page.")] = 8405
    client_timeout: Annotated[Seconds, _meta("Silence after which a client is let go.", DURATION_ACCEPTED)] = Seconds(
        30
    )
    server_timeout: Annotated[Seconds, _meta("Time a server has for an answer.", DURATION_ACCEPTED)] = Seconds(30)
    connect_timeout: Annotated[Seconds, _meta("Time to connect to a server.", DURATION_ACCEPTED)] = Seconds(3)


class Session(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[session]`: how a session stays on its server."""

    design: Annotated[
        Design,
        _meta(
            "`stateless` (any server), `prefix` (the server's name before the application's cookie), `insert` (a "
            "cookie of the balancer's own), `rewrite` (the application reserves a cookie) or `learn` (a stick table of "
            "the application's cookie, shared between the balancers by peers; today's `appsession`).",
            'one of "stateless", "prefix", "insert", "rewrite" and "learn"',
        ),
    ]
    cookie: Annotated[
        str,
        _meta("Name of the cookie: the application's own for prefix, rewrite and learn.",
              "a cookie name: visible characters without separators", pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}$"),
    ] | None = None  # fmt: skip
    idle: Annotated[Seconds, _meta("Life of a learned session after its last use.", DURATION_ACCEPTED)] = Seconds(1800)
    secure: Annotated[bool, _meta("Marks an inserted cookie Secure.", "true or false")] = False
    peers_port: Annotated[int, _port("Port on which balancers share learned sessions.")] = 10000


class Check(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[check]`: how servers are checked, by the proxy and by a load balancer of AWS."""

    method: Annotated[
        Literal["HEAD", "GET", "OPTIONS"], _meta("Method of the check.", 'one of "HEAD", "GET" and "OPTIONS"')
    ] = "HEAD"
    path: Annotated[str, _meta("Path that is asked.", 'a path such as "/index.html"', pattern=r"^/[!-~]*$")] = "/"
    host: Annotated[
        str,
        _meta("Host header of the check; with it the check speaks HTTP/1.1.", "a host name",
              pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$"),
    ] | None = None  # fmt: skip
    interval: Annotated[Seconds, _meta("Time between two checks.", DURATION_ACCEPTED)] = Seconds(2)
    timeout: Annotated[Seconds, _meta("Time a check may take.", DURATION_ACCEPTED)] = Seconds(2)
    fall: Annotated[int, _meta("Failed checks that mean down.", "a number from 1 to 100", ge=1, le=100)] = 3
    rise: Annotated[int, _meta("Good checks that mean up.", "a number from 1 to 100", ge=1, le=100)] = 2


class Timing(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[timing]`: how soon a silent balancer is dead."""

    keepalive: Annotated[Seconds, _meta("Time between two heartbeats or VRRP advertisements.", DURATION_ACCEPTED)] = (
        Seconds(2)
    )
    deadtime: Annotated[Seconds, _meta("Silence that means dead.", DURATION_ACCEPTED)] = Seconds(30)
    warntime: Annotated[Seconds, _meta("Silence that is worth a warning.", DURATION_ACCEPTED)] = Seconds(10)
    initdead: Annotated[Seconds, _meta("Silence that means dead while a node starts.", DURATION_ACCEPTED)] = Seconds(
        120
    )
    auto_failback: Annotated[bool, _meta("Whether an address goes back to its active node.", "true or false")] = False
    udpport: Annotated[int, _port("UDP port of the heartbeat.")] = 694
    vrrp_weight: Annotated[
        int,
        _meta("What a failed check takes off a VRRP priority (contract `keepalived`).", "a number from -253 to -1",
              ge=-253, le=-1),
    ] = -60  # fmt: skip
    ping: Annotated[
        tuple[Annotated[str, Meta(pattern=_IPV4)], ...],
        _meta("Witnesses that a node pings before it believes that the other is dead (contract `heartbeat`).",
              "a list of IPv4 addresses"),
    ] = ()  # fmt: skip
    lease: Annotated[
        str,
        _meta("DynamoDB table whose leases decide when the balancers do not hear each other (`haptk lease init` makes "
              "it); with contract `heartbeat` and heartbeat `haptk`.",
              "the name of a table: 3 to 255 letters, digits, '.', '_' and '-'", pattern=r"^[A-Za-z0-9_.-]{3,255}$"),
    ] | None = None  # fmt: skip
    lease_ttl: Annotated[
        Seconds,
        _meta("Time after which a lease that is not renewed ends; 0.6 of the deadtime by default.", DURATION_ACCEPTED),
    ] | None = None  # fmt: skip


_DOMAIN = r"^([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.?$"


class Dns(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[dns]`: the name under which clients find the tier."""

    name: Annotated[str, _meta("The name.", 'a name such as "www.example.com"', pattern=_DOMAIN)]
    zone: Annotated[str, _meta("The zone it is in.", 'a zone such as "example.com"', pattern=_DOMAIN)]
    provider: Annotated[
        Literal["route53", "rfc2136", "octodns"],
        _meta("Who serves the zone.", 'one of "route53", "rfc2136" and "octodns"'),
    ] = "route53"
    zone_id: (
        Annotated[
            str,
            _meta(
                "Hosted zone of Route 53.",
                'a hosted zone id such as "Z0123456789ABCDEFGHIJ"',
                pattern=r"^[A-Z0-9]{1,32}$",
            ),
        ]
        | None
    ) = None
    server: (
        Annotated[
            str,
            _meta("Server that takes dynamic updates (provider `rfc2136`).", "an IPv4 address", pattern=_IPV4),
        ]
        | None
    ) = None
    policy: Annotated[
        Literal["simple", "multivalue", "weighted"],
        _meta("`simple` (one record with every address), `multivalue` or `weighted` (a record an address).",
              'one of "simple", "multivalue" and "weighted"'),
    ] = "multivalue"  # fmt: skip
    ttl: Annotated[Seconds, _meta("Time for which resolvers keep an answer.", DURATION_ACCEPTED)] = Seconds(60)
    health_checks: Annotated[bool, _meta("Whether Route 53 checks every address itself.", "true or false")] = True
    health_interval: Annotated[Literal[10, 30], _meta("Seconds between two checks of Route 53.", "10 or 30")] = 30
    health_fall: Annotated[
        int, _meta("Failed checks of Route 53 that mean down.", "a number from 1 to 10", ge=1, le=10)
    ] = 3


class Elb(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[elb]`: the load balancer of AWS (pattern `elb`); its targets are the balancers, or the servers where there are none."""

    type: Annotated[
        Literal["network", "application"], _meta("Kind of load balancer.", 'one of "network" and "application"')
    ]
    vpc: Annotated[str, _meta("The VPC.", 'a VPC id such as "vpc-0123456789abcdef0"', pattern=r"^vpc-[0-9a-f]{8,17}$")]
    subnets: Annotated[
        dict[str, Annotated[str, Meta(pattern=r"^subnet-[0-9a-f]{8,17}$")]],
        _meta("A subnet for every zone.",
              'a table of zone and subnet such as { eu-west-1a = "subnet-0123456789abcdef0" }', min_length=1),
    ]  # fmt: skip
    certificate: (
        Annotated[
            str,
            _meta(
                "Certificate of an HTTPS listener.", "an ARN of ACM or IAM", pattern=r"^arn:aws[a-z-]*:(acm|iam):\S+$"
            ),
        ]
        | None
    ) = None
    security_groups: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^sg-[0-9a-f]{8,17}$")], ...],
        _meta("Its security groups; without them haptk makes one for `application`, and `network` lets everybody in.",
              'a list of ids such as ["sg-0123456789abcdef0"]'),
    ] = ()  # fmt: skip
    source_ip: Annotated[
        bool,
        _meta("Whether a client's address stays on one target (`network`); all clients behind one NAT share it.",
              "true or false"),
    ] = False  # fmt: skip
    idle_timeout: Annotated[Seconds, _meta("Idle time of a connection (`application`).", DURATION_ACCEPTED)] = Seconds(
        60
    )
    tcp_idle_timeout: Annotated[
        Seconds,
        _meta("Silence after which a connection is forgotten (`network`, without a certificate).", DURATION_ACCEPTED),
    ] = Seconds(350)
    deregistration_delay: Annotated[
        Seconds, _meta("Time that open connections have when a target leaves.", DURATION_ACCEPTED)
    ] = Seconds(120)


class Cluster(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole declaration. `file` is where it was read."""

    cluster: Tier
    regions: tuple[Region, ...]
    servers: tuple[Server, ...]
    session: Session
    balancers: tuple[Balancer, ...] = ()
    addresses: tuple[Address, ...] = ()
    frontend: Frontend = Frontend()
    check: Check = Check()
    timing: Timing = Timing()
    dns: Dns | None = None
    elb: Elb | None = None

    def balancer(self, name: str) -> Balancer:
        """The balancer of this name; KeyError without it."""
        return next((one for one in self.balancers if one.name == name), None) or _missing(name)

    def addresses_of(self, name: str) -> tuple[Address, ...]:
        """The addresses that a balancer may hold, in the order of the file."""
        return tuple(one for one in self.addresses if name in holders(one))

    def group(self, name: str) -> tuple[Balancer, ...]:
        """The balancers tied to this one by the addresses they share, itself included, in the order of the file."""
        found = {name}
        while True:
            more = {other for address in self.addresses if found & set(holders(address)) for other in holders(address)}
            if more <= found:
                return tuple(one for one in self.balancers if one.name in found)
            found |= more

    def region_of(self, zone: str) -> str:
        """The region of a zone, "" when no region lists it."""
        return next((region.name for region in self.regions if zone in region.zones), "")


def _missing(name: str) -> Balancer:
    raise KeyError(name)


def holders(address: Address) -> tuple[str, ...]:
    """The balancers that may hold an address, best first."""
    return (address.active, *address.standby)


def cookie_id(server: Server) -> str:
    """What names the server in a cookie."""
    return server.name if server.id is None else server.id


ARRAYS: dict[str, type[Table]] = {"regions": Region, "balancers": Balancer, "addresses": Address, "servers": Server}
TABLES: dict[str, type[Table]] = {
    "cluster": Tier,
    "frontend": Frontend,
    "session": Session,
    "check": Check,
    "timing": Timing,
    "dns": Dns,
    "elb": Elb,
}
ORDER = (
    "cluster",
    "regions",
    "balancers",
    "addresses",
    "servers",
    "frontend",
    "session",
    "check",
    "timing",
    "dns",
    "elb",
)
REQUIRED = ("cluster", "regions", "servers", "session")

"""C2xx and C3xx: sessions, checks and timings."""

from __future__ import annotations

from haptk.cluster.problem import WARNING
from haptk.cluster.rules import Found, rule
from haptk.cluster.schema import Cluster, cookie_id

# Cookies that application servers make themselves: an inserted cookie of that name replaces the application's.
APPLICATION_COOKIES = {"JSESSIONID", "PHPSESSID", "ASP.NET_SessionId", "sessionid", "connect.sid"}


@rule("C201", "A server's id in a prefixed cookie has no '~'.")
def tilde(cluster: Cluster) -> Found:
    """haproxy cuts a prefixed cookie at its first '~', so half of the id would go to the application."""
    if cluster.session.design != "prefix":
        return
    for place, server in enumerate(cluster.servers):
        if "~" in cookie_id(server):
            yield ("servers", place, "id"), f"{server.name}: id {cookie_id(server)!r} has the '~' that ends a prefix"


@rule("C202", "A sticky design names its cookie.")
def cookie_needed(cluster: Cluster) -> Found:
    """There is nothing to stick to without it."""
    if cluster.session.design != "stateless" and cluster.session.cookie is None:
        yield ("session", "design"), f"design {cluster.session.design} needs the name of a cookie: cookie is missing"


@rule("C203", "A stateless design names no cookie.")
def cookie_useless(cluster: Cluster) -> Found:
    """Somebody expects stickiness that is not there."""
    if cluster.session.design == "stateless" and cluster.session.cookie is not None:
        yield (
            ("session", "cookie"),
            "design stateless uses no cookie: choose prefix, insert, rewrite or learn, or drop it",
        )


@rule("C204", "An inserted cookie is not one of the application's.")
def insert_over_application(cluster: Cluster) -> Found:
    """`cookie X insert` removes the application's own Set-Cookie of that name."""
    cookie = cluster.session.cookie
    if cluster.session.design == "insert" and cookie in APPLICATION_COOKIES:
        yield ("session", "cookie"), f"insert would delete the application's own {cookie}: take another name, or prefix"


@rule("C205", "No two servers have one id in the cookie.")
def ids(cluster: Cluster) -> Found:
    """The first of them gets every session of both."""
    if cluster.session.design == "stateless":
        return
    seen: dict[str, str] = {}
    for place, server in enumerate(cluster.servers):
        value = cookie_id(server)
        if value in seen:
            yield ("servers", place, "id"), f"{seen[value]} and {server.name} have one id {value!r} in the cookie"
        seen.setdefault(value, server.name)


@rule("C206", "Learned sessions live longer than a check needs to find a dead server.")
def idle(cluster: Cluster) -> Found:
    """A session that is forgotten between two clicks is no session."""
    session, check = cluster.session, cluster.check
    detection = check.interval * check.fall
    if session.design == "learn" and session.idle <= detection:
        yield ("session", "idle"), f"idle {session.idle.text} is not longer than the {detection:g} s that a check needs"


@rule("C301", "deadtime is more than twice keepalive.")
def deadtime(cluster: Cluster) -> Found:
    """heartbeat refuses to start otherwise: one lost packet would be a death."""
    timing = cluster.timing
    if timing.deadtime <= 2 * timing.keepalive:
        why = f"deadtime {timing.deadtime.text} has to be more than twice keepalive {timing.keepalive.text}"
        yield ("timing", "deadtime"), why


@rule("C302", "warntime is below deadtime.")
def warntime(cluster: Cluster) -> Found:
    """A warning after the death warns nobody."""
    timing = cluster.timing
    if timing.warntime >= timing.deadtime:
        yield ("timing", "warntime"), f"warntime {timing.warntime.text} has to be below deadtime {timing.deadtime.text}"


@rule("C303", "warntime is above keepalive.")
def warns_always(cluster: Cluster) -> Found:
    """Every heartbeat would be late."""
    timing = cluster.timing
    if timing.warntime <= timing.keepalive:
        why = f"warntime {timing.warntime.text} has to be above keepalive {timing.keepalive.text}"
        yield ("timing", "warntime"), why


@rule("C304", "initdead is not below deadtime.")
def initdead(cluster: Cluster) -> Found:
    """Both nodes would take everything while the network of a booting machine comes up."""
    timing = cluster.timing
    if timing.initdead < timing.deadtime:
        why = f"initdead {timing.initdead.text} must not be below deadtime {timing.deadtime.text}"
        yield ("timing", "initdead"), why


@rule("C305", "keepalive is 50 ms or more.")
def keepalive(cluster: Cluster) -> Found:
    """Below that the scheduler decides who is dead."""
    if cluster.timing.keepalive < 0.05:
        yield ("timing", "keepalive"), f"keepalive {cluster.timing.keepalive.text} is below 50ms"


@rule("C306", "A check takes no longer than its interval.")
def check_timeout(cluster: Cluster) -> Found:
    """The next check would wait for it, and fall times interval would not be the detection time."""
    check = cluster.check
    if check.timeout > check.interval:
        yield ("check", "timeout"), f"timeout {check.timeout.text} is longer than interval {check.interval.text}"


@rule("C307", "A check has an interval of 100 ms or more.")
def check_interval(cluster: Cluster) -> Found:
    """A check is a request: a tier of n balancers makes n of them."""
    if cluster.check.interval < 0.1:
        yield ("check", "interval"), f"interval {cluster.check.interval.text} is below 100ms"


@rule("C308", "A dead server is found before a client gives up.", WARNING)
def slow_check(cluster: Cluster) -> Found:
    """Requests of a dead server fail for as long as the checks need to see it."""
    check = cluster.check
    if check.interval * check.fall > 30:
        why = f"a dead server is found after {check.interval * check.fall:g} s (interval times fall)"
        yield ("check", "interval"), why

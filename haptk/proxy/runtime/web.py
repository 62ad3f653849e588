"""What the control plane answers over HTTP: the statistics of a proxy with `stats ...`, and metrics.

The forms of the address are HAProxy's: behind the prefix of `stats uri` may stand `;csv`, `;json`, `;typed`, `;up`,
`;no-maint`, `;norefresh`, `;st=WORD` and `?scope=TEXT` in any order.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable
from urllib.parse import parse_qsl, unquote_plus

from haptk.core.acl import Facts, holds
from haptk.proxy.runtime import lines, metrics, page, rows, stats
from haptk.proxy.runtime.world import World
from haptk.proxy.service import METRICS, Answer, Ask
from haptk.proxy.tables import Stats

NO_STORE = ("cache-control", "no-cache, no-store")
PLAIN = ("content-type", "text/plain")


def answer(look: Callable[[], World], ask: Ask) -> Answer:
    """The response to one request that a worker handed over."""
    world = look()
    if ask.service == METRICS:
        return metrics.scrape(world, ask)
    proxy = world.tables.frontends[ask.frontend] if ask.backend < 0 else world.tables.backends[ask.backend]
    if proxy.stats is None:
        return Answer(404, b"no statistics here\n", [PLAIN])
    facts = Facts(
        method=ask.method, target=ask.target, version=f"1.{ask.minor}", headers=ask.headers, src=ask.peer,
        frontend=world.tables.frontends[ask.frontend].name, backend=proxy.name,
    )  # fmt: skip
    if refused := refusal(proxy.stats, ask, facts):
        return refused
    admin = any(holds(condition, facts) for condition in proxy.stats.admin)
    if ask.method == "POST":
        return act(world, proxy.stats, ask, admin=admin)
    if ask.method not in ("GET", "HEAD"):
        return Answer(405, b"GET, HEAD and POST are accepted here\n", [("allow", "GET, HEAD, POST"), PLAIN])
    return show(world, proxy.stats, ask, admin=admin)


# -- who may look -----------------------------------------------------------------------------------------------------


def credentials(ask: Ask) -> str:
    """`user:password` of a Basic authorization, "" when there is none."""
    scheme, _, coded = ask.header("authorization").partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(coded.strip(), validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        return ""


def known(plan: Stats, ask: Ask) -> bool:
    """Whether one of the `stats auth` pairs was given; all are compared, each in constant time."""
    given = credentials(ask).encode("utf-8", "surrogateescape")
    matches = [hmac.compare_digest(given, pair.encode("utf-8", "surrogateescape")) for pair in plan.auth]
    return any(matches)


def refusal(plan: Stats, ask: Ask, facts: Facts) -> Answer | None:
    """401 or 403, or None for somebody who may look. `stats auth` alone is as if its rule stood last."""
    chosen = plan.rules if plan.rules else ((("auth", "", None),) if plan.auth else ())
    for action, realm, condition in chosen:
        if not holds(condition, facts):
            continue
        if action == "allow" or (action == "auth" and known(plan, ask)):
            return None
        if action == "deny":
            body = b"<html><body><h1>403 Forbidden</h1>\nRequest forbidden by administrative rules.\n</body></html>\n"
            return Answer(403, body, [("cache-control", "no-cache"), ("content-type", "text/html")])
        body = b"<html><body><h1>401 Unauthorized</h1>\nYou need a valid user and password to access this content.\n</body></html>\n"
        challenge = f'Basic realm="{realm or plan.realm}"'
        return Answer(
            401, body, [("cache-control", "no-cache"), ("content-type", "text/html"), ("www-authenticate", challenge)]
        )
    return None


# -- looking ----------------------------------------------------------------------------------------------------------


def options(plan: Stats, target: str) -> tuple[frozenset[str], str, str]:
    """(words behind the prefix, the code of the last action, the scope that was typed in)."""
    rest = target[len(plan.uri) :]
    words = frozenset(word for word in rest.replace("?", ";").replace("&", ";").split(";") if word)
    code = next((word[3:] for word in words if word.startswith("st=")), "")
    scope = next((unquote_plus(word[6:]) for word in words if word.startswith("scope=")), "")
    return words, code, scope


def show(world: World, plan: Stats, ask: Ask, *, admin: bool) -> Answer:
    """The page, or one of the forms for programs."""
    words, code, scope = options(plan, ask.target)
    hidden = words & {"up", "no-maint"}
    shown = [
        proxy for proxy in world.proxies
        if (not plan.scope or proxy.name in plan.scope) and scope.lower() in proxy.name.lower()
    ]  # fmt: skip
    world.proxies = shown
    found = rows.rows(world, ("-1", -1, -1), hidden, secret=False)
    if "csv" in words:
        text = stats.csv_header() + "".join(lines.csv_lines(world, ("-1", -1, -1), hidden, secret=False))
        return Answer(200, text.encode("utf-8", "surrogateescape"), [NO_STORE, PLAIN])
    if "json" in words:
        return Answer(200, stats.json_rows(found).encode(), [NO_STORE, ("content-type", "application/json")])
    if "typed" in words:
        return Answer(
            200, "".join(stats.typed_row(row) for row in found).encode("utf-8", "surrogateescape"), [NO_STORE, PLAIN]
        )
    headers = [NO_STORE, ("content-type", "text/html; charset=utf-8"), *page.SAFETY]
    if plan.refresh_s and "norefresh" not in words:
        headers.append(("refresh", str(int(plan.refresh_s))))
    view = page.View(plan, hidden, code=code, scope=scope, admin=admin, still="norefresh" in words)
    return Answer(200, page.render(world, found, view).encode(), headers)


# -- acting -----------------------------------------------------------------------------------------------------------

ACTIONS: dict[str, tuple[str, str]] = {
    "ready": ("admin", "ready"), "drain": ("admin", "drain"), "maint": ("admin", "maint"),
    "start": ("admin", "ready"), "stop": ("admin", "maint"), "enable": ("admin", "ready"), "disable": ("admin", "maint"),
    "hrunn": ("force", "up"), "hnolb": ("force", "stopping"), "hdown": ("force", "down"),
    "dhlth": ("health", "disable"), "ehlth": ("health", "enable"), "shutdown": ("cut", ""),
}  # fmt: skip


def same_site(ask: Ask) -> bool:
    """False for a form that another site made the browser send: each header by which a browser says so is believed.

    Browsers send `Sec-Fetch-Site` or `Origin` with every form, old ones `Referer`; a script that sends none of them acts
    for whoever runs it, and has the credentials that it needs, or none are needed.
    """
    here = _authority(f"http://{ask.header('host')}")
    kinds = [value.strip().lower() for name, value in ask.headers if name == "sec-fetch-site"]
    pages = [value for name, value in ask.headers if name in ("origin", "referer")]
    return all(kind in ("same-origin", "none") for kind in kinds) and all(_authority(page) == here for page in pages)


def _authority(url: str) -> str:
    """Host and port of a URL, without the port where it is the default; "" where there is none (`null`)."""
    scheme, _, rest = url.strip().lower().partition("://")
    place = rest.partition("/")[0].partition("?")[0].rpartition("@")[2]
    return place.removesuffix({"http": ":80", "https": ":443"}.get(scheme, ""))


def act(world: World, plan: Stats, ask: Ask, *, admin: bool) -> Answer:
    """Carry out the form's action on the chosen servers and send the browser back, with HAProxy's codes."""
    code = "DENY"
    if admin and same_site(ask):
        pairs = parse_qsl(ask.body.decode("latin-1"), keep_blank_values=True, max_num_fields=10000)
        code = _carry_out(world, pairs)
    where = f"{plan.uri};st={code}"
    return Answer(303, b"", [("cache-control", "no-cache"), ("location", where), PLAIN])


def _carry_out(world: World, pairs: list[tuple[str, str]]) -> str:
    """NONE, DONE, PART, ERRP or UNKN."""
    fields = dict(pairs)
    chosen = ACTIONS.get(fields.get("action", ""))
    if chosen is None:
        return "UNKN" if "action" in fields else "ERRP"
    proxy = next(
        (one for one in world.proxies if one.backend is not None and fields.get("b") in (one.name, f"#{one.iid}")), None
    )
    if proxy is None:
        return "ERRP"
    named = [value for key, value in pairs if key == "s"]
    servers = [one for one in proxy.servers if one.server.name in named]
    for one in servers:
        kind, word = chosen
        if kind == "admin":
            world.health.admin(one.gid, word)
        elif kind == "force":
            world.health.force(one.gid, word)
        elif kind == "health":
            world.health.pause(one.gid, paused=word == "disable")
        elif world.health.cut is not None:
            world.health.cut(one.gid)
    if not servers:
        return "NONE"
    return "DONE" if len(servers) == len(set(named)) else "PART"

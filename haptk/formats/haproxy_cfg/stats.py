"""`stats ...` of proxies and of the global section, and `peers` sections."""

from __future__ import annotations

from haptk.formats.haproxy_cfg import binds, cookies, rules, units
from haptk.formats.haproxy_cfg.model import Args, Directive, Refused, Section
from haptk.formats.haproxy_cfg.servers import check_name


def proxy_stats(section: Section, args: Args) -> None:
    """`stats enable|uri|realm|auth|refresh|hide-version|show-desc|show-legends|show-modules|show-node|scope|admin`."""
    word = args.take("what of the statistics")
    section.merge("stats", enabled=True)
    if word == "enable":
        args.done()
    elif word in ("uri", "realm"):
        section.merge("stats", **{word: args.take("a value")})
    elif word == "auth":
        pair = args.take("USER:PASSWORD")
        if ":" not in pair:
            raise Refused("stats auth: accepted is USER:PASSWORD")
        section.merge("stats", auth=(*section.get("stats").get("auth", ()), pair))
    elif word == "refresh":
        section.merge("stats", refresh_s=units.time_s(args.take("a time"), "stats refresh", unit="s"))
    elif word == "hide-version":
        section.merge("stats", hide_version=True)
    elif word == "show-legends":
        section.merge("stats", show_legends=True)
    elif word == "show-modules":
        section.warn(args.line, "stats show-modules: accepted; haptk's page has no extra columns to show")
    elif word in ("show-node", "show-desc"):
        if word == "show-desc" and not args:
            section.warn(
                args.line, "stats show-desc: without a text it shows the description of the global section, if any"
            )
        section.merge("stats", **{"node" if word == "show-node" else "description": " ".join(args.rest())})
    elif word == "scope":
        section.merge("stats", scope=(*section.get("stats").get("scope", ()), args.take("a proxy's name or '.'")))
    elif word == "admin":
        found = rules.condition(section, args)
        if found is None:
            raise Refused("stats admin: 'if' or 'unless' and a condition are needed")
        section.merge("stats", admin=(*section.get("stats").get("admin", ()), found))
    elif word == "http-request":
        _stats_rule(section, args)
    else:
        accepted = "enable, uri, realm, auth, refresh, hide-version, show-desc, show-legends, show-node, scope, admin, http-request"
        raise Refused(f"stats: {word!r} is unknown; accepted are {accepted}")
    args.done()


def _stats_rule(section: Section, args: Args) -> None:
    """`stats http-request allow|deny|auth [realm REALM] [if|unless CONDITION]`."""
    action = units.one_of(args.take("one of allow, deny, auth"), "stats http-request", ("allow", "deny", "auth"))
    realm = ""
    if args.peek() == "realm":
        args.take("")
        realm = args.take("a realm")
    rule = (action, realm, rules.condition(section, args))
    section.merge("stats", rules=(*section.get("stats").get("rules", ()), rule))


def global_stats(section: Section, args: Args) -> None:
    """`stats socket ADDRESS [options]`, `stats timeout T`, `stats maxconn N`."""
    word = args.take("one of socket, timeout, maxconn")
    if word == "socket":
        places = binds.addresses(args.take("an address"), "stats socket")
        options = binds.read_options(section, args, "stats socket")
        for place in places:
            section.append("stats_sockets", {**place, **options, "line": args.line.where})
    elif word == "timeout":
        section.set("stats_timeout_s", units.time_s(args.take("a time"), "stats timeout"))
    elif word == "maxconn":
        section.set("stats_maxconn", units.integer(args.take("a number"), "stats maxconn", 1))
    else:
        raise Refused(f"stats: {word!r} is unknown here; accepted are socket, timeout, maxconn")
    args.done()


def _peer(section: Section, args: Args) -> None:
    name = check_name(args.take("a name"), "peer")
    place = units.address(args.take("an address"), f"peer {name}") if args else None
    args.done()
    section.append("peers", {"name": name, "place": place, "where": args.line.where})


def _peers_bind(section: Section, args: Args) -> None:
    """`bind ADDRESS`: where a `server NAME` without an address, which is this node, listens."""
    section.set("bind", binds.addresses(args.take("an address"), "bind"))
    section.set("bind_where", args.line.where)
    binds.read_options(section, args, "bind")


def _peers_table(section: Section, args: Args) -> None:
    """`table NAME type ...`: a table that belongs to no proxy; rules name it SECTION/NAME."""
    name = check_name(args.take("a name"), "table")
    if any(name == table["name"] for table in section.get("tables", ())):
        raise Refused(f"table {name!r} stands here already")
    table = cookies.table_words(args)
    if table.get("peers"):
        raise Refused("table: 'peers' is this section itself")
    section.append("tables", {"name": name, "where": args.line.where, "words": table})


def _peers_disabled(section: Section, args: Args) -> None:
    args.done()
    section.set("disabled", True)


def _peers_enabled(section: Section, args: Args) -> None:
    args.done()
    section.set("disabled", False)


def _user(section: Section, args: Args) -> None:
    name = args.take("a name")
    kind = units.one_of(args.take("password or insecure-password"), "user", ("password", "insecure-password"))
    record = {"name": name, kind.replace("-", "_"): args.take("a password"), "groups": ()}
    if args:
        units.one_of(args.take(""), "user", ("groups",))
        record["groups"] = tuple(args.take("a list of groups").split(","))
    args.done()
    section.append("users", record)


def _group(section: Section, args: Args) -> None:
    record = {"name": args.take("a name"), "users": ()}
    if args:
        units.one_of(args.take(""), "group", ("users",))
        record["users"] = tuple(args.take("a list of users").split(","))
    args.done()
    section.append("groups", record)


PEERS: dict[str, Directive] = {
    "bind": Directive(_peers_bind, "p"),
    "peer": Directive(_peer, "p"),
    "server": Directive(_peer, "p"),
    "table": Directive(_peers_table, "p"),
    "disabled": Directive(_peers_disabled, "p"),
    "enabled": Directive(_peers_enabled, "p"),
}
USERLIST: dict[str, Directive] = {"group": Directive(_group, "u"), "user": Directive(_user, "u")}

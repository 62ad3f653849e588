"""A parsed haproxy.cfg to the tables of the data plane: defaults, cross-references, names to addresses, one verdict.

What a missing word means is decided here and nowhere else. Errors of parsing and of compiling leave together, as one
ConfigError whose message has a line for each. `load` reads files; `compile_config` is the pure part, apart from the
resolver and the reader of error files that it is given.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from haptk.errors import ConfigError, MissingFile
from haptk.formats.haproxy_cfg import Config, Problem, Section, Source, parse
from haptk.formats.haproxy_cfg.model import names
from haptk.proxy import compile_logs, compile_rules, compile_servers, compile_unused, fdlimits, pages
from haptk.proxy.tables import (
    AddHeader,
    AppSession,
    Backend,
    Balance,
    Bind,
    CookieRule,
    ErrorFile,
    Frontend,
    KeepAlive,
    Peers,
    Process,
    ProxyTables,
    Rule,
    Stats,
    StickRule,
    StickTable,
    Timeouts,
)

DEFAULT_MAXCONN = 100_000  # of a process that names none, until fdlimits.settle() looks at its descriptors
Resolver = Callable[[str], str | None]
ReadFile = Callable[[str], bytes]


def resolve_libc(host: str) -> str | None:
    """The first address of a name, or None. Used once for each name when a configuration is loaded."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return None
    return str(found[0][4][0]) if found else None


def read_sources(paths: Sequence[Path | str]) -> list[Source]:
    """The texts of files, and of the `*.cfg` files of directories in byte order, as `haproxy -f` takes them."""
    sources: list[Source] = []
    for path in map(Path, paths):
        try:
            files = sorted(path.glob("*.cfg")) if path.is_dir() else [path]
            for file in files:
                if not file.name.startswith("."):
                    sources.append(Source(str(file), file.read_bytes().decode("utf-8", "surrogateescape")))
        except OSError as error:
            raise MissingFile(path=path, why=error.strerror or error) from error
    return sources


def load(paths: Sequence[Path | str], environ: Mapping[str, str] | None = None, localpeer: str = "") -> ProxyTables:
    """Read, parse and compile; raises ConfigError with every error, MissingFile for a file that cannot be read.

    A file named `-` is not special: use /dev/stdin, as with haproxy. `localpeer` is what -L says.
    """
    files = ";".join(str(path) for path in paths)
    variables = {**(os.environ if environ is None else environ), "HAPROXY_CFGFILES": files}
    variables["HAPROXY_LOCALPEER"] = localpeer or socket.gethostname()
    return compile_config(parse(read_sources(paths), variables, _read_file), localpeer=localpeer)


def load_text(text: str, name: str = "-", environ: Mapping[str, str] | None = None, localpeer: str = "") -> ProxyTables:
    """The same for a text; `name` stands in messages."""
    return compile_config(parse([Source(name, text)], environ or {}, _read_file), localpeer=localpeer)


def compile_config(
    config: Config, resolve: Resolver = resolve_libc, read_file: ReadFile | None = None, localpeer: str = ""
) -> ProxyTables:
    """Tables from a parsed configuration. Raises ConfigError when it (or what it refers to) has errors."""
    work = _Compiler(config, resolve, read_file or _read_file)
    work.named = localpeer
    tables = work.run() if not config.errors else None
    errors = sorted(work.errors + config.errors, key=lambda problem: (problem.file, problem.line))
    if errors or tables is None:
        first, rest = errors[0], errors[1:]
        why = "\n".join([first.why, *map(str, rest)])
        raise ConfigError(file=first.file, line=first.line, why=why)
    return replace(tables, warnings=tuple(map(str, [*config.warnings, *work.warnings])))


def _read_file(path: str) -> bytes:
    return Path(path).read_bytes()


# Settings that are read and kept, but that nothing carries out yet: each use of one draws a warning.
_NOT_YET = {
    "option_independent_streams": "option independent-streams",
    "maxhdr": "tune.http.maxhdr",
    "users": "user",
}  # fmt: skip
_NOT_YET_SERVER = {
    "pool_low_conn": "pool-low-conn",
}  # fmt: skip


class _Compiler:
    def __init__(self, config: Config, resolve: Resolver, read_file: ReadFile) -> None:
        self.config = config
        self.resolve = resolve
        self.read_file = read_file
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []
        self.top = config.globals()
        self.front_sections = [s for s in config.proxies() if s.kind in ("frontend", "listen")]
        self.back_sections = [s for s in config.proxies() if s.kind in ("backend", "listen")]
        self.back_index = {s.name: index for index, s in enumerate(self.back_sections)}
        self.ring_names = {s.name for s in config.sections if s.kind == "ring"}
        self.known_tables: dict[str, StickTable] = {}
        self.named = ""  # this node's name on the command line

    def run(self) -> ProxyTables:
        tables = self.stick_tables()
        self.known_tables = {table.name: table for table in tables}
        backends = tuple(self.backend(section) for section in self.back_sections)
        frontends = tuple(self.frontend(section) for section in self.front_sections)
        compile_servers.check_tracks(self, backends)
        backends = fdlimits.fullconns(frontends, backends, self.top.get("maxconn", 0) or DEFAULT_MAXCONN)
        self._say_what_is_not_carried_out()
        compile_unused.report(self)
        return ProxyTables(
            frontends, backends, self.process(), peers=self.peers(), rings=compile_logs.rings(self.config.sections),
            stick_tables=tables, resolvers=compile_servers.resolvers(self),
        )  # fmt: skip

    def _say_what_is_not_carried_out(self) -> None:
        for section in self.config.sections:
            for key in sorted(section.own & _NOT_YET.keys()):
                if section.get(key):
                    self.warn(section, f"{section.title}: {_NOT_YET[key]}: read, but not carried out by haptk yet")
            for record in section.get("servers", ()):
                for key in sorted(_NOT_YET_SERVER.keys() & record.keys()):
                    if record[key]:
                        self.warn(
                            record["where"], f"server {record['name']}: {_NOT_YET_SERVER[key]}: not carried out yet"
                        )

    # -- telling -------------------------------------------------------------------------------------------------

    def error(self, where: Section | str, why: str) -> None:
        self.errors.append(self._problem(where, why))

    def warn(self, where: Section | str, why: str) -> None:
        self.warnings.append(self._problem(where, why))

    def _problem(self, where: Section | str, why: str) -> Problem:
        if isinstance(where, Section):
            return Problem(where.file or "configuration", where.line, why)
        file, _, line = where.rpartition(":")
        return Problem(file, int(line) if line.isdecimal() else 0, why)

    # -- proxies -------------------------------------------------------------------------------------------------

    def frontend(self, section: Section) -> Frontend:
        mode = section.get("mode", "tcp")
        binds = _numbered(section.get("binds", ()))
        if not binds and not section.get("disabled"):
            self.warn(section, f"{section.title} has no 'bind' line; nobody can connect to it")
        self._same_address_twice(section, binds)
        target = self._default_backend(section, mode)
        rules = self._rules(section, front=True)
        compile_rules.check_captures(section, rules, self.top.get("bufsize", 16384), self.error)
        return Frontend(
            name=section.name, binds=binds, mode=mode, default_backend=target,
            maxconn=section.get("maxconn", 0), connection=section.get("connection", "http-keep-alive"),
            timeouts=self._timeouts(section, "client"), forwardfor=self._header(section, "option_forwardfor", mode),
            originalto=self._header(section, "option_originalto", mode), log=compile_logs.plan(self, section),
            unique_id_format=section.get("unique_id_format"), unique_id_header=section.get("unique_id_header", ""),
            rules=rules, errorfiles=self._errorfiles(section), monitor_uri=section.get("monitor_uri", ""),
            stats=_stats(section), accept_invalid=bool(section.get("option_accept_invalid_http_request")),
            disabled=bool(section.get("disabled")),
            tcpka=_keepalive(section, "clitcpka"),
            nolinger=bool(section.get("option_nolinger")), backlog=section.get("backlog", 0),
            ignore_probes=bool(section.get("option_http_ignore_probes")),
            socket_stats=bool(section.get("option_socket_stats")),
            is_listen=section.kind == "listen", request_captures=section.get("request_captures", ()),
            response_captures=section.get("response_captures", ()), capture_cookie=section.get("capture_cookie"),
            where=section.where,
        )  # fmt: skip

    def backend(self, section: Section) -> Backend:
        mode = section.get("mode", "tcp")
        cookie = self._cookie(section, mode)
        servers = compile_servers.servers(self, section, cookie, mode)
        return Backend(
            name=section.name, servers=servers, mode=mode, balance=self._balance(section, mode), cookie=cookie,
            appsession=AppSession(**section.get("appsession")) if section.get("appsession") else None,
            sticks=self._sticks(section, self.known_tables), connection=section.get("connection", "http-keep-alive"),
            reuse=section.get("reuse", "safe"), timeouts=self._timeouts(section, "server"),
            forwardfor=self._header(section, "option_forwardfor", mode),
            originalto=self._header(section, "option_originalto", mode),
            redispatch=section.get("option_redispatch"), retries=section.get("retries", 3),
            retry_on=section.get("retry_on", ("conn-failure",)), persist=bool(section.get("option_persist")),
            abortonclose=bool(section.get("option_abortonclose")), allbackups=bool(section.get("option_allbackups")),
            fullconn=section.get("fullconn", 0), prefer_last_server=bool(section.get("option_prefer_last_server")),
            max_keep_alive_queue=section.get("max_keep_alive_queue", 0),
            pretend_keepalive=bool(section.get("option_http_pretend_keepalive")),
            tcpka=_keepalive(section, "srvtcpka"),
            nolinger=bool(section.get("option_nolinger")),
            rules=self._rules(section, front=False), errorfiles=self._errorfiles(section), log=compile_logs.plan(self, section, front=False),
            stats=_stats(section), accept_invalid=bool(section.get("option_accept_invalid_http_response")),
            log_checks=bool(section.get("option_log_health_checks")),
            check_template=compile_servers.check_template(self, section),
            load_state=section.get("load_server_state") or "", state_file=self._state_file(section),
            disabled=bool(section.get("disabled")), strict_persist=bool(section.get("option_strict_persist")),
            where=section.where,
        )  # fmt: skip

    def _default_backend(self, section: Section, mode: str) -> int:
        named = section.get("default_backend")
        if not named:
            return self.back_index[section.name] if section.kind == "listen" else -1
        return self._target(named[0], mode, f"{named[1]}:{named[2]}", "default_backend")

    def _target(self, name: str, mode: str, where: str, word: str) -> int:
        """The index of a backend by name; an error and -1 when there is none or it has another mode."""
        index = self.back_index.get(name, -1)
        if index < 0:
            known = ", ".join(self.back_index) or "none"
            self.error(where, f"{word}: there is no backend {name!r}; known are {known}")
        elif self.back_sections[index].get("mode", "tcp") != mode:
            self.error(where, f"{word}: {name!r} has another mode than this frontend, which has mode {mode}")
        return index

    def _same_address_twice(self, section: Section, binds: tuple[Bind, ...]) -> None:
        seen: set[tuple[str, int, str, int]] = set()
        for bind in binds:
            key = (bind.host, bind.port, bind.unix_path, bind.fd)
            if key in seen:
                self.error(bind.line, f"bind {bind.text}: this section listens there already")
            seen.add(key)
            if bind.fd < 0 and not bind.unix_path and bind.host and not _is_literal(bind.host):
                self.error(bind.line, f"bind {bind.text}: an IP address is needed here, not a name")

    def _timeouts(self, section: Section, side: str) -> Timeouts:
        """0 means "not configured", as in HAProxy."""
        found = {name: value for name, value in section.get("timeouts", {}).items() if value > 0}
        needed = ("client",) if section.kind == "frontend" else ("connect", "server")
        missing = (
            [name for name in needed if name not in found] if side != "client" or section.kind == "frontend" else []
        )
        if missing and (section.kind == "frontend" or section.get("servers")):
            words = " and ".join(f"'timeout {name}'" for name in missing)
            self.warn(
                section, f"{section.title} has no {words}: a peer that says nothing keeps its connection for ever"
            )
        return Timeouts(**found)

    def _header(self, section: Section, key: str, mode: str) -> AddHeader | None:
        value = section.get(key)
        if not value:
            return None
        if mode != "http":
            self.warn(section, f"{section.title}: 'option {key.removeprefix('option_')}' needs mode http; ignored")
            return None
        return AddHeader(**value)

    def _cookie(self, section: Section, mode: str) -> CookieRule | None:
        rule = section.get("cookie")
        if rule is None:
            return None
        if mode != "http":
            self.warn(section, f"{section.title}: 'cookie' needs mode http; ignored")
            return None
        if rule.get("dynamic") and not section.get("dynamic_key"):
            self.warn(section, f"{section.title}: a dynamic cookie without 'dynamic-cookie-key' can be guessed")
        return CookieRule(**rule, dynamic_key=section.get("dynamic_key", "") if rule.get("dynamic") else "")

    def _balance(self, section: Section, mode: str) -> Balance:
        found = Balance(**{**section.get("balance", {}), **section.get("hash_type", {})})
        if mode != "http" and found.algorithm in ("uri", "url_param", "hdr"):
            self.warn(section, f"{section.title}: 'balance {found.algorithm}' needs mode http; round robin is used")
            return Balance()
        return found

    def stick_tables(self) -> tuple[StickTable, ...]:
        """Every table that a proxy or a peers section declares, in the order of the file."""
        found = []
        groups = {section.name for section in self.config.sections if section.kind == "peers"}
        for section in self.config.sections:
            if section.kind in ("frontend", "backend", "listen") and section.get("stick_table"):
                words = {key: value for key, value in section.get("stick_table").items() if key != "where"}
                if words.get("peers") and words["peers"] not in groups:
                    where = section.get("stick_table")["where"]
                    self.error(where, f"stick-table: there is no peers section {words['peers']!r}")
                found.append(StickTable(name=section.name, wire_name=section.name, **words))
                self._fills(section, found[-1])
            for record in section.get("tables", ()) if section.kind == "peers" else ():
                name = record["name"]
                words = {**record["words"], "peers": section.name}
                found.append(StickTable(name=f"{section.name}/{name}", wire_name=f"/{name}", **words))
                self._fills(section, found[-1])
        return tuple(found)

    def _fills(self, section: Section, table: StickTable) -> None:
        """Nobody should wait for a counter that nothing counts."""
        if table.stored:
            why = "no rule counts yet ('track-sc0' and its like are refused); 'set table' and peers fill the table"
            self.warn(section, f"stick-table {table.name}: 'store': {why}")

    def _sticks(self, section: Section, known: dict[str, StickTable]) -> tuple[StickRule, ...]:
        """The `stick` lines of a section; without `table` they use the section's own."""
        rules = []
        for record in section.get("sticks", ()):
            name = record.get("table", section.name)
            if name not in known:
                self.error(record["where"], f"stick: there is no stick-table in {name!r}")
                continue
            fields = ("action", "fetch", "argument", "delimiter", "condition")
            rules.append(StickRule(**{key: record[key] for key in fields}, table=name))
        return tuple(rules)

    # -- rules ---------------------------------------------------------------------------------------------------

    def _rules(self, section: Section, *, front: bool) -> tuple[Rule, ...]:
        """In the order of processing: http-request, redirect, use_backend, persistence, http-response."""
        mode = section.get("mode", "tcp")
        rules: list[Rule] = []
        for kind, key in (
            ("http-request", "http_request"),
            ("redirect", "redirects"),
            ("http-response", "http_response"),
        ):
            found = section.get(key, ())
            if found and mode != "http":
                self.warn(section, f"{section.title}: '{kind}' rules need mode http; ignored")
                continue
            rules += [_rule(kind, record) for record in found]
        if front:
            failing = section.get("monitor_fails", ())
            if failing and not section.get("monitor_uri"):
                self.warn(section, f"{section.title}: 'monitor fail' has no effect without monitor-uri")
            rules += [Rule("monitor-fail", condition=each["condition"], where=each["where"]) for each in failing]
            for record in section.get("use_backends", ()):
                where = f"{record['file']}:{record['line']}"
                target = self._target(record["name"], mode, where, "use_backend")
                rules.append(Rule("use_backend", condition=record["condition"], target=target, where=where))
        for record in section.get("persist_rules", ()) if section.kind != "frontend" else ():
            rules.append(Rule(record["kind"], condition=record["condition"], where=record["where"]))
        found = tuple(compile_rules.bytewise(rule) for rule in rules)
        compile_rules.check(found, self.back_index, self.error)
        return found

    # -- the rest ------------------------------------------------------------------------------------------------

    def _errorfiles(self, section: Section) -> tuple[ErrorFile, ...]:
        found: list[ErrorFile] = []
        for status, (path, file, line, content) in section.get("errorfiles", {}).items():
            if content:  # errorloc
                found.append(ErrorFile(status, content))
                continue
            try:
                content = self.read_file(self._absolute(path, file))
            except OSError as error:
                self.error(f"{file}:{line}", f"errorfile: {path}: {error.strerror}")
                continue
            if why := pages.checked(content, self.top.get("bufsize", 16384)):
                self.error(f"{file}:{line}", f"errorfile: {path} {why}")
            else:
                found.append(ErrorFile(status, content))
        return tuple(found)

    def _absolute(self, path: str, file: str) -> str:
        """A relative path after `default-path`: from the working directory, the file's directory or its parent."""
        how, origin = self.top.get("default_path", ("current", ""))
        base = {
            "current": Path(),
            "config": Path(file).parent,
            "parent": Path(file).parent.parent,
            "origin": Path(origin),
        }
        return str(base[how] / path)

    def _state_file(self, section: Section) -> str:
        """Where `load-server-state-from-file local` looks: a file of its own, by default called like the section."""
        name = section.get("state_file_name") or section.name
        directory = self.top.get("server_state_base", "")
        return name if name.startswith("/") or not directory else f"{directory}/{name}"

    def process(self) -> Process:
        top = self.top
        keys = names(
            "nbthread maxconn maxconnrate maxsessrate ulimit_n fd_hard_limit strict_limits chroot user group uid gid pidfile "
            "node bufsize maxrewrite spread_checks max_spread_checks_s hard_stop_after_s "
            "server_state_file stats_timeout_s stats_maxconn insecure_setuid"
        )
        values: dict[str, Any] = {key: top.get(key) for key in keys if top.get(key) is not None}
        for kind, key in (("user", "uid"), ("group", "gid")):
            if values.get(kind) and key not in values:
                values[key] = _id_of(kind, values[kind])
                if values[key] is None:
                    self.error(top, f"global: {kind}: there is no {kind} {values[kind]!r} on this machine")
        for key, directory in (("server_state_file", top.get("server_state_base", "")),):
            if values.get(key) and directory and not values[key].startswith("/"):
                values[key] = f"{directory}/{values[key]}"
        sockets = tuple(_bind(record) for record in top.get("stats_sockets", ()))
        targets = tuple(compile_logs.target(record) for record in top.get("logs", ()) if isinstance(record, dict))
        return Process(**values, daemon=bool(top.get("daemon")), stats_sockets=sockets, log_targets=targets)

    def peers(self) -> tuple[Peers, ...]:
        """Every peers section with its members' addresses, and which of them is this node."""
        sections = [section for section in self.config.sections if section.kind == "peers"]
        return tuple(self._peers_section(section) for section in sections)

    def _peers_section(self, section: Section) -> Peers:
        members: list[tuple[str, str, int]] = []
        hostnames: list[tuple[str, str]] = []
        local = self.localpeer()
        for record in section.get("peers", ()):
            place = record["place"]
            if place is None and section.get("bind"):
                # `server NAME` without an address is this node, listening where `bind` says
                first = section.get("bind")[0]
                host, port = first["host"] or "0.0.0.0", first["port"]
            elif place is None or not place.port:
                self.error(record["where"], f"peer {record['name']}: an address with a port is needed")
                continue
            else:
                host, port = place.host or "0.0.0.0", place.port
            address = host if _is_literal(host) else self.resolve(host)
            if address is None:
                self.error(record["where"], f"peer {record['name']}: {host} does not resolve")
                continue
            members.append((record["name"], address, port))
            if address != host:
                hostnames.append((record["name"], host))
        found = local if any(name == local for name, _, _ in members) and not section.get("disabled") else ""
        if members and not found and not section.get("disabled"):
            names = ", ".join(name for name, _, _ in members)
            self.warn(
                section,
                f"{section.title}: no peer is named {local!r} (-L or localpeer names this node; there are {names}); "
                "its tables are not replicated",
            )
        return Peers(section.name, tuple(members), found, section.where, tuple(hostnames))

    def localpeer(self) -> str:
        """This node's name among its peers: -L, `localpeer`, else the host's name."""
        return str(self.named or self.top.get("localpeer") or socket.gethostname())


def _rule(kind: str, record: dict[str, Any]) -> Rule:
    values = tuple(sorted(record["values"].items()))
    return Rule(kind, record["action"], values, record["condition"], where=record["where"])


def _is_literal(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host.partition("%")[0])
        except OSError:
            continue
        return True
    return False


def _numbered(records: Sequence[dict[str, Any]]) -> tuple[Bind, ...]:
    """The listening addresses of a frontend; those without an id get the lowest numbers that are left, in order."""
    taken = {record["id"] for record in records if "id" in record}
    free = (number for number in itertools.count(1) if number not in taken)
    return tuple(replace(_bind(record), number=record.get("id") or next(free)) for record in records)


def _bind(record: dict[str, Any]) -> Bind:
    keys = names(
        "host port unix_path fd name accept_proxy maxconn backlog v6only transparent mode uid gid level expose_fd severity_output text line"
    )
    values = {key: record[key] for key in keys if key in record}
    if "host" in values and not values["host"]:
        values["host"] = "::" if record.get("family") == 6 or record.get("v4v6") or record.get("v6only") else "0.0.0.0"
    for name, key in (("user", "uid"), ("group", "gid")):
        if name in record:
            values[key] = _id_of(name, record[name])
    return Bind(**values)


def _id_of(kind: str, name: str) -> int | None:
    import grp
    import pwd

    try:
        return pwd.getpwnam(name).pw_uid if kind == "user" else grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def _keepalive(section: Section, side: str) -> KeepAlive | None:
    """What `option tcpka`, `clitcpka` or `srvtcpka` and the three words of that side ask for."""
    if not (section.get("option_tcpka") or section.get(f"option_{side}")):
        return None
    return KeepAlive(*(section.get(f"{side}_{what}", 0) for what in ("probes", "idle_s", "interval_s")))


def _stats(section: Section) -> Stats | None:
    found = section.get("stats")
    if not found or not found.get("enabled"):
        return None
    keys = names("auth refresh_s hide_version show_legends node description admin rules")
    scope = tuple(section.name if name == "." else name for name in found.get("scope", ()))
    return Stats(
        uri=found.get("uri", "/haproxy?stats"), realm=found.get("realm", "HAProxy Statistics"), scope=scope,
        **{key: found[key] for key in keys if key in found},
    )  # fmt: skip

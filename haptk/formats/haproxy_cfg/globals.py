"""The table of what `global` accepts. What only tunes HAProxy's own machinery is accepted with a warning."""

from __future__ import annotations

from haptk.formats.haproxy_cfg import logs, stats, units
from haptk.formats.haproxy_cfg.model import Args, Directive, Parser, Refused, Section, names


def _number(key: str, low: int = 0, high: int = 2**31 - 1) -> Parser:
    def parse(section: Section, args: Args) -> None:
        section.set(key, units.integer(args.take("a number"), args.words[0], low, high))
        args.done()

    return parse


def _word(key: str) -> Parser:
    def parse(section: Section, args: Args) -> None:
        section.set(key, args.take("a value"))
        args.done()

    return parse


def _flag(key: str) -> Parser:
    def parse(section: Section, args: Args) -> None:
        args.done()
        section.set(key, True)

    return parse


def _switch(key: str) -> Parser:
    def parse(section: Section, args: Args) -> None:
        args.done()
        section.set(key, not args.line.negated)

    return parse


def _time(key: str) -> Parser:
    def parse(section: Section, args: Args) -> None:
        section.set(key, units.time_s(args.take("a time"), args.words[0]))
        args.done()

    return parse


def _size(key: str) -> Parser:
    def parse(section: Section, args: Args) -> None:
        section.set(key, units.size(args.take("a size"), args.words[0]))
        args.done()

    return parse


def _inert(why: str) -> Parser:
    def parse(section: Section, args: Args) -> None:
        args.rest()
        section.warn(args.line, f"{args.words[0]}: accepted; it has no effect: {why}")

    return parse


def _nbproc(section: Section, args: Args) -> None:
    if units.integer(args.take("a number"), "nbproc", 1) != 1:
        raise Refused("nbproc was removed from HAProxy 2.5; use nbthread")
    section.warn(args.line, "nbproc 1: accepted; one process is all there is")


def _default_path(section: Section, args: Args) -> None:
    how = units.one_of(args.take("a way"), "default-path", ("current", "config", "parent", "origin"))
    section.set("default_path", (how, args.take("a directory") if how == "origin" else ""))
    args.done()


_TLS = "there is no TLS in haptk yet"
_TUNING = "it tunes HAProxy's own machinery"

DIRECTIVES: dict[str, Directive] = {
    "chroot": Directive(_word("chroot"), "g"),
    "daemon": Directive(_flag("daemon"), "g"),
    "default-path": Directive(_default_path, "g"),
    "description": Directive(lambda s, a: s.set("description", " ".join(a.rest())), "g"),
    "gid": Directive(_number("gid"), "g"),
    "fd-hard-limit": Directive(_number("fd_hard_limit"), "g"),
    "group": Directive(_word("group"), "g"),
    "hard-stop-after": Directive(_time("hard_stop_after_s"), "g"),
    "insecure-setuid-wanted": Directive(_flag("insecure_setuid"), "g"),
    "localpeer": Directive(_word("localpeer"), "g"),
    "log": Directive(logs.log, "g", no=True),
    "log-send-hostname": Directive(lambda s, a: s.set("log_hostname", " ".join(a.rest()) or True), "g"),
    "log-tag": Directive(_word("log_tag"), "g"),
    "master-worker": Directive(_inert("workers are threads here; systemd restarts the process"), "g", no=True),
    "max-spread-checks": Directive(_time("max_spread_checks_s"), "g"),
    "maxconn": Directive(_number("maxconn"), "g"),
    "maxconnrate": Directive(_number("maxconnrate"), "g"),
    "maxsessrate": Directive(_number("maxsessrate"), "g"),
    "nbproc": Directive(_nbproc, "g"),
    "nbthread": Directive(_number("nbthread", 1, 64), "g"),
    "node": Directive(_word("node"), "g"),
    "pidfile": Directive(_word("pidfile"), "g"),
    "server-state-base": Directive(_word("server_state_base"), "g"),
    "server-state-file": Directive(_word("server_state_file"), "g"),
    "spread-checks": Directive(_number("spread_checks", 0, 50), "g"),
    "stats": Directive(stats.global_stats, "g"),
    "tune.bufsize": Directive(_size("bufsize"), "g"),
    "tune.maxrewrite": Directive(_size("maxrewrite"), "g"),
    "tune.http.maxhdr": Directive(_number("maxhdr", 1, 32767), "g"),
    "strict-limits": Directive(_switch("strict_limits"), "g", no=True),
    "uid": Directive(_number("uid"), "g"),
    "ulimit-n": Directive(_number("ulimit_n", 1), "g"),
    "user": Directive(_word("user"), "g"),
}

for _name in ("quiet", "zero-warning", "noepoll", "nokqueue", "noevports", "nopoll", "nosplice", "nogetaddrinfo",
              "noreuseport", "no-memory-trimming", "busy-polling", "numa-cpu-mapping", "cpu-map",
              "set-dumpable", "profiling.tasks", "profiling.memory", "insecure-fork-wanted", "thread-groups",
              "thread-group", "mworker-max-reloads", "close-spread-time", "grace", "unix-bind", "maxpipes"):  # fmt: skip
    DIRECTIVES[_name] = Directive(_inert(_TUNING), "g", no=True)
for _name in ("ca-base", "crt-base", "issuers-chain-path", "maxsslconn", "maxsslrate", "ssl-default-bind-ciphers",
              "ssl-default-bind-ciphersuites", "ssl-default-bind-curves", "ssl-default-bind-options",
              "ssl-default-server-ciphers", "ssl-default-server-ciphersuites", "ssl-default-server-options",
              "ssl-dh-param-file", "ssl-engine", "ssl-mode-async", "ssl-load-extra-files", "ssl-load-extra-del-ext",
              "ssl-server-verify", "ssl-skip-self-issued-ca", "ssl-propquery", "ssl-provider", "ssl-provider-path",
              "httpclient.ssl.verify", "httpclient.ssl.ca-file"):  # fmt: skip
    DIRECTIVES[_name] = Directive(_inert(_TLS), "g")


def tuning(_name: str) -> Directive:
    """Any other `tune.*` word: HAProxy's buffers, pools and protocols, which haptk does not have."""
    return Directive(_inert(_TUNING), "g")


UNSUPPORTED = names(
    "external-check lua-load lua-load-per-thread lua-prepend-path h1-case-adjust h1-case-adjust-file set-var "
    "set-var-fmt h1-accept-payload-with-any-method httpclient.resolvers.id httpclient.resolvers.prefer "
    "pp2-never-send-local maxcomprate maxcompcpuusage maxzlibmem wurfl-data-file "
    "51degrees-data-file deviceatlas-json-file anonkey expose-experimental-directives expose-deprecated-directives"
)

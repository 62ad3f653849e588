"""A line or two for every word that haptk accepts in a haproxy.cfg, to ask both programs about: see test_diff_table.

The keys are the keys of the parser's own tables; tests/diff/test_diff_table.py fails for a word without an example.
"""

from __future__ import annotations

TIMEOUTS = (
    "client", "server", "connect", "check", "queue", "http-keep-alive", "http-request", "tunnel", "tarpit", "client-fin",
    "server-fin",
)  # fmt: skip
# Of defaults, frontend, listen and backend. Where a line needs others beside it they come first, between semicolons.
PROXY: dict[str, tuple[str, ...]] = {
    "acl": ("acl a src 127.0.0.1", "acl a path_beg /x", "acl a nbsrv(@B) lt 1"),
    "appsession": ("appsession S len 32 timeout 1h",),
    "backlog": ("backlog 100",),
    "balance": (
        "balance roundrobin", "balance static-rr", "balance leastconn", "balance first", "balance source", "balance random",
        "balance random(3)", "balance uri", "balance uri len 10 depth 2", "balance uri whole", "balance uri path-only",
        "balance url_param id", "balance hdr(X-A)", "balance hdr(Host) use_domain_only",
    ),
    "bind": ("bind 127.0.0.1:@P",),
    "capture": (
        "capture request header X-A len 10", "capture response header X-A len 10", "capture cookie S len 10",
    ),
    "clitimeout": ("clitimeout 5s",),
    "contimeout": ("contimeout 5s",),
    "cookie": (
        "cookie S", "cookie S insert", "cookie S insert indirect nocache", "cookie S prefix", "cookie S rewrite",
        "cookie S insert preserve", "cookie S insert maxidle 10 maxlife 20 domain .a.b httponly secure postonly attr X=Y",
        "cookie S insert dynamic",
    ),
    "clitcpka-cnt": ("clitcpka-cnt 3",),
    "clitcpka-idle": ("clitcpka-idle 30s",),
    "clitcpka-intvl": ("clitcpka-intvl 30s",),
    "declare": ("declare capture request len 10", "declare capture response len 10"),
    "default-server": ("default-server maxconn 10 weight 3", "default-server check inter 1s"),
    "default_backend": ("default_backend @B",),
    "description": ("description some words",),
    "disabled": ("disabled",),
    "dynamic-cookie-key": ("dynamic-cookie-key x",),
    "enabled": ("enabled",),
    "error-log-format": ('error-log-format "%ci"',),
    "errorfile": ("errorfile 503 /dev/null",),
    "errorloc": ("errorloc 503 http://a/",),
    "errorloc302": ("errorloc302 503 http://a/",),
    "errorloc303": ("errorloc303 503 http://a/",),
    "force-persist": ("force-persist if { src 127.0.0.1 }", "force-persist if { path_beg /a }"),
    "fullconn": ("fullconn 100",),
    "grace": ("grace 5s",),
    "hash-type": (
        "hash-type consistent", "hash-type map-based", "hash-type consistent djb2 avalanche", "hash-type map-based wt6",
        "hash-type map-based crc32", "hash-type map-based sdbm avalanche", "balance source; hash-type consistent crc32",
    ),
    "http-check": (
        "option httpchk; http-check expect status 200", "option httpchk; http-check expect ! rstring x",
        "option httpchk; http-check send meth GET uri /x ver HTTP/1.1 hdr Host a", "option httpchk; http-check disable-on-404",
        "option httpchk; http-check send-state", "option httpchk; http-check connect", "option httpchk; http-check comment x",
        "http-check expect status 200",
    ),
    "http-request": ("http-request deny",),
    "http-response": ("http-response deny",),
    "http-reuse": ("http-reuse never", "http-reuse safe", "http-reuse aggressive", "http-reuse always"),
    "id": ("id @N",),
    "ignore-persist": ("ignore-persist if { src 127.0.0.1 }", "ignore-persist if { path_beg /a }"),
    "load-server-state-from-file": (
        "load-server-state-from-file none", "load-server-state-from-file global", "load-server-state-from-file local",
    ),
    "server-state-file-name": ("server-state-file-name x", "server-state-file-name"),
    "log": (
        "log global", "log 127.0.0.1:514 local0", "log 127.0.0.1:514 len 200 format rfc5424 sample 1:2 local0 info err",
        "log stdout format raw daemon", "log global; log global", "log /dev/log local0",
    ),
    "log-format": ('log-format "%ci %[src]"', 'log-format "%ci %ST %hr %r"'),
    "log-format-sd": ('log-format-sd "[a b=c]"',),
    "log-tag": ("log-tag x",),
    "max-keep-alive-queue": ("max-keep-alive-queue 5",),
    "maxconn": ("maxconn 100",),
    "mode": ("mode http", "mode tcp", "mode health"),
    "monitor": ("monitor-uri /a; monitor fail if { nbsrv(@B) lt 1 }", "monitor fail if { src 127.0.0.1 }"),
    "monitor-uri": ("monitor-uri /a",),
    "redirect": (
        "redirect location /x", "redirect prefix /x code 301 if { path /a }", "redirect scheme https drop-query append-slash",
        "redirect location /x set-cookie A=1", "redirect location /x clear-cookie A=", "redirect location /x code 308",
    ),
    "redispatch": ("redispatch",),
    "reqadd": ("reqadd X:\\ y",),
    "rspadd": ("rspadd X:\\ y",),
    "retries": ("retries 5", "retries 0"),
    "retry-on": (
        "retry-on none", "retry-on conn-failure empty-response junk-response response-timeout 0rtt-rejected 404 503",
        "retry-on all-retryable-errors",
    ),
    "server": ("server t1 127.0.0.1:8",),
    "server-template": ("server-template t 1-3 127.0.0.1:8", "server-template t 3 127.0.0.1:8 check"),
    "source": ("source 127.0.0.1", "source 127.0.0.1:1024-2000", "source 0.0.0.0"),
    "srvtcpka-cnt": ("srvtcpka-cnt 3",),
    "srvtcpka-idle": ("srvtcpka-idle 30s",),
    "srvtcpka-intvl": ("srvtcpka-intvl 30s",),
    "srvtimeout": ("srvtimeout 5s",),
    "stats": (
        "stats enable", "stats uri /s", "stats realm x", "stats auth a:b", "stats refresh 5s", "stats hide-version",
        "stats show-legends", "stats show-node x", "stats show-node", "stats show-desc x", "stats show-desc", "stats show-modules",
        "stats scope .", "stats admin if TRUE", "stats http-request deny", "stats http-request auth realm x if TRUE",
    ),
    "stick": (
        "stick-table type ip size 1k; stick on src", "stick-table type ip size 1k; stick match src",
        "stick-table type string size 1k; stick on req.cook(S)", "stick-table type string size 1k; stick store-request hdr(x)",
        "stick-table type string size 1k; stick store-response res.cook(S)", "stick on src table @T",
        "stick-table type ip size 1k; stick on src if { dst_port 1 }", "stick on src",
        "stick-table type string size 1k; stick on path", "stick-table type string size 1k; stick on url_param(a)",
        "stick-table type string size 1k; stick match url", "stick-table type string size 1k; stick store-response res.hdr(a)",
    ),
    "stick-table": (
        "stick-table type ip size 1k expire 5m nopurge", "stick-table type ipv6 size 1k", "stick-table type integer size 1k",
        "stick-table type string len 20 size 1k", "stick-table type binary len 20 size 1k",
        "stick-table type ip size 1k store gpc0,conn_rate(10s)", "stick-table type ip size 1k srvkey name",
    ),
    "tcp-check": (
        "option tcp-check; tcp-check connect", "option tcp-check; tcp-check connect port 80 send-proxy",
        "option tcp-check; tcp-check send x", "option tcp-check; tcp-check send-binary 0a", "option tcp-check; tcp-check expect string x",
        "option tcp-check; tcp-check expect ! rbinary ff", "option tcp-check; tcp-check comment x", "tcp-check expect string x",
    ),
    "timeout": tuple(f"timeout {name} 5s" for name in TIMEOUTS),
    "unique-id-format": ('unique-id-format "%ci-%Ts"',),
    "unique-id-header": ('unique-id-format "%ci-%Ts"; unique-id-header X-Id', "unique-id-header X-Id"),
    "use_backend": (
        "use_backend @B", "use_backend @B if { src 127.0.0.1 }", "use_backend @B if { path_beg /a }", "use_backend nobody if TRUE",
    ),
}  # fmt: skip
# Options that take words.
OPTION_WORDS: dict[str, tuple[str, ...]] = {
    "forwardfor": ("", "except 127.0.0.1", "header X-A", "if-none"),
    "originalto": ("", "except 127.0.0.1", "header X-A"),
    "httpchk": ("", "/x", "GET /x", "GET /x HTTP/1.0"),
    "httplog": ("", "clf"),
    "redispatch": ("", "2", "-1"),
}
# `bind` and `stats socket`; a value, or "" for a word alone.
BIND: dict[str, str] = {
    "accept-proxy": "", "backlog": "10", "maxconn": "10", "name": "n", "id": "@N", "mode": "600", "uid": "0", "gid": "0",
    "user": "root", "group": "root", "v4v6": "", "v6only": "", "transparent": "", "level": "admin", "expose-fd": "listeners",
    "severity-output": "number", "process": "1", "thread": "1", "nice": "3", "defer-accept": "", "tfo": "", "shards": "1",
}  # fmt: skip
SERVER: dict[str, str] = {
    "addr": "127.0.0.2", "agent-addr": "127.0.0.2", "agent-check": "agent-port 5", "agent-inter": "2s", "agent-port": "5",
    "agent-send": "x", "backup": "", "check": "", "check-send-proxy": "", "cookie": "c", "disabled": "", "downinter": "2s",
    "enabled": "", "error-limit": "3", "fall": "2", "fastinter": "2s", "id": "7", "init-addr": "last,libc,none",
    "init-state": "up", "inter": "2s", "maxconn": "5", "maxqueue": "5", "max-reuse": "5", "minconn": "5",
    "no-agent-check": "", "no-backup": "", "no-check": "", "no-check-send-proxy": "", "no-send-proxy": "", "no-send-proxy-v2": "",
    "no-ssl": "", "non-stick": "", "observe": "layer4", "on-error": "mark-down", "on-marked-down": "shutdown-sessions",
    "on-marked-up": "shutdown-backup-sessions", "pool-low-conn": "5", "pool-max-conn": "5", "pool-purge-delay": "5s", "port": "5",
    "redir": "http://a", "resolve-net": "10.0.0.0/8", "resolve-opts": "allow-dup-ip", "resolve-prefer": "ipv4",
    "resolvers": "@R", "rise": "2", "send-proxy": "", "send-proxy-v2": "", "slowstart": "5s", "source": "127.0.0.1", "stick": "",
    "track": "@B/s1", "weight": "5",
}  # fmt: skip
REQUEST: dict[str, tuple[str, ...]] = {
    "add-header": ("X-A %[src]",), "del-header": ("X-A", "X-A -m beg"), "replace-header": ("X-A (.*) b",),
    "replace-value": ("X-A (.*) b",), "set-header": ("X-A b", "X-A %ci"), "allow": ("", "if { src 127.0.0.1 }"),
    "capture": ("hdr(x) len 10",),
    "deny": ("", "deny_status 429", "status 403 content-type text/plain string x", "status 403 default-errorfiles", "status 418"),
    "redirect": ("location /x", "prefix /x code 301"),
    "return": ("", "status 200 content-type text/plain string x", "status 404 default-errorfiles", "status 200 hdr X-A b"),
    "set-log-level": ("silent", "err"), "disable-l7-retry": ("",), "replace-path": ("(.*) /x",), "replace-pathq": ("(.*) /x",),
    "replace-uri": ("(.*) /x",), "set-method": ("GET",), "set-path": ("/x",), "set-pathq": ("/x",), "set-query": ("a=b",),
    "set-uri": ("/x",), "use-service": ("prometheus-exporter",),
}  # fmt: skip
RESPONSE: dict[str, tuple[str, ...]] = {
    **{key: REQUEST[key] for key in (
        "add-header", "del-header", "replace-header", "replace-value", "set-header", "allow", "redirect", "return", "set-log-level",
    )},
    "capture": ("res.hdr(x) id 0",),
    "deny": ("", "status 403 content-type text/plain string x"), "set-status": ("404", "404 reason x"),
}  # fmt: skip
GLOBAL: dict[str, tuple[str, ...]] = {
    "chroot": ("chroot /var/lib/haproxy",), "daemon": ("daemon",), "default-path": ("default-path current",),
    "description": ("description some words",), "gid": ("gid 0",), "group": ("group root",), "insecure-setuid-wanted": ("insecure-setuid-wanted",),
    "fd-hard-limit": ("fd-hard-limit 10000",), "strict-limits": ("strict-limits",),
    "hard-stop-after": ("hard-stop-after 5s",),
    "localpeer": ("localpeer x",), "log": ("log 127.0.0.1:514 local0", "no log"), "log-send-hostname": ("log-send-hostname", "log-send-hostname x"),
    "log-tag": ("log-tag x",), "master-worker": ("master-worker",), "max-spread-checks": ("max-spread-checks 5s",),
    "maxconn": ("maxconn 100",), "maxconnrate": ("maxconnrate 100",), "maxsessrate": ("maxsessrate 100",), "nbproc": ("nbproc 2",),
    "nbthread": ("nbthread 1",), "node": ("node x",), "pidfile": ("pidfile /tmp/x.pid",), "server-state-base": ("server-state-base /tmp",),
    "server-state-file": ("server-state-file /tmp/x.state",), "spread-checks": ("spread-checks 5",),
    "stats": ("stats socket /tmp/x.sock level admin", "stats timeout 5s", "stats maxconn 5"),
    "tune.bufsize": ("tune.bufsize 32768",), "tune.maxrewrite": ("tune.maxrewrite 2048",), "tune.http.maxhdr": ("tune.http.maxhdr 200",),
    "uid": ("uid 0",), "ulimit-n": ("ulimit-n 1000",), "user": ("user root",),
}  # fmt: skip

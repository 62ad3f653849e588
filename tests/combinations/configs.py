"""Random configurations out of words that both programs know. Ports stand in braces: {fe0} {sv0} {log} {sock} {dir}."""

from __future__ import annotations

import re

BALANCE = [
    "roundrobin",
    "roundrobin",
    "static-rr",
    "leastconn",
    "first",
    "source",
    "uri",
    "uri len 6",
    "uri depth 2",
    "uri whole",
    "url_param q",
    "hdr(x-a)",
    "hdr(host) use_domain_only",
    "random",
]
TURNS = ("roundrobin", "static-rr", "leastconn", "random")
WORDS = ["abc", "foo", "bar,baz", "Hello World", "x" * 60, "a=b; c=d", '\\"q\\"', "v1"]
FMT = [
    "fixed",
    "%[src]",
    "%[path]",
    "%[req.hdr(x-a)]",
    "%[url_param(q),lower]",
    "%[method]-%[req.ver]",
    "%[req.hdr(host),upper]",
    "%[url]",
    "%[query,url_dec]",
    "%[req.cook(SRV)]",
    "%[path,length]",
    "%[base,base64]",
    "%[str(a),concat(b)]",
    "%[req.hdr(x-long),bytes(0,20)]",
    "%[req.hdr(x-long)]",
    "%HM\\ %HU",
    "%[fe_name]/%[dst]",
    "%[req.hdr(x-a),field(2,-)]",
    "%[req.hdr(x-a),regsub(o,0,g)]",
    "%[path,word(1,/)]",
    "%[req.hdr_cnt(x-a),add(3)]",
    "%[int(7),mul(3),mod(5)]",
    "%r",
    "%[so_id]",
]
RFMT = [
    "fixed",
    "%[status]",
    "%[res.hdr(x-b)]",
    "%[res.hdr(server),lower]",
    "%[be_name]",
    "%[srv_name,length]",
    "%[res.ver]",
    "%[capture.req.uri]",
    "%[capture.req.method]",
    "%[res.cook(SRV)]",
    "%[src]",
    "%[res.hdr(content-length),add(1)]",
    "%[res.hdr_cnt(set-cookie)]",
]
REPL = [
    r"(.*) 'pre-\1'",
    "foo bar",
    r"([a-z]*)-([a-z]*) '\2-\1'",
    "^$ empty",
    r"(.*) '\1\1\1'",
    "SRV=[^;]* SRV=none",
    "path=/ path=/x",
]
REPLP = [r"(.*) '/r\1'", r"/a(.*) '/z\1'", r"/([a-z]*)/(.*) '/\2/\1'"]
RQ = [
    "{ path_beg /a }",
    "{ path_end .css }",
    "{ path /b }",
    "{ path_reg ^/[a-c]/.* }",
    "{ path_sub b }",
    "{ path_dir img }",
    "{ hdr(x-a) -m sub foo }",
    "{ hdr_beg(host) -i www. }",
    "{ hdr_cnt(x-a) gt 1 }",
    "{ method POST PUT }",
    "{ method GET }",
    "{ src 127.0.0.0/8 }",
    "{ src 10.0.0.0/8 }",
    "{ req.cook(SRV) -m found }",
    "{ url_param(q) v1 }",
    "{ req.hdr_val(content-length) gt 1000 }",
    "{ req.ver 1.0 }",
    "{ http_first_req }",
    "{ dst_port 80 }",
    "{ always_true }",
    "{ always_false }",
    "{ nbsrv(b0) lt 1 }",
    "{ req.hdr(x-long) -m len gt 100 }",
    "{ query -m found }",
    "{ hdr_dom(host) -i example.com }",
    "{ hdr_ip(x-forwarded-for) 10.0.0.0/8 }",
    "{ so_id 1 }",
    "{ req.cook_cnt(SRV) gt 1 }",
    '{ path,url_dec -m sub " " }',
    "{ req.hdr(x-a),lower -m str foo }",
    "{ wait_end }",
    "{ be_conn(b0) gt 3 }",
]
RS = [
    "{ status 200 }",
    "{ status 400:599 }",
    "{ res.hdr(x-b) -m found }",
    "{ res.hdr_cnt(set-cookie) gt 1 }",
    "{ res.hdr(content-type) -m sub text }",
    "{ res.ver 1.0 }",
    "{ res.cook(SRV) -m found }",
    "{ src 127.0.0.0/8 }",
    "{ always_true }",
    "{ capture.req.method HEAD }",
    "{ res.hdr_val(content-length) gt 5000 }",
]


def cond(r, bag, acls=(), must=False):
    if not must and r.random() < 0.35:
        return ""
    terms = [
        ("!" if r.random() < 0.15 else "") + (r.choice(acls) if acls and r.random() < 0.4 else r.choice(bag))
        for _ in range(r.choice([1, 1, 1, 2, 3]))
    ]
    return " " + r.choice(["if", "if", "if", "unless"]) + " " + r.choice([" ", " || "]).join(terms)


def q(text):
    return text.replace(" ", "\\ ") if "\\" not in text else text


def reply(r, what):
    """What a rule answers with: status, body, headers."""
    if what == "deny":
        out = f"deny deny_status {r.choice([200, 400, 403, 404, 410, 429, 500, 503])}" if r.random() < 0.7 else "deny"
        if "status" in out and r.random() < 0.4:
            out += ' content-type text/plain string "denied"'
    else:
        status = r.choice([200, 201, 204, 302, 404, 429, 503])
        out = f"return status {status}"
        roll = r.random()
        if roll < 0.4 and status != 204:
            out += ' content-type text/plain string "some text"'
        elif roll < 0.7 and status != 204:
            out += f' content-type text/plain lf-string "at {r.choice(["%[path]", "%[src]", "%[url]", "%[req.hdr(x-long)]"])}"'
    if "string" in out or "file" in out:
        for n in range(r.choice([0, 0, 1, 2])):
            out += f' hdr x-own{n} "{r.choice(["v", "%[src]", "%[path]"])}"'
    return out


def redirect(r):
    kind = r.choice(
        [
            "location /moved",
            "location http://www.example.com/x?y=1",
            "prefix http://p.example.com",
            "prefix /pre",
            "scheme https",
            "location %[path]/z",
            "prefix /%[req.hdr(host)]",
        ]
    )
    out = f"redirect {kind}"
    if r.random() < 0.6:
        out += f" code {r.choice([301, 302, 303, 307, 308])}"
    for extra in ("drop-query", "append-slash", "set-cookie R=1", "clear-cookie R=", "ignore-empty"):
        if r.random() < 0.15:
            out += " " + extra
    return out


def request_rule(r, acls, fe):
    name = r.choice(["x-h1", "x-h2", "x-a", "x-forwarded-proto", "cookie", "x-long", "user-agent"])
    kind = r.choice(
        ["set-header"] * 4
        + ["add-header"] * 3
        + ["del-header"] * 3
        + [
            "replace-header",
            "replace-value",
            "set-path",
            "set-query",
            "set-uri",
            "set-pathq",
            "replace-path",
            "replace-pathq",
            "replace-uri",
            "set-method",
            "capture",
            "deny",
            "return",
            "redirect",
            "allow",
            "set-log-level",
            "disable-l7-retry",
        ]
    )
    if kind in ("set-header", "add-header"):
        body = f"{kind} {name} {r.choice(FMT)}"
    elif kind == "del-header":
        body = r.choice(
            [
                f"del-header {name}",
                "del-header x- -m beg",
                "del-header a$ -m end",
                "del-header x-[a-h] -m reg",
                "del-header accept",
            ]
        )
    elif kind in ("replace-header", "replace-value"):
        body = f"{kind} {name} {r.choice(REPL)}"
    elif kind == "set-path":
        body = "set-path " + r.choice(["/new%[path]", "/fixed", "%[path,lower]"])
    elif kind == "set-query":
        body = "set-query " + r.choice(["a=1", "%[query]&z=%[src]", "q=%[req.hdr(x-a)]"])
    elif kind in ("set-uri", "set-pathq"):
        body = f"{kind} /u%[path]?%[query]"
    elif kind in ("replace-path", "replace-pathq", "replace-uri"):
        body = f"{kind} {r.choice(REPLP)}"
    elif kind == "set-method":
        body = "set-method " + r.choice(["PATCH", "GET", "POST"])
        return "http-request " + body + cond(r, ["{ method PUT }"], must=True)
    elif kind == "capture":
        if not fe:
            return None
        body = f"capture {r.choice(['req.hdr(host)', 'path', 'req.hdr(x-long)', 'req.cook(SRV)', 'src'])} len {r.choice([1, 10, 64, 300])}"
    elif kind in ("deny", "return"):
        return (
            "http-request "
            + reply(r, kind)
            + cond(r, [x for x in RQ if "true" not in x and "127" not in x], acls, must=True)
        )
    elif kind == "redirect":
        return (
            ("http-request " if r.random() < 0.6 else "")
            + redirect(r)
            + cond(r, [x for x in RQ if "true" not in x and "127" not in x], acls, must=True)
        )
    elif kind == "allow":
        return "http-request allow" + cond(r, RQ, acls, must=True)
    elif kind == "set-log-level":
        body = "set-log-level " + r.choice(["silent", "notice", "debug"])
    else:
        body = kind
    return "http-request " + body + cond(r, RQ, acls)


def response_rule(r, fe):
    name = r.choice(["x-b", "x-r1", "server", "set-cookie", "cache-control", "content-type"])
    kind = r.choice(
        ["set-header"] * 4
        + ["add-header"] * 4
        + ["del-header"] * 3
        + [
            "replace-header",
            "replace-value",
            "set-status",
            "capture",
            "deny",
            "return",
            "redirect",
            "allow",
            "set-log-level",
        ]
    )
    if kind in ("set-header", "add-header"):
        body = f"{kind} {name} {r.choice(RFMT)}"
    elif kind == "del-header":
        body = r.choice([f"del-header {name}", "del-header x- -m beg", "del-header r$ -m end"])
    elif kind in ("replace-header", "replace-value"):
        body = f"{kind} {name} {r.choice(REPL)}"
    elif kind == "set-status":
        body = r.choice(["set-status 201", 'set-status 503 reason "Down Now"', "set-status 418"])
        # of an answer without a body it makes one that the client waits for
        return f"http-response {body} if !{{ status 204 304 }} {r.choice(RS)}"
    elif kind == "capture":
        return None
    elif kind in ("deny", "return"):
        return (
            "http-response "
            + reply(r, kind)
            .replace("%[path]", "%[status]")
            .replace("%[url]", "%[status]")
            .replace("%[req.hdr(x-long)]", "%[status]")
            + cond(r, ["{ status 404 }", "{ status 500:599 }", "{ res.hdr(x-b) -m found }"], must=True)
        )
    elif kind == "redirect":
        return "http-response redirect location /after code 302" + cond(
            r, ["{ status 404 }", "{ status 500:599 }"], must=True
        )
    elif kind == "allow":
        return "http-response allow" + cond(r, RS, must=True)
    else:
        body = "set-log-level " + r.choice(["silent", "notice"])
    return "http-response " + body + cond(r, RS)


LOGS = [
    "log-format L|%f|%b/%s|%ST|%tsc|%CC|%CS|%hr|%hs|R%rc|%{+Q}r",
    "log-format L|%ci|%ft|%b|%s|%ST|%ts|R%rc|T=%TR/%Tw/%Tc/%Tr/%Ta|%HM|%HU|%HV",
    "log-format L|%b|%s|%ST|%tsc|%hrl|%hsl|%[capture.req.method]|%[capture.req.uri]|%HP|%HQ|%HPO",
    "log-format L|%{+E}o|%f|%s|%ST|%tsc|%{+X}rc|%[src]|%{+Q}HU|%si|%sp|%fi",
]
TLOGS = ["log-format L|%f|%b/%s|%ts|R%rc|T=%Tw/%Tc/%Tt", "log-format L|%ft|%b|%s|%ts|%ci"]
UID = [
    "%{+X}o\\ %ci:%cp_%fi:%fp_%Ts_%rt:%pid",
    "%[src]-%rt",
    "%{+X}Ts-%{+X}rt",
    "%t",
    "%T.%ms-%cp",
    "%[req.hdr(x-a)]-%ci",
    "%[uuid()]",
    "%H-%pid-%Ts",
]


class Config:
    def __init__(self, r):
        self.r, self.sections, self.files, self.fronts = (
            r,
            [],
            {
                "page.txt": "a page\n" * 20,
                "e503.http": "HTTP/1.0 503 Mine\r\nContent-Type: text/plain\r\nX-Mine: 1\r\n\r\nmine\n",
                "e400.http": "HTTP/1.1 400 Mine\r\nContent-Length: 4\r\n\r\nbad\n",
                "e404.http": "HTTP/1.1 404 Mine\r\nContent-Length: 0\r\n\r\n",
            },
            [],
        )
        self.servers = 0
        self.build()

    def pick(self, p, *lines):
        return [self.r.choice(lines)] if self.r.random() < p else []

    def build(self):
        r = self.r
        g = ["global", "stats socket {sock} mode 600 level admin", f"nbthread {r.choice([1, 1, 1, 2])}"]
        if r.random() < 0.35:
            size = r.choice([4096, 8192, 32768, 65536, 131072])
            g += [f"tune.bufsize {size}", *self.pick(0.5, f"tune.maxrewrite {r.choice([64, 512, 1024, size // 3])}")]
        g += self.pick(0.1, "tune.http.maxhdr 32", "tune.http.maxhdr 200") + self.pick(0.2, "maxconn 100")
        self.sections.append(g)
        d = [
            "defaults",
            f"timeout client {r.choice(['900ms', '2s'])}",
            f"timeout server {r.choice(['900ms', '2s'])}",
            "timeout connect 120ms",
        ]
        d += self.pick(0.3, "timeout http-request 600ms", "timeout http-request 5s") + self.pick(
            0.3, "timeout http-keep-alive 300ms", "timeout http-keep-alive 5s"
        )
        d += (
            self.pick(0.3, "timeout queue 300ms")
            + self.pick(0.15, "timeout client-fin 300ms")
            + self.pick(0.15, "timeout server-fin 300ms")
            + self.pick(0.15, "timeout tunnel 1s")
        )
        if r.random() < 0.85:
            d.append("log 127.0.0.1:{log} local0")
        self.logs = "log" in d[-1]
        self.sections.append(d)
        nfe, nbe = r.choice([1, 1, 1, 2]), r.choice([1, 1, 2, 3])
        mode = "tcp" if r.random() < 0.15 else "http"
        modes = [mode if nfe == 1 else r.choice(["http", "http", "http", "tcp"]) for _ in range(nfe)]
        self.back = [("http" if "http" in modes and (n == 0 or "tcp" not in modes) else "tcp") for n in range(nbe)]
        modes = [m if m in self.back else self.back[0] for m in modes]
        for n, m in enumerate(modes):
            self.front(n, m)
        for n, m in enumerate(self.back):
            self.backend(n, m)

        if nfe == nbe == 1 and r.random() < 0.4:
            front, back = self.sections.pop(-2), self.sections.pop()
            front = ["listen f0"] + [x for x in front[1:] if "_backend" not in x] + list(back[2:])
            self.sections.append(
                [x.replace("nbsrv(b0)", "nbsrv(f0)").replace("be_conn(b0)", "be_conn(f0)") for x in front]
            )

    def own_lines(self, mode, fe, be, acls):
        r, out = self.r, []
        if mode == "http":
            for _ in range(r.choice([0, 0, 1, 2, 4])):
                out += [request_rule(r, acls, fe)]
            for _ in range(r.choice([0, 0, 1, 2, 3])):
                out += [response_rule(r, fe)]
            out += self.pick(
                0.25,
                "option forwardfor",
                "option forwardfor except 127.0.0.0/8",
                "option forwardfor header X-Client",
                "option forwardfor if-none",
                "option forwardfor except 10.0.0.0/8 header X-Real",
            )
            out += self.pick(0.1, "option originalto", "option originalto except 127.0.0.1 header X-To")
            out += self.pick(0.3, "option httpclose", "option http-server-close", "option http-keep-alive")
            out += self.pick(
                0.15,
                "errorfile 503 {dir}/e503.http",
                "errorloc 503 /sorry",
                "errorloc303 502 http://x.example.com/e",
                "errorfile 400 {dir}/e400.http",
                "errorfile 404 {dir}/e404.http",
            )
            out += self.pick(0.05, "errorfile 400 /dev/null", "errorfile 503 /dev/null", "errorfile 408 /dev/null")
            out += self.pick(0.08, "stats uri /stats", "stats enable")
        out += self.pick(0.1, "option nolinger", "option tcpka")
        return [x for x in out if x]

    def front(self, n, mode):
        r, acls = self.r, []
        s = [f"frontend f{n}", f"mode {mode}"]
        proxy = r.random() < 0.12
        s.append(
            f"bind 127.0.0.1:{{fe{n}}}"
            + (" accept-proxy" if proxy else "")
            + (" maxconn 50" if r.random() < 0.05 else "")
        )
        self.fronts.append({"mode": mode, "proxy": proxy})
        if mode == "http":
            for k in range(r.choice([0, 0, 1, 2])):
                acls.append(f"acl{k}")
                s.append(
                    f"acl acl{k} "
                    + r.choice(
                        [
                            "path_beg /a",
                            "hdr(x-a) -m sub foo",
                            "method POST",
                            "req.cook(SRV) -m found",
                            "src 127.0.0.1",
                            "url_param(q) -m reg v[0-9]",
                            "path /b /c /a/img",
                        ]
                    )
                )
            for _ in range(r.choice([0, 0, 0, 1, 2, 3])):
                s.append(
                    r.choice(
                        [
                            "capture request header Host len 10",
                            "capture request header X-A len 64",
                            "capture request header Cookie len 30",
                            "capture response header Content-Type len 20",
                            "capture response header X-B len 5",
                            "capture request header X-Long len 2000",
                            "capture response header Set-Cookie len 100",
                        ]
                    )
                )
            s += self.pick(0.1, "capture cookie SRV len 20", "capture cookie S len 8")
            if r.random() < 0.08:
                s += [
                    "declare capture request len 30",
                    "declare capture response len 12",
                    "http-request capture path id 0",
                ]
                s = [x for x in s if not x.startswith("capture ")]
        s += self.own_lines(mode, True, False, acls)
        if mode == "http":
            s += (
                self.pick(0.15, "monitor-uri /mon")
                + self.pick(0.03, "monitor fail if { nbsrv(b0) lt 1 }")
                + self.pick(0.1, "option http-ignore-probes")
            )
            s += self.pick(0.06, "option accept-invalid-http-request")
            if r.random() < 0.25:
                s += [
                    f"unique-id-format {r.choice(UID[:6] + UID[7:])}",
                    *self.pick(0.7, "unique-id-header X-Unique-ID"),
                ]
        http_backs = [f"b{k}" for k, m in enumerate(self.back) if m == mode]
        for b in http_backs:
            if r.random() < 0.3:
                s.append(
                    f"use_backend {b}"
                    + (
                        cond(r, RQ, acls, must=True)
                        if mode == "http"
                        else r.choice(["", " if { src 10.0.0.0/8 }", " if { dst_port 1 }", " if { src 127.0.0.1 }"])
                    )
                )
        if http_backs and (mode == "tcp" or r.random() < 0.95):
            s.append(f"default_backend {r.choice(http_backs)}")
        if mode == "http" or r.random() < 0.9:  # capture.req.* of HAProxy needs a line that has the request
            s += [
                r.choice(
                    [*LOGS, "option httplog", "option httplog clf"] if mode == "http" else [*TLOGS, "option tcplog"]
                )
            ]
            s += (
                self.pick(0.15, "option dontlognull")
                + self.pick(0.1, "option dontlog-normal")
                + self.pick(0.1, "option logasap")
                + self.pick(0.1, "option log-separate-errors")
            )
        self.sections.append(s)

    def backend(self, n, mode):
        r = self.r
        s = [f"backend b{n}", f"mode {mode}"]
        balance = r.choice(BALANCE if mode == "http" else ["roundrobin", "source", "first", "leastconn"])
        s += [f"balance {balance}"] + (
            self.pick(
                0.3,
                "hash-type consistent",
                "hash-type map-based djb2",
                "hash-type consistent sdbm avalanche",
                "hash-type map-based wt6",
                "hash-type map-based crc32",
            )
            if balance not in TURNS
            else []
        )
        cookies = False
        if mode == "http":
            s += self.own_lines(mode, False, True, ())
            if r.random() < 0.55:
                cookies = True
                kind = r.choice(
                    [
                        "insert",
                        "insert indirect",
                        "insert indirect nocache",
                        "insert indirect postonly",
                        "rewrite",
                        "prefix",
                        "prefix nocache",
                        "",
                        "insert preserve indirect",
                        "insert indirect maxidle 30m maxlife 8h",
                        "insert indirect domain .example.com httponly secure",
                        "insert nocache attr SameSite=Lax",
                        "insert indirect dynamic",
                        "rewrite postonly",
                        "prefix indirect",
                    ]
                )
                s.append(f"cookie SRV {kind}".rstrip())
                if "dynamic" in kind:
                    s.append("dynamic-cookie-key secret")
                    cookies = False
            s += self.pick(0.3, "http-reuse never", "http-reuse safe", "http-reuse aggressive", "http-reuse always")
            s += self.pick(
                0.2,
                "retry-on all-retryable-errors",
                "retry-on 503 404",
                "retry-on conn-failure empty-response junk-response",
                "retry-on response-timeout 500",
                "retry-on none",
            )
            s += self.pick(
                0.15,
                "option prefer-last-server",
                "option http-pretend-keepalive",
                "option accept-invalid-http-response",
                "option persist",
                "option abortonclose",
            )
            s += self.pick(0.1, "ignore-persist if { path_beg /a }", "force-persist if { path_beg /a }")
        s += self.pick(0.3, "retries 0", "retries 1", "retries 3", "retries 2") + self.pick(
            0.3, "option redispatch", "option redispatch 1", "no option redispatch", "option redispatch -1"
        )
        if r.random() < 0.25:
            kind = (
                r.choice(["type string len 20", "type ip", "type integer", "type string len 64"])
                if mode == "http"
                else "type ip"
            )
            s.append(
                f"stick-table {kind} size {r.choice(['100', '2', '10k'])} expire 30m" + r.choice(["", "", " nopurge"])
            )
            if "string" in kind:
                s += r.choice(
                    [
                        ["stick on req.cook(S)", "stick store-response res.cook(S)"],
                        ["stick on hdr(x-a)"],
                        ["stick match url_param(q)", "stick store-request url_param(q) if { method GET }"],
                        ["stick store-response res.hdr(x-b)", "stick match hdr(x-a)"],
                    ]
                )
            elif "ip" in kind:
                s += r.choice(
                    [["stick on src"], ["stick match src", "stick store-request src"]]
                    + ([["stick on hdr(x-forwarded-for)"]] if mode == "http" else [])
                )
            else:
                s += ["stick on hdr(x-n)"]
        elif mode == "http" and r.random() < 0.05:
            s.append("appsession S len 20 timeout 1h")
        s += self.pick(0.08, "source 127.0.0.1", "fullconn 10", "max-keep-alive-queue 0")
        common = ""
        if r.random() < 0.12:
            common = r.choice([" send-proxy", " send-proxy-v2"])
        s += self.pick(
            0.15,
            "default-server maxconn 5",
            "default-server max-reuse 1",
            "default-server pool-max-conn 0",
            "default-server maxconn 4 minconn 1",
            "default-server maxconn 3 maxqueue 1",
            "default-server weight 10",
        )
        for k in range(r.choice([1, 2, 2, 3])):
            port, extra = self.servers, common
            self.servers += 1
            if cookies and r.random() < 0.95:
                extra += f" cookie ck{k}"
            if r.random() < 0.08:
                extra += r.choice(
                    [
                        " disabled",
                        " backup",
                        " weight 0",
                        " weight 20",
                        " non-stick",
                        " observe layer7 error-limit 3 check inter 60s on-error sudden-death",
                    ]
                )
            if mode == "http" and r.random() < 0.04:
                extra += " redir http://r.example.com"
            dead = r.random() < 0.1
            s.append(f"server s{k} 127.0.0.1:{{{'dead' if dead else 'sv'}{port}}}{extra}")
        alike = {
            re.sub(r"^server s\d 127\.0\.0\.1:\{(\w+?)\d+\}| cookie ck\d", r"\1", x)
            for x in s
            if x.startswith("server ")
        }
        named = sum(" cookie ck" in x for x in s if x.startswith("server "))
        if "balance random" in s and (len(alike) > 1 or named not in (0, sum(x.startswith("server ") for x in s))):
            s[s.index("balance random")] = "balance roundrobin"  # chance may choose servers that answer differently
        if r.random() < 0.12:
            s += r.choice([["option httpchk GET /check"], ["option tcp-check"], []])
            s = [x + (" check inter 10s" if x.startswith("server ") and "observe" not in x else "") for x in s]
        self.sections.append(s)

    def text(self):
        return "\n".join(s[0] + "\n" + "".join(f"    {x}\n" for x in s[1:]) for s in self.sections)

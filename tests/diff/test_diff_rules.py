# ruff: noqa: E501 (lines of configurations and requests)
"""Rules through the real haproxy and through both paths of haptk: conditions, edits, answers, backends, persistence.

Each configuration is a frontend (or listen) with its backends. The exchanges of one are generated from a seed out of
requests that its rules look at, so that most rules hold for some and fail for others.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.diff.rig import Pair, Upstreams, upstreams
from tests.diff.test_diff_behaviour import differences, get, portrait

pytestmark = [pytest.mark.real("haproxy"), pytest.mark.timeout(600)]
EXCHANGES = 16  # of each configuration

ERROR_403 = (
    b"HTTP/1.0 403 Nope\r\nCache-Control: no-cache\r\nConnection: close\r\nContent-Type: text/plain\r\n\r\nnot you\n"
)
ERROR_503 = b"HTTP/1.1 503 Gone Fishing\r\nX-Own: page\r\nContent-Length: 6\r\n\r\nfishes"
ERROR_502 = b"HTTP/1.1 502 Bad\nX-Own: lf\nContent-Type: text/html\n\n<b>502</b>"

# name -> the words of the frontend; what else stands in the file comes after a line of dashes.
CONFIGS: dict[str, str] = {
    "paths": """acl api path_beg /api /v1
 acl img path_end .png .GIF
 acl sub path_sub x/y
 acl dir path_dir b
 acl deep path_dir b/c
 acl reg path_reg ^/[a-c]+/
 acl regi path_reg -i ^/A
 acl len path_len 5:9
 acl exact path /a /b/c
 acl exacti path -i /A /B/C
 acl q query -m found
 acl qa query -m beg a=
 acl u url_sub -i CASE
 http-request add-header X-M api if api
 http-request add-header X-M img if img
 http-request add-header X-M sub if sub
 http-request add-header X-M dir if dir
 http-request add-header X-M deep if deep
 http-request add-header X-M reg if reg
 http-request add-header X-M regi if regi
 http-request add-header X-M len if len
 http-request add-header X-M exact if exact
 http-request add-header X-M exacti if exacti
 http-request add-header X-M q if q
 http-request add-header X-M qa if qa
 http-request add-header X-M u if u
 http-request add-header X-M some if api or img !reg or { path /b }
 http-request add-header X-M not unless api || reg""",
    "fetches": """http-request add-header X-V path:%[path]
 http-request add-header X-V pathq:%[pathq]
 http-request add-header X-V query:%[query]
 http-request add-header X-V url:%[url]
 http-request add-header X-V base:%[base]
 http-request add-header X-V method:%[method]
 http-request add-header X-V ver:%[req.ver]
 http-request add-header X-V param:%[url_param(a)]
 http-request add-header X-V semi:%[url_param(a,;)]
 http-request add-header X-V src:%[src]:%[fe_name]:%[be_name]:%[so_id]:%[dst_port,length]
 http-request add-header X-V bools:%[always_true]%[bool(false)]%[int(-42)]%[str(x)]%[http_first_req]%[ssl_fc]
 http-request add-header X-V nbsrv:%[nbsrv]:%[nbsrv(other)]
 http-request add-header X-V env:%[env(HAPTK_NO_SUCH)].
 http-request add-header X-V vars:%HM:%HU:%HQ:%HV:%f:%b:%ft:%%
---
backend other
 server s1 127.0.0.1:@S1@
 server s2 127.0.0.1:@S2@ backup""",
    "headers": """http-request add-header X-V h:%[req.hdr(X-A)]
 http-request add-header X-V h1:%[req.hdr(X-A,1)]
 http-request add-header X-V h2:%[req.hdr(x-a,2)]
 http-request add-header X-V hm1:%[req.hdr(X-A,-1)]
 http-request add-header X-V hm2:%[req.hdr(X-A,-2)]
 http-request add-header X-V hm9:%[req.hdr(X-A,-9)]
 http-request add-header X-V f:%[req.fhdr(X-A)]
 http-request add-header X-V f1:%[req.fhdr(X-A,1)]
 http-request add-header X-V fm1:%[req.fhdr(X-A,-1)]
 http-request add-header X-V n:%[req.hdr_cnt(X-A)]:%[req.fhdr_cnt(X-A)]
 http-request add-header X-V v:%[req.hdr_val(X-A)]
 http-request add-header X-V ip:%[req.hdr_ip(X-Ip)]
 http-request add-header X-V c:%[req.cook(c)]
 http-request add-header X-V cn:%[req.cook_cnt(c)]
 http-request add-header X-V cv:%[req.cook_val(c)]""",
    "matches": """http-request add-header X-M found if { hdr(X-A) -m found }
 http-request add-header X-M str if { hdr(X-A) a b }
 http-request add-header X-M stri if { hdr(X-A) -i A -- B }
 http-request add-header X-M beg if { hdr_beg(X-A) a }
 http-request add-header X-M end if { hdr_end(X-A) -i C }
 http-request add-header X-M sub if { hdr_sub(X-A) -- b }
 http-request add-header X-M dom if { hdr_dom(host) -i EXAMPLE }
 http-request add-header X-M dom2 if { hdr_dom(X-A) b.c }
 http-request add-header X-M reg if { hdr_reg(X-A) -i ^[A-C]+$ }
 http-request add-header X-M len if { hdr_len(X-A) 0 }
 http-request add-header X-M int if { hdr_val(X-A) gt 5 }
 http-request add-header X-M int2 if { req.hdr(X-A) -m int 1:9 12 }
 http-request add-header X-M cnt if { hdr_cnt(X-A) eq 2 }
 http-request add-header X-M cnt2 if { req.fhdr_cnt(X-A) ge 2 }
 http-request add-header X-M ip if { hdr_ip(X-Ip) 10.0.0.0/8 ::1 }
 http-request add-header X-M ip2 if { req.hdr(X-Ip) -m ip 192.168.1.1 }
 http-request add-header X-M ipf if { hdr_ip(X-Ip) -m found }
 http-request add-header X-M src if { src 127.0.0.0/8 }
 http-request add-header X-M srcn if !{ src 10.0.0.0/8 }
 http-request add-header X-M ck if { cook(c) -m found }
 http-request add-header X-M ck2 if { req.cook(c) x }
 http-request add-header X-M ck3 if { cook_cnt(c) 2 }
 http-request add-header X-M bool if { req.hdr(X-A) -m bool }
 http-request add-header X-M up if { urlp(a) -m sub b }
 http-request add-header X-M up2 if { url_param(a) -m len 1 }
 http-request add-header X-M first if { http_first_req }
 http-request add-header X-M get if METH_GET
 http-request add-header X-M post if METH_POST HTTP_CONTENT
 http-request add-header X-M v10 if HTTP_1.0
 http-request add-header X-M slash if HTTP_URL_SLASH !HTTP_URL_ABS
 http-request add-header X-M local if LOCALHOST TRUE !FALSE
 http-request add-header X-M m if { method OPTIONS PATCH }
 http-request add-header X-M srv if { nbsrv ge 1 } { nbsrv(@NAME@) 3 }""",
    "converters": """http-request add-header X-V %[req.fhdr(X-A),lower]|%[req.fhdr(X-A),upper]|%[req.fhdr(X-A),length]
 http-request add-header X-V field:%[req.fhdr(X-A),field(1,;)]|%[req.fhdr(X-A),field(2,;)]|%[req.fhdr(X-A),field(-1,;)]
 http-request add-header X-V field2:%[req.fhdr(X-A),field(2,x;)]|%[req.fhdr(X-A),field(-2,;)]|%[req.fhdr(X-A),field(9,;)]
 http-request add-header X-V word:%[req.fhdr(X-A),word(1,;)]|%[req.fhdr(X-A),word(2,;)]|%[req.fhdr(X-A),word(-1,;)]
 http-request add-header X-V word2:%[req.fhdr(X-A),word(-2,;)]|%[req.fhdr(X-A),word(3,x;)]|%[req.fhdr(X-A),word(9,;)]
 http-request add-header X-V bytes:%[req.fhdr(X-A),bytes(1)]|%[req.fhdr(X-A),bytes(0,2)]|%[req.fhdr(X-A),bytes(2,1)]|%[req.fhdr(X-A),bytes(99)]
 http-request add-header X-V num:%[req.fhdr(X-N),add(5)]|%[req.fhdr(X-N),sub(5)]|%[req.fhdr(X-N),not]
 http-request add-header X-V cat:%[req.fhdr(X-A),concat(!)]
 http-request add-header X-V url:%[req.fhdr(X-A),url_dec]|%[req.fhdr(X-A),url_dec(1)]
 http-request add-header X-V sub1:%[req.fhdr(X-A),regsub(b,<>)]
 http-request add-header X-V sub2:%[req.fhdr(X-A),regsub(b,<>,g)]
 http-request add-header X-V 'sub3:%[req.fhdr(X-A),regsub("(A|b)","<\\1>",gi)]'
 http-request add-header X-V sub4:%[req.fhdr(X-A),regsub(x*,-,g)]
 http-request add-header X-V sub5:%[req.fhdr(X-A),regsub(^a,-,g)]
 http-request add-header X-V chain:%[req.fhdr(X-A),lower,field(1,;),length,add(1)]""",
    "edits": """http-request set-header X-A new if { path_beg /set }
 http-request set-header X-A first:%[req.hdr(X-A,1)] if { path_beg /first }
 http-request add-header X-A added if { path_beg /add }
 http-request del-header X-A if { path_beg /del }
 http-request del-header x- -m beg if { path_beg /delbeg }
 http-request del-header -a -m end if { path_beg /delend }
 http-request del-header n -m sub if { path_beg /delsub }
 http-request del-header ^X-[AB]$ -m reg if { path_beg /delreg }
 http-request replace-header X-A ^(.*)b(.*)$ \\2-\\1 if { path_beg /rep }
 http-request replace-header X-A b [\\0] if { path_beg /rep }
 http-request replace-value X-A ^(.)$ <\\1\\1> if { path_beg /val }
 http-request replace-value X-A b+ %[src] if { path_beg /val }
 http-request set-header X-Again %[req.hdr(X-A)]
 http-request set-header X-Seen yes if { req.hdr(X-A) new }
 http-request set-header Host changed.example if { path_beg /host }
 http-request set-header X-Empty %[req.hdr(X-None)]""",
    "targets": """http-request set-path /p%[path] if { path_beg /path }
 http-request set-pathq /pq?z if { path_beg /pq }
 http-request set-query new=%[query] if { path_beg /query }
 http-request set-uri /uri?%[path] if { path_beg /uri }
 http-request set-uri http://other.example/abs if { path_beg /abs }
 http-request set-method PUT if { path_beg /put }
 http-request set-method %[req.hdr(X-Method)] if { req.hdr(X-Method) -m found }
 http-request set-header X-Path %[path]|%[query]|%[method]|%HU|%HP""",
    "answers": """http-request deny if { path /deny }
 http-request deny deny_status 429 hdr X-Why slow hdr X-From %[src] if { path /slow }
 http-request deny status 400 if { path /bad }
 http-request deny status 503 if { path /down }
 http-request return if { path /plain }
 http-request return status 404 if { path /404 }
 http-request return status 404 default-errorfiles if { path /404page }
 http-request return status 418 if { path /teapot }
 http-request return status 204 hdr X-A b if { path /204 }
 http-request return status 200 content-type text/plain string "a % b" if { path /string }
 http-request return status 503 content-type "text/html; charset=utf-8" string "<p>later</p>" hdr Retry-After 5 if { path /later }
 http-request return status 200 content-type text/plain lf-string "%[method] %[path] %[src] %[req.hdr(X-A)]" hdr X-P %[path] if { path_beg /lf }
 http-request allow if { path_beg /allow }
 http-request deny if { path_end .secret }""",
    "redirects": """http-request redirect location /new%[path] if { path_beg /loc }
 http-request redirect location http://x.example/ code 301 if { path_beg /perm }
 http-request redirect location /see code 303 set-cookie SEEN=1 if { path_beg /see }
 http-request redirect location / code 307 clear-cookie USER if { path_beg /tmp }
 http-request redirect location /p code 308 if { path_beg /308 }
 http-request redirect prefix https://x.example if { path_beg /pre }
 http-request redirect prefix / if { path_beg /bare }
 http-request redirect prefix /sub drop-query if { path_beg /drop }
 http-request redirect prefix /sub append-slash if { path_beg /slash }
 http-request redirect prefix /sub drop-query append-slash if { path_beg /both }
 http-request redirect scheme https if { path_beg /tls }
 http-request redirect scheme https code 301 drop-query if { path_beg /tdrop }
 http-request redirect location %[req.hdr(X-To)] ignore-empty if { path_beg /maybe }
 http-request allow if { path_beg /old }
 http-request deny if { path_beg /never }
 redirect prefix /moved if { path_beg /old }
 redirect location /gone code 302 if { path_beg /gone }""",
    "responses": """http-response set-header X-Status %[status]
 http-response add-header X-V a:%[res.hdr(X-R)]|%[res.hdr(X-R,1)]|%[res.fhdr(X-R)]|%[res.hdr_cnt(X-R)]|%[res.hdr_val(X-R)]
 http-response add-header X-V c:%[res.cook(k)]|%[res.cook_cnt(k)]|%[res.ver]|%[method]|%[srv_name,length]
 http-response add-header X-V h:%[hdr(X-R)]
 http-response del-header Server
 http-response del-header x-drop -m beg
 http-response replace-header X-Rep (.*)o(.*) \\2o\\1
 http-response replace-value X-List b+ B
 http-response set-status 418 if { status 499 }
 http-response set-status 200 reason Fine if { status 500:505 }
 http-response add-header X-M changed if { status 418 }
 http-response add-header X-M sc if { res.cook(k) -m found }
 http-response add-header X-M get if METH_GET
 http-response add-header X-M len if { res.hdr_val(content-length) gt 3 }
 http-response set-header Set-Cookie mine=1 if { res.hdr(X-Cookie) -m found }""",
    "response_answers": """http-response deny if { res.hdr(X-Deny) 1 }
 http-response deny status 403 if { res.hdr(X-Deny) 2 }
 http-response deny deny_status 500 hdr X-Why %[src] if { res.hdr(X-Deny) 3 }
 http-response return status 200 content-type text/plain lf-string "was %[src]" if { res.hdr(X-Deny) 4 }
 http-response redirect location /login code 302 if { res.hdr(X-Deny) 5 }
 http-response allow if { res.hdr(X-Deny) 6 }
 http-response set-header X-After yes
 cookie SRV insert indirect nocache""",
    "cookies_after_rules": """cookie SRV insert indirect nocache
 http-request set-header X-Cookie %[req.cook(SRV)]
 http-request del-header Cookie if { path_beg /forget }
 http-response set-header X-Set %[res.cook(SRV)]
 http-response del-header Set-Cookie""",
    "prefix_after_rules": """cookie JS prefix
 http-request set-header X-Js %[req.cook(JS)]
 http-request deny if { req.cook(JS) -m beg s1~bad }
 http-response set-header X-Set %[res.cook(JS)]
 http-response add-header Set-Cookie JS=more if { res.hdr(X-Cookie) -m found }""",
    "backends": """acl api path_beg /api
 use_backend @NAME@_api if api { method GET }
 use_backend @NAME@_post if METH_POST
 use_backend @NAME@_hdr if { req.hdr(X-Back) -i hdr }
 use_backend @NAME@_closing if { req.hdr(X-Set) 1 }
 http-request set-header X-Back hdr if { path_beg /sethdr }
 http-request set-header X-Front %[fe_name]
 http-request deny if { path_beg /front }
 default_backend @NAME@_def
---
backend @NAME@_api
 option forwardfor header X-Api
 http-request set-path /inner%[path]
 http-request deny if { path_beg /inner/api/no }
 http-request set-header X-Name %[be_name]:%[fe_name]:%b:%f
 server s1 127.0.0.1:@S1@
backend @NAME@_post
 option http-server-close
 cookie SRV insert indirect
 server s2 127.0.0.1:@S2@ cookie s2
backend @NAME@_hdr
 http-response set-header X-Back %[be_name]:%[srv_name]
 server s3 127.0.0.1:@S3@
backend @NAME@_closing
 option httpclose
 server s1 127.0.0.1:@S1@
backend @NAME@_def
 http-request return status 200 content-type text/plain string def if { path_beg /ret }
 server s1 127.0.0.1:@S1@""",
    "no_backend": """use_backend @NAME@_one if { path_beg /one }
 http-request set-header X-A b
---
backend @NAME@_one
 server s1 127.0.0.1:@S1@""",
    "dead_backend": """use_backend @NAME@_dead if { path_beg /dead }
 use_backend @NAME@_off if { path_beg /off }
 errorfile 503 @DIR@/e503
 errorfile 403 @DIR@/e403
 errorfile 502 @DIR@/e502
 http-request deny if { path_beg /deny }
 http-request deny hdr X-More 1 if { path_beg /more }
 default_backend @NAME@_own
---
backend @NAME@_dead
 retries 0
 server dead 127.0.0.1:@DEAD@
backend @NAME@_off
 disabled
 server s1 127.0.0.1:@S1@
backend @NAME@_own
 retries 0
 errorfile 503 @DIR@/e403to503
 errorfile 403 /dev/null
 http-request deny if { path_beg /own }
 http-request return status 403 default-errorfiles if { path_beg /page }
 http-response deny if { res.hdr(X-Deny) -m found }
 server s1 127.0.0.1:@S1@""",
    "persistence": """default_backend @NAME@_b
---
backend @NAME@_b
 cookie SRV insert indirect
 option redispatch
 retries 1
 http-request set-header X-Force 1 if { path_beg /late }
 force-persist if { path_beg /force } or { req.hdr(X-Force) 1 }
 ignore-persist if { path_beg /static }
 force-persist if { path_beg /static }
 server s1 127.0.0.1:@S1@ cookie s1
 server off 127.0.0.1:@S2@ cookie off disabled""",
    "persistence_prefix": """cookie SRV prefix
 ignore-persist if { path_beg /static }
 http-request set-header X-C %[req.cook(SRV)]""",
    "allow_and_order": """http-request set-header X-Step 1
 http-request set-header X-Step 2 if { req.hdr(X-Step) 1 }
 http-request add-header X-Step 3 if { req.hdr(X-Step) 2 } { path_beg /a }
 http-request allow if { path_beg /allow }
 http-request set-header X-Step 4 if { req.hdr_cnt(X-Step) 2 }
 http-request del-header X-Step if { path_beg /b }
 http-request set-header X-Gone yes unless { req.hdr(X-Step) -m found }
 default_backend @NAME@_b
---
backend @NAME@_b
 http-request set-header X-Second 1 if { req.hdr(X-Step) 4 }
 http-response set-header X-R be
 http-response allow if { status 404 }
 http-response add-header X-R2 be
 server s1 127.0.0.1:@S1@""",
    "front_and_back_responses": """http-response set-header X-R fe:%[res.hdr(X-R)]
 http-response deny if { res.hdr(X-R2) -m found } { status 404 }
 default_backend @NAME@_b
---
backend @NAME@_b
 http-response set-header X-R be
 http-response allow if { status 404 }
 http-response add-header X-R2 be
 server s1 127.0.0.1:@S1@""",
    "controls": """http-request set-header X-Copy %[req.hdr(X-Raw)]
 http-request return status 200 content-type text/plain lf-string "<%[req.hdr(X-Raw)]>" hdr X-Copy %[req.hdr(X-Raw)] if { path_beg /lf }
 http-request redirect location /x?%[req.hdr(X-Raw)] if { path_beg /loc }
 http-request deny if { req.hdr(X-Raw) -m reg [\\x80-\\xff]{3} }""",
    "utf8": """http-request set-header X-Lit é–%[path]
 http-request set-header X-M yes if { req.hdr(X-Raw) -m sub é }
 http-request return status 200 content-type text/plain string ü if { path_beg /lf }""",
    "heads": """http-request deny if { method HEAD } { path_beg /deny }
 http-request return status 200 content-type text/plain string abc if { path_beg /return }
 http-request redirect prefix /x if { path_beg /redirect }
 http-response set-header X-R 1
 http-response deny if { res.hdr(X-Deny) -m found }""",
    "connection_rules": """http-request del-header X-A
 http-response set-header Connection close if { res.hdr(X-Close) 1 }
 http-response del-header Keep-Alive
 option forwardfor if-none
 http-request set-header X-Forwarded-For 9.9.9.9 if { path_beg /xff }
 http-request del-header X-Forwarded-For if { path_beg /noxff }""",
    "too_big": """http-request set-header X-B %[req.hdr(X-Big)]%[req.hdr(X-Big)]%[req.hdr(X-Big)]
 http-response set-header X-B %[res.hdr(X-Big)]%[res.hdr(X-Big)]%[res.hdr(X-Big)]""",
    "many": "\n ".join(f"http-request add-header X-Many-{n % 7} v{n}-%[path] if {{ path_beg /m }}" for n in range(60)),
}

PATHS = {
    "paths": ["/", "/a", "/api/x", "/v1", "/b", "/b/c", "/a/b/c", "/x/y", "/ax/yb", "/abc/", "/A/x", "/q?a=1", "/q?b=2", "/api.png", "/t.GIF", "/t.gif", "/a/b?x/y", "/12345678", "/é"][:-1],
    "fetches": ["/", "/p?a=1", "/p?a=&b=2", "/p?b=1&a=2&a=3", "/p;a=9?x", "/p?", "/p?a", "/p?aa=1", "http://h.example/x?y=1", "/p?a=1;a=2"],
    "targets": ["/path", "/path?x=1", "/pq?y", "/query?o=1", "/query", "/uri?x", "/abs?x", "/put", "http://h.example/path?x", "http://h.example/query?a"],
    "answers": ["/deny", "/slow", "/bad", "/down", "/plain", "/404", "/404page", "/teapot", "/204", "/string", "/later", "/lf", "/lf/x?y", "/allow.secret", "/x.secret", "/"],
    "redirects": ["/loc?x=1", "/perm", "/see", "/tmp", "/308", "/pre/a?b=c", "/pre", "/bare/x?y", "/drop?x=1", "/slash/a?b", "/slash/a/", "/both/a?b=1", "/tls/x?y=1", "/tdrop?x", "/maybe", "/old/x", "/gone", "http://h.example/pre/x?y", "http://h.example/tls"],
    "edits": ["/set", "/first", "/add", "/del", "/delbeg", "/delend", "/delsub", "/delreg", "/rep", "/val", "/host", "/", "http://h.example/host"],
    "backends": ["/api/x", "/api/no", "/sethdr", "/front", "/x", "/ret", "/"],
    "no_backend": ["/one", "/two"],
    "dead_backend": ["/dead", "/off", "/deny", "/more", "/own", "/page", "/x"],
    "persistence": ["/force", "/static", "/late", "/x"],
    "persistence_prefix": ["/static", "/x"],
    "cookies_after_rules": ["/forget", "/x"],
    "allow_and_order": ["/a", "/allow", "/b", "/c"],
    "controls": ["/lf", "/loc", "/x"],
    "utf8": ["/lf", "/x"],
    "heads": ["/deny", "/return", "/redirect", "/x"],
    "connection_rules": ["/xff", "/noxff", "/x"],
    "many": ["/m", "/n"],
}  # fmt: skip
HEADERS = {
    "headers": ["X-A: a", "X-A: a,b", "X-A: a, b ,c", 'X-A: "q,r", s', "X-A:", "X-A: ,", "X-A: 12x", "X-A: 3x", "Cookie: c=1",
                "Cookie: c=1; c=2", "Cookie: a=1; c = x ;c=", 'Cookie: d="c=5;c=6"; c=7', "Cookie: C=1; c", "Cookie: c=,c=2", "Cookie: c=", "X-Ip: 1.2.3.4",
                "X-Ip: ::1", "X-Ip: 1.2.3", "X-Ip: 10.1.1.1, x", "X-Ip: 10.1.1.1:80", "X-Ip: fe80::1%eth0"],
    "matches": ["X-A: a", "X-A: b, c", "X-A: ABC", "X-A: 7", "X-A: 3", "X-A: -3", "X-A: 12", "X-A: a.b.c", "X-A:", "X-A: 0", "X-A: c", "Cookie: c=x",
                "Cookie: c=x; c=y", "X-Ip: 10.2.3.4", "X-Ip: ::1", "X-Ip: 192.168.1.1", "X-Ip: nonsense", "X-Ip: fe80::1%1"],
    "converters": ["X-A: a;b;c", "X-A: ;a;;b;", "X-A: abab", "X-A: a%20b+c?d+e", "X-A: %zz", "X-A: xxaxx", "X-A:", "X-A: AbC,d;e", "X-N: 5", "X-N: 0",
                   "X-N: x", "X-N: 9223372036854775807", "X-A: a%41%"],
    "edits": ["X-A: a", "X-A: a, b", "X-A: bb,b , c", "X-A: abcb", "X-B: 1", "X-An: 2", "Via-a: x", "X-A:"],
    "targets": ["X-Method: PATCH", "X-Other: 1"],
    "redirects": ["X-To: /there", "X-Other: 1"],
    "backends": ["X-Back: HDR", "X-Set: 1", "Cookie: SRV=s2"],
    "persistence": ["Cookie: SRV=off", "Cookie: SRV=s1", "X-Force: 1"],
    "persistence_prefix": ["Cookie: SRV=s1~x", "Cookie: SRV=s2~y; a=b"],
    "cookies_after_rules": ["Cookie: SRV=s1", "Cookie: SRV=s2; a=b"],
    "prefix_after_rules": ["Cookie: JS=s1~bad", "Cookie: JS=s2~fine"],
    "controls": ["X-Raw: a\x01b", "X-Raw: tab\there", "X-Raw: \xe9\xff\x80", "X-Raw: del\x7f", "X-Raw: a b%20\"'<>"],
    "utf8": ["X-Raw: caf\xc3\xa9", "X-Raw: caf\xe9"],
    "connection_rules": ["X-Forwarded-For: 1.2.3.4", "X-A: 1", "Connection: keep-alive"],
    "answers": ["X-A: yes"],
    "too_big": ["X-Big: " + "a" * 7000, "X-Big: " + "a" * 2000],
}  # fmt: skip
RESPONSES = {
    "responses": [
        "200 OK|Server: x|X-R: a, b|X-R: c", "499 Odd", "503 Down|X-R: 12", "404 No|X-Drop-A: 1|X-Dropper: 2", "200 OK|X-Rep: foo|X-Rep: x|X-List: bb, a,b",
        "200 OK|Set-Cookie: k=v; path=/|Set-Cookie: j=1; k=2", "200 OK|X-Cookie: 1|Set-Cookie: a=b", "302 Found|Location: /x", "304 Not Modified|ETag: x",
    ],
    "response_answers": [f"200 OK|X-Deny: {n}" for n in range(1, 8)] + ["404 No|X-Deny: 3"],
    "cookies_after_rules": ["200 OK|Set-Cookie: SRV=x", "200 OK|Set-Cookie: o=1"],
    "prefix_after_rules": ["200 OK|Set-Cookie: JS=new", "200 OK|X-Cookie: 1"],
    "allow_and_order": ["404 No", "200 OK"],
    "front_and_back_responses": ["404 No", "200 OK", "404 No|X-R2: own"],
    "dead_backend": ["200 OK|X-Deny: 1", "200 OK"],
    "heads": ["200 OK|X-Deny: 1", "200 OK"],
    "too_big": ["200 OK", "200 OK|X-Big: " + "a" * 7000, "200 OK|X-Big: " + "a" * 2000],
    "connection_rules": ["200 OK|X-Close: 1|Keep-Alive: timeout=5", "200 OK"],
}  # fmt: skip


def config(directory: Path, host: str, ports: list[int], servers: Upstreams, dead: int) -> str:
    text = """
defaults
    mode http
    log @LOG@ local0
    option httplog
    timeout connect 1s
    timeout client 6s
    timeout server 6s
"""
    for (name, words), port in zip(CONFIGS.items(), ports, strict=True):
        front, _, rest = words.partition("\n---\n")
        alone = "default_backend" not in front and "use_backend" not in front
        text += f"\n{'listen' if alone else 'frontend'} {name}\n bind {host}:{port}\n {front}\n"
        if alone:
            text += "".join(f" server s{n} 127.0.0.1:{servers.ports[n - 1]} cookie s{n}\n" for n in (1, 2, 3))
        text += rest.replace("@NAME@", name) + "\n"
        text = text.replace("@NAME@", name)
    for number, port in enumerate(servers.ports, 1):
        text = text.replace(f"@S{number}@", str(port))
    return text.replace("@DEAD@", str(dead)).replace("@DIR@", str(directory))


@pytest.fixture(scope="module", params=["fast", "reference"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp("rules")
    for name, content in (
        ("e403", ERROR_403), ("e502", ERROR_502), ("e503", ERROR_503), ("e403to503", ERROR_503.replace(b"fishes", b"own 53")),
    ):  # fmt: skip
        (directory / name).write_bytes(content)
    with upstreams() as servers:
        both = Pair(
            request.param, directory, servers, list(CONFIGS),
            lambda host, ports, ups, dead: config(directory, host, ports, ups, dead),
        )  # fmt: skip
        assert "slow reference" not in both.programs[1][1].output.read_text()
        yield both
        both.stop()


def exchanges(name: str) -> Iterator[tuple[bytes, bytes]]:
    """Requests with the answers that the server gives, the same for each run."""
    rng = random.Random(name)
    paths = PATHS.get(name, ["/x"])
    headers = HEADERS.get(name, ["X-A: a"])
    responses = RESPONSES.get(name, ["200 OK"])
    for number in range(max(EXCHANGES, len(paths), len(headers), len(responses))):
        path = paths[number % len(paths)]
        some = [headers[number % len(headers)], *rng.sample(headers, rng.randrange(min(3, len(headers))))]
        method = rng.choices(["GET", "POST", "HEAD", "OPTIONS"], [6, 2, 1, 1])[0]
        version = rng.choices(["1.1", "1.0"], [5, 1])[0]
        first, *more = responses[number % len(responses)].split("|")
        has_body = method != "HEAD" and not first.startswith("304")
        lines = [f"HTTP/1.1 {first}", *more, *(["Content-Length: 2"] if not first.startswith("304") else [])]
        answer = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + (b"ok" if has_body else b"")
        yield get(path, *some, method=method, version=version, body=b"body" if method == "POST" else b""), answer


@pytest.mark.parametrize("name", CONFIGS)
def test_rules_do_what_haproxys_do(pair: Pair, name: str) -> None:
    wrong = []
    for request, response in exchanges(name):
        # the case stands in the path, so that each exchange has its own log line
        tagged = request.replace(b" HTTP/1", b"#HTTP/1", 1)
        mark = b"&case/@CASE@" if b"?" in tagged.partition(b"#")[0] else b"?/case/@CASE@"
        raw = request if name in ("paths", "fetches", "targets", "redirects") else tagged.replace(b"#", mark + b" ", 1)
        theirs, ours = pair.run(name, raw, response)
        found = differences(portrait(theirs, log=b"/case/" in raw), portrait(ours, log=b"/case/" in raw))
        if found:
            wrong.append(f"{raw!r} {response!r}:\n  " + "\n  ".join(found))
    assert not wrong, f"{name}: {len(wrong)} exchanges\n" + "\n".join(wrong[:8])


def test_enough_exchanges() -> None:
    assert len(CONFIGS) >= 25
    assert sum(len(list(exchanges(name))) for name in CONFIGS) >= 300

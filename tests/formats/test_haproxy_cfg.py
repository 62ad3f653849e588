"""haproxy.cfg: words and quotes, every directive, inheritance, errors; and the real `haproxy -c` on the same snippets."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haptk.errors import ConfigError
from haptk.formats.haproxy_cfg import Source, parse
from haptk.formats.haproxy_cfg.conditions import evaluate
from haptk.formats.haproxy_cfg.model import Refused
from haptk.formats.haproxy_cfg.units import address, size, time_s
from haptk.formats.haproxy_cfg.words import split
from haptk.proxy.compile import load, load_text

ENVIRON = {"HOME": "/root", "LIST": "p q  r", "EMPTY": ""}
WORDS = [
    ("a b  c", ["a", "b", "c"]),
    ("  a\tb # c", ["a", "b"]),
    ("a#b", ["a"]),
    (r"a\#b", ["a#b"]),
    (r"a\ b", ["a b"]),
    (r"a\qb", [r"a\qb"]),
    (r"\x41\x42", ["AB"]),
    (r"\n\r\t", ["\n\r\t"]),
    (r"a\$b", [r"a\$b"]),
    ("x$HOME", ["x$HOME"]),
    ('"x$HOME-y"', ["x/root-y"]),
    ('"${HOME}y"', ["/rooty"]),
    ('"${NOPE-dflt}z"', ["dfltz"]),
    ('"${EMPTY-dflt}z"', ["z"]),
    ('"${NOPE}z"', ["z"]),
    (r'"a\$b"', ["a$b"]),
    ("'a\\x41 $HOME'", ["a\\x41 $HOME"]),
    ("\"a b\"'c d'e\\ f", ["a bc de f"]),
    ('""', [""]),
    ("a ''", ["a", ""]),
    ('"a#b"', ["a#b"]),
    ('"$.LINE"', ["7"]),
    ("x\\", ["x\\"]),
    ('"a\'b"', ["a'b"]),
    ("'a\"b'", ['a"b']),
    ('"${LIST[*]}"', ["p", "q", "r"]),
]


@pytest.mark.parametrize(("line", "words"), WORDS)
def test_words(line: str, words: list[str]) -> None:
    assert split(line, {**ENVIRON, ".LINE": "7"}) == words


@pytest.mark.real("haproxy")
def test_words_are_those_of_haproxy(tmp_path: Path) -> None:
    """`.notice WORD` prints the word as HAProxy understood it."""
    lines = [line for line, words in WORDS if len(words) == 1 and ".LINE" not in line and "\n" not in words[0]]
    file = tmp_path / "words.cfg"
    file.write_text("".join(f".notice {line}\n" for line in lines))
    done = subprocess.run(
        ["haproxy", "-c", "-f", str(file)],
        capture_output=True,
        text=True,
        timeout=30,
        env=ENVIRON | {"PATH": "/usr/sbin:/usr/bin"},
    )
    theirs = [line.split("]: ", 1)[1] for line in done.stderr.splitlines() if f"[{file}:" in line]
    ours = [f"'{split(line, ENVIRON)[0]}'." for line in lines]
    assert theirs == ours


@pytest.mark.parametrize(
    "line", ['"abc', "'abc", '"$1a"', '"a$"', '"${HOME"', r"\x4", r"\xzz", '"${HOME-x"', "a " * 65, "x" * 2100]
)
def test_lines_that_cannot_be_read(line: str) -> None:
    with pytest.raises(Refused):
        split(line, ENVIRON)


@given(st.text(alphabet="a \"'\\$#{}x4[*]-", max_size=30))
def test_splitting_ends_in_words_or_a_refusal(line: str) -> None:
    try:
        words = split(line, ENVIRON)
    except Refused as refused:
        assert refused.why
    else:
        assert all(isinstance(word, str) for word in words)


def test_units() -> None:
    assert [time_s(text, "t") for text in ("5", "5ms", "3s", "2m", "1h", "1d", "1500us", "0")] == [
        0.005,
        0.005,
        3,
        120,
        3600,
        86400,
        0.002,
        0,
    ]
    for wrong in ("", "5x", "-1", "1.5s", "25d", "99999999999"):
        with pytest.raises(Refused):
            time_s(wrong, "t")
    assert [size(text, "s") for text in ("5", "1k", "2M", "1g")] == [5, 1024, 2 << 20, 1 << 30]


@pytest.mark.parametrize(
    ("text", "host", "ports", "path", "fd"),
    [
        (":80", "", (80, 80), "", -1),
        ("*:80", "", (80, 80), "", -1),
        ("10.0.0.1:80-82", "10.0.0.1", (80, 82), "", -1),
        ("[::1]:80", "::1", (80, 80), "", -1),
        ("::1:80", "::1", (80, 80), "", -1),
        ("ipv6@:80", "", (80, 80), "", -1),
        ("/run/x.sock", "", (0, 0), "/run/x.sock", -1),
        ("unix@x.sock", "", (0, 0), "x.sock", -1),
        ("abns@x", "", (0, 0), "\0x".ljust(108, "\0"), -1),
        ("fd@7", "", (0, 0), "", 7),
        ("www.example.com:443", "www.example.com", (443, 443), "", -1),
    ],
)
def test_addresses(text: str, host: str, ports: tuple[int, int], path: str, fd: int) -> None:
    found = address(text, "bind", port_range=True)
    assert (found.host, found.ports, found.unix_path, found.fd) == (host, ports, path, fd)


@pytest.mark.parametrize(
    "text", ["10.0.0.1:99999", "10.0.0.1:x", "a b:80", "[::1:80", "fd@x", "10.0.0.1:82-80", "unix@", "udp@1.2.3.4:5"]
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(Refused):
        address(text, "bind", port_range=True)


@pytest.mark.parametrize(
    ("text", "value"),
    [("", False), ("1", True), ("0", False), ("!0", True), ("1 && 0 || 1", True), ("(1 && 0) || 0", False),
     ("streq(a,a)", True), ("strneq(a,a)", False), ("defined(HOME)", True), ("defined(NOPE)", False),
     ("version_atleast(2.4)", True), ("version_before(2.6.12)", False), ("version_atleast(2.8)", False),
     ("feature(EPOLL) && !feature(OPENSSL)", True)],
)  # fmt: skip
def test_conditions(text: str, value: bool) -> None:
    assert evaluate(text, ENVIRON) is value


def test_blocks_nest_and_only_one_branch_counts() -> None:
    text = ".if streq(a,b)\nlisten a\n.elif 1\n.if 0\nlisten b\n.else\nlisten c\n.endif\n.else\nlisten d\n.endif\n"
    config = parse([Source("x", text)], {})
    assert [section.name for section in config.sections] == ["c"]
    for wrong in (".if 1\n", ".else\n", ".endif\n", ".if 1\n.else\n.elif 1\n.endif\n", ".if foo(\n.endif\n", ".fi\n"):
        assert parse([Source("x", wrong)], {}).errors, wrong


WEBFARM = """listen webfarm
       bind 127.0.0.1:8080
       mode http
       balance roundrobin
       cookie JSESSIONID prefix
       option httpclose
       option forwardfor
       option httpchk HEAD /index.html HTTP/1.0
       server Apache-A 127.0.0.1:9001 cookie A check
       server Apache-B 127.0.0.1:9002 cookie B check
"""


def test_webfarm_compiles_unmodified() -> None:
    tables = load_text(WEBFARM, "haproxy.cfg")
    front, back = tables.frontends[0], tables.backends[0]
    assert (front.binds[0].host, front.binds[0].port, front.connection) == ("127.0.0.1", 8080, "httpclose")
    assert back.cookie is not None
    assert (back.cookie.name, back.cookie.mode) == ("JSESSIONID", "prefix")
    assert [(s.name, s.port, s.cookie) for s in back.servers] == [("Apache-A", 9001, "A"), ("Apache-B", 9002, "B")]
    check = back.servers[0].check
    assert check is not None
    (sent,) = [step.send for step in check.steps if step.send is not None]
    assert (check.kind, sent.method, sent.uri, sent.version) == (
        "http",
        "HEAD",
        "/index.html",
        "HTTP/1.0",
    )


def test_defaults_are_inherited_by_copy_and_by_name() -> None:
    text = """
defaults base
    mode http
    timeout client 7s
    option redispatch
    default-server inter 5s
defaults other from base
    timeout client 9s
    no option redispatch
frontend f from base
    bind 127.0.0.1:1
    default_backend b
backend b from other
    server s 127.0.0.1:2 check rise 4
backend c
    mode tcp
"""
    tables = load_text(text)
    assert tables.frontends[0].timeouts.client == 7
    b, c = tables.backends
    assert (b.redispatch, b.timeouts.client, c.mode) == (None, 9, "tcp")
    check = b.servers[0].check
    assert check is not None
    assert (check.inter_s, check.rise) == (5, 4)


def test_every_error_of_a_file_is_told_with_line_and_choices() -> None:
    text = "listen a\n bind :80\n foo 1\n timeout foo 3\n server s 1.2.3.4:80 chek\n tcp-request inspect-delay 5s\n"
    with pytest.raises(ConfigError) as caught:
        load_text(text, "x.cfg")
    lines = str(caught.value).splitlines()
    assert [line.split(":")[1] for line in lines] == ["3", "4", "5", "6"]
    assert "HAProxy does not know it either" in lines[0]
    assert "accepted are acl, " in lines[0]
    assert "http-keep-alive" in lines[1]
    assert "'chek'" in lines[2]
    assert "HAProxy knows it, haptk does not" in lines[3]


def test_files_and_directories(tmp_path: Path) -> None:
    (tmp_path / "20-b.cfg").write_text("backend b\n    mode http\n    server s 127.0.0.1:2\n")
    (tmp_path / "10-a.cfg").write_text("frontend a\n    mode http\n    bind 127.0.0.1:1\n    default_backend b\n")
    (tmp_path / ".hidden.cfg").write_text("garbage\n")
    (tmp_path / "note.txt").write_text("garbage\n")
    tables = load([tmp_path], {})
    assert (tables.frontends[0].name, tables.frontends[0].default_backend) == ("a", 0)


def test_ranges_conditions_and_rules_reach_the_tables() -> None:
    text = """
frontend f
    mode http
    bind 127.0.0.1:8000-8003,127.0.0.2:8000 name x maxconn 5
    acl api path_beg -i /api
    acl api hdr(host) -m end .api.example
    http-request set-header X-Src %[src] if !api || { method POST }
    use_backend b if api
    default_backend c
backend b
    mode http
backend c
    mode http
"""
    front = load_text(text).frontends[0]
    assert [(bind.host, bind.port) for bind in front.binds] == [
        *((f"127.0.0.{1}", p) for p in range(8000, 8004)),
        ("127.0.0.2", 8000),
    ]
    assert [rule.kind for rule in front.rules] == ["http-request", "use_backend"]
    assert (front.rules[1].target, front.default_backend) == (0, 1)
    condition = front.rules[0].condition
    assert condition is not None
    assert [[term.negated for term in terms] for terms in condition.any_of] == [[True], [False]]
    assert len(condition.any_of[0][0].tests) == 2


# -- the real haproxy ---------------------------------------------------------------------------------------------

HEAD = "defaults\n mode http\n timeout connect 1s\n timeout client 1s\n timeout server 1s\n"
PROXY = [
    "bind 127.0.0.1:1", "bind :70000", "bind 127.0.0.1", "bind 127.0.0.1:1 name x", "bind 127.0.0.1:1 maxconn 0x",
    "bind 127.0.0.1:1 foo", "bind 127.0.0.1:1-3", "bind 127.0.0.1:3-1", "bind /tmp/x.sock mode 600", "bind",
    "bind 127.0.0.1:1 accept-proxy backlog 5", "mode http", "mode tcp", "mode health", "mode foo", "balance roundrobin",
    "balance foo", "balance leastconn", "balance uri depth 3 whole", "balance uri foo", "balance url_param a",
    "balance url_param", "balance hdr(x)", "balance hdr", "balance random(3)", "balance first", "balance source",
    "hash-type consistent", "hash-type map-based sdbm avalanche", "hash-type foo", "cookie A", "cookie A insert",
    "cookie A insert prefix", "cookie A rewrite indirect", "cookie A preserve", "cookie A insert preserve",
    "cookie A insert maxidle 5m maxlife 1h", "cookie A insert maxidle", "cookie A insert domain .x.y attr a=b",
    "cookie A insert attr", "cookie A foo", "cookie", "cookie A insert httponly secure dynamic",
    "dynamic-cookie-key x", "dynamic-cookie-key", "server s 127.0.0.1:2", "server s 127.0.0.1:2 check inter 5s rise 1 fall 1",
    "server s 127.0.0.1:2 weight 256", "server s 127.0.0.1:2 weight 257", "server s 127.0.0.1", "server s",
    "server s 127.0.0.1:2 check port 70000", "server s 127.0.0.1:2 observe layer4 error-limit 3 on-error mark-down",
    "server s 127.0.0.1:2 on-error foo", "server s 127.0.0.1:2 slowstart 5s backup disabled", "server s 127.0.0.1:+5",
    "server s 127.0.0.1:2 cookie", "server s 127.0.0.1:2 send-proxy send-proxy-v2", "server s /tmp/x.sock",
    "server s 127.0.0.1:2 maxconn 5 maxqueue 3 minconn 1", "server s 127.0.0.1:2 redir http://x",
    "server s 127.0.0.1:2 track t", "server s 127.0.0.1:2 init-addr last,libc,none", "server s 127.0.0.1:2 init-addr foo",
    "server s 127.0.0.1:2 fastinter 1s downinter 30s", "server s 127.0.0.1:2 inter 0", "server s 127.0.0.1:2 rise 0",
    "server s! 127.0.0.1:2", "default-server inter 5s weight 3", "default-server foo", "default-server",
    "server-template s 1-3 127.0.0.1:2 check", "server-template s 127.0.0.1:2", "option httpchk", "option httpchk /x",
    "option httpchk HEAD /x HTTP/1.0", r"option httpchk GET /x HTTP/1.1\r\nHost:\ www", "option foo", "option",
    "option httpclose", "no option httpclose", "option http-server-close", "option forwardfor except 127.0.0.0/8 header X",
    "option forwardfor if-none", "option forwardfor foo", "option originalto", "option redispatch 3", "option redispatch x",
    "option redispatch", "no option redispatch", "option dontlognull", "option httplog", "option tcplog", "option persist",
    "option allbackups", "option abortonclose", "option tcp-check", "option forceclose", "no option forwardfor",
    "http-check expect status 200,300-399", "http-check expect ! string foo", "http-check expect foo",
    "http-check send meth GET uri /x ver HTTP/1.1 hdr Host x", "http-check send foo", "http-check disable-on-404",
    "http-check expect rstatus ^2", "tcp-check connect port 5", "tcp-check send x", "tcp-check expect string x",
    "tcp-check send-binary 0g", "tcp-check expect foo x", "http-reuse safe", "http-reuse foo", "retries 3", "retries x",
    "retry-on conn-failure empty-response 503", "retry-on none", "retry-on foo", "retry-on", "fullconn 100", "maxconn 100",
    "maxconn x", "timeout client 5s", "timeout foo 5s", "timeout client", "timeout client 5x", "timeout tunnel 1h",
    "timeout http-request 5s", "timeout client 30d", "errorfile 503 /dev/null", "errorfile 599 /dev/null",
    "errorfile 503 /nope", "monitor-uri /x", "monitor-uri", "stats enable", "stats uri /x", "stats auth a:b",
    "stats refresh 5s", "stats foo", "log global", "log 127.0.0.1 local0", "log 127.0.0.1:514 local0 notice err",
    "log 127.0.0.1 foo", "log stdout format raw local0", "log stdout format foo local0", "no log", "log-format %ci:%cp",
    "log-format %zz", "log-format '%[src] %{+Q}r'", "log-format '%[foo]'", "log-format '%[src'",
    "acl a path /x", "acl a path_beg -i /x /y", "acl a foo /x", "acl a hdr(host) x", "acl a hdr_dom(host) x",
    "acl a src 10.0.0.0/8", "acl a src foo", "acl a path_reg ^/(a|b)", "acl a path_reg (", "acl a dst_port gt 1024",
    "acl a dst_port 1:1024", "acl a hdr_cnt(x) gt 1", "acl a req.cook(x) -m found", "acl a hdr(x) -m foo y", "acl",
    "acl a method GET POST", "acl a nbsrv lt 1", "acl a always_true", "acl a url_param(x) y", "acl a path,lower /x",
    "http-request deny if { path /x }", "http-request deny if foo", "http-request deny if", "http-request deny deny_status 429",
    "http-request deny status 404 if TRUE", "http-request set-header X y", "http-request set-header X", "http-request foo",
    "http-request set-header X %[src,lower]", "http-request add-header X 'a b' unless { src 10.0.0.1 }",
    "http-request del-header X", "http-request replace-header X (.*) a\\1", "http-request set-path /x%[path]",
    "http-request redirect location /x code 301 if { path / }", "http-request redirect location /x code 399",
    "http-request redirect prefix https://x drop-query append-slash", "http-request redirect scheme https",
    "http-request return status 200 content-type text/plain string hello", "http-request return foo",
    "http-request return status 200 hdr X y", "http-request deny if METH_POST !HTTP_1.1 || { path_end .x }",
    "http-request deny if { path /x", "http-request deny if ! { path /x }", "http-response set-header X y",
    "http-response deny if { status 404 }", "http-response set-status 404", "http-response foo",
    "http-request deny if { status 404 }", "redirect location /x", "redirect foo /x", "force-persist if { path /x }",
    "force-persist", "ignore-persist unless { path /x }", "default_backend nope", "use_backend nope if { path /x }",
    "stick-table type string len 32 size 10k expire 30m", "stick-table type string", "stick-table type ip size 1k nopurge",
    "stick-table type foo size 1k", "stick-table type ip len 5 size 1k", "disabled", "enabled", "description a b c",
    "id 5", "id x", "backlog 5", "foo", "clitimeout 5s", "redispatch", "load-server-state-from-file global",
    "unique-id-header X", "max-keep-alive-queue 5", "source 127.0.0.1", "http-request set-method GET",
    "http-request set-query a=b", "http-request set-uri /x", "http-request allow if TRUE", "monitor-uri /a extra",
]  # fmt: skip
GLOBAL = [
    "maxconn 100", "maxconn x", "nbthread 2", "nbthread 0", "nbthread 65", "daemon", "daemon x", "user nobody", "log 127.0.0.1 local0",
    "chroot /tmp", "pidfile /tmp/x", "stats socket /tmp/x mode 600 level admin", "stats socket", "stats timeout 5s", "stats foo",
    "ssl-default-bind-options no-sslv3", "ca-base /etc/ssl", "tune.bufsize 32768", "tune.maxrewrite 2048", "spread-checks 5",
    "hard-stop-after 5s", "node x", "foo", "server-state-file x", "master-worker", "setenv A b", "ulimit-n 1000", "log-tag x",
    "default-path origin /tmp", "default-path foo", "cpu-map 1 0", "no log", "presetenv A b", "quiet", "nbproc 2", "bind :80",
]  # fmt: skip
# Where haptk differs on purpose: it does not read a number out of a word that is none, or half of one.
NUMBERS_ONLY = (
    "bind 127.0.0.1:1 maxconn 0x",
    "server s 127.0.0.1:2 check port 70000",
    "option redispatch x",
    "retries x",
)
DIFFERENT = frozenset(
    {
        *NUMBERS_ONLY,
        "maxconn x",
        "default-server",  # an empty line of options is a slip
        "http-request deny if",  # so is an 'if' without a condition: HAProxy would deny everything
        "disabled",  # valid in both; haproxy -c exits with 2 because nothing would listen
    }
)


def verdicts(tmp_path: Path, snippets: list[str], wrap: str) -> list[tuple[str, bool, bool, str]]:
    found = []
    for number, snippet in enumerate(snippets):
        file = tmp_path / f"{number}.cfg"
        file.write_text(wrap.replace("@", snippet))
        done = subprocess.run(["haproxy", "-c", "-f", str(file)], capture_output=True, text=True, timeout=30)
        try:
            load([file], {})
            why = ""
        except ConfigError as error:
            why = str(error)
        found.append((snippet, done.returncode == 0, not why, why or done.stderr))
    return found


@pytest.mark.real("haproxy")
@pytest.mark.parametrize(
    ("snippets", "wrap"),
    [
        (PROXY, HEAD + "listen a\n bind 127.0.0.1:65000\n server t 127.0.0.1:3 check\n @\n"),
        (GLOBAL, "global\n @\n" + HEAD + "listen a\n bind 127.0.0.1:65000\n"),
    ],
    ids=["proxy", "global"],
)
def test_accepts_and_refuses_what_haproxy_does(tmp_path: Path, snippets: list[str], wrap: str) -> None:
    wrong = [
        f"{snippet!r}: haproxy {'accepts' if theirs else 'refuses'}, haptk {'accepts' if ours else 'refuses'}: {why[:300]}"
        for snippet, theirs, ours, why in verdicts(tmp_path, snippets, wrap)
        if theirs is not ours and snippet not in DIFFERENT
    ]
    assert not wrong, "\n".join(wrong)


# -- no input breaks the reader -----------------------------------------------------------------------------------

_MORE = ["if", "{", "}", "||", "!", "%[", "listen", "global", "defaults", "from", "no", "peers", "userlist", "(", ","]
_ALPHABET = [*itertools.chain.from_iterable(line.split() for line in PROXY + GLOBAL), *_MORE]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(st.sampled_from(_ALPHABET), min_size=1, max_size=7), max_size=12))
def test_any_lines_give_tables_or_a_config_error(lines: list[list[str]]) -> None:
    text = "listen a\n" + "".join(" ".join(words) + "\n" for words in lines)
    try:
        tables = load_text(text)
    except ConfigError as error:
        assert str(error)
    else:
        assert tables.frontends or tables.backends


@pytest.mark.real("haproxy")
@pytest.mark.parametrize(
    ("text", "code"),
    [
        (WEBFARM, 0),
        ("listen a\n foo\n", 1),
        ("global\n maxconn 5\ndefaults\n mode http\n", 2),
        ("global\n stats socket /tmp/haptk-check.sock\ndefaults\n mode http\n", 0),
        ("listen a\n mode http\n server s 127.0.0.1:2\n", 2),
        ("listen a\n mode http\n bind 127.0.0.1:4\n disabled\nlisten b\n bind 127.0.0.1:3\n", 0),
    ],
)
def test_check_exits_like_haproxy(tmp_path: Path, text: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    from haptk.cli.app import haptk
    from haptk.cli.base import run

    file = tmp_path / "haproxy.cfg"
    file.write_text(text)
    done = subprocess.run(["haproxy", "-c", "-f", str(file)], capture_output=True, text=True, timeout=30)
    assert done.returncode == code
    assert run(haptk, ["proxy", "-c", "-f", str(file)]) == code
    assert ("valid" in capsys.readouterr().out) or code == 2


def test_what_is_read_but_not_carried_out_is_said() -> None:
    text = """global
    stats socket /tmp/x
    tune.http.maxhdr 100
listen a
    mode http
    bind 127.0.0.1:1
    timeout connect 1s
    timeout server 1s
    option independent-streams
    server s 127.0.0.1:2 agent-check
"""
    told = "\n".join(load_text(text, "x.cfg").warnings)
    for word in ("tune.http.maxhdr", "option independent-streams", "agent-check"):
        assert word in told
    assert len(told.splitlines()) == 3

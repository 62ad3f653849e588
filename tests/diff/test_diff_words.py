# ruff: noqa: E501 (lines of configurations)
"""Words of rules that real files use, through the real haproxy and both paths: numbers, base 64, parts of the target, files."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

import pytest

from tests.diff.rig import PLAIN, Pair, Upstreams, upstreams
from tests.diff.test_diff_behaviour import differences, portrait

pytestmark = [pytest.mark.real("haproxy"), pytest.mark.timeout(300)]

CONVERTERS = (
    "mul(3)", "mul(-9223372036854775807)", "div(7)", "div(-2)", "div(0)", "mod(7)", "mod(-2)", "mod(0)", "neg", "and(12)", "or(12)",
    "xor(-1)", "cpl", "odd", "even", "bool", "not", "add(5)", "base64", "b64dec", "hex", "rtrim(ab)", "ltrim(ab)", "hex,lower",
    "base64,b64dec", "mul(1000),div(7),mod(100)", "ltrim(/),rtrim(/)",
)  # fmt: skip
RULES = {
    "converters": "\n".join(
        f" http-request add-header X-V {i}:[%[req.fhdr(x-a),{c}]]" for i, c in enumerate(CONVERTERS)
    ),
    "path": r" http-request replace-path (.*)/old/(.*) \1/new/\2 if !{ hdr(x-a) -m found }"
    "\n"
    r" http-request replace-path ^/c[^/]*/ /%[req.hdr(x-a)]/\0 if { hdr(x-a) -m found }",
    "pathq": r" http-request replace-pathq ([^?]*)/old/([^?]*)(\?(.*))? \1/new/\2?was=old&\4",
    "uri": r" http-request replace-uri ^([^:/?]*://[^/]*)?/case/(.*) \1/case/uri/\2",
    "files": """ acl listed path_sub -f @DIR@/words.txt
 acl listed2 hdr(x-a) -i -f @DIR@/words.txt -f @DIR@/more.txt last
 acl net src -f @DIR@/nets.txt
 acl reg path_reg -i -f @DIR@/regs.txt -- ^/zzz
 acl num hdr_val(x-a) -f @DIR@/numbers.txt
 http-request add-header X-M listed if listed
 http-request add-header X-M listed2 if listed2
 http-request add-header X-M net if net
 http-request add-header X-M reg if reg
 http-request add-header X-M num if num
 http-request add-header X-M anonymous if { path_end -f @DIR@/ends.txt }""",
    "levels": """ http-request set-log-level silent if { path_end /quiet }
 http-request set-log-level debug if { path_end /debug }
 http-request set-log-level emerg if { path_end /emerg }
 http-request deny if { path_end /deny }
 http-response set-log-level warning if { status 404 }
 http-response set-log-level silent if { status 500 }
 http-response set-log-level notice if { path_end /quiet } || { status 200 } { res.hdr(x-loud) -m found }""",
    "retry": " retries 2\n retry-on 500 empty-response\n http-request disable-l7-retry if { hdr(x-a) never } || METH_POST",
}
FILES = {
    "words.txt": "# no pattern\n/old/\n\n  /new \n \t#sharp\r\n/e\tnd",
    # a file of its own: HAProxy matches a second ACL on the same fetch and file as it matches the first
    "ends.txt": "/old/\n.php\n",
    "more.txt": "MORE\r\n-m\ngt\n  two words\n",
    "nets.txt": "10.0.0.0/8\n127.0.0.0/24\n::1\n",
    "regs.txt": "\\.PHP$\n^/case/[^/]*/o.d/\n",
    "numbers.txt": "5\n7:9\n",
}
VALUES = ["7", "-7", "0", "", "abc", "9223372036854775807", "-9223372036854775808", "12abc", "aaba", "//x/y//", "QUI=", "QUJDRA==", "QUJD", "QQ=", "=", "\xe9\x01\xff", "never", "more", "MORE", "-m", "gt", "two words", "/new", "/new ", "#sharp", "last", "LAST"]  # fmt: skip
TARGETS = ["/case/@CASE@", "/case/@CASE@/old/x", "/case/@CASE@/old/x?a=/old/b", "/case/@CASE@/old/old/?", "/case/@CASE@/x.php", "/case/@CASE@/e", "http://h/case/@CASE@/old/?q", "http://h/case/@CASE@/#"[:-1]]  # fmt: skip


@pytest.fixture(scope="module", params=["fast", "reference"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp("words")
    for name, text in FILES.items():
        (directory / name).write_text(text)

    def config(host: str, ports: list[int], servers: Upstreams, _dead: int) -> str:
        text = "global\n log @LOG@ local0\ndefaults\n mode http\n log global\n option httplog\n timeout client 3s\n timeout server 3s\n timeout connect 1s\n"
        for (name, rules), port in zip(RULES.items(), ports, strict=True):
            text += f"listen {name}\n bind {host}:{port}\n{rules}\n server s1 127.0.0.1:{servers.ports[0]}\n".replace(
                "@DIR@", str(directory)
            )
        return text

    with upstreams(1) as servers:
        found = Pair(request.param, directory, servers, list(RULES), config)
        yield found
        found.stop()


def compare(pair: Pair, name: str, method: str, target: str, value: str | None, response: bytes = PLAIN) -> list[str]:
    lines = [f"{method} {target} HTTP/1.1", "Host: h", "X-Case: @CASE@", *([] if value is None else [f"X-A: {value}"])]
    request = ("\r\n".join(lines) + "\r\n" + "Content-Length: 0\r\n" * (method == "POST") + "\r\n").encode("latin-1")
    theirs, ours = pair.run(name, request, response)
    left, right = (portrait(one) for one in (theirs, ours))
    left["attempts"], right["attempts"] = len(theirs.seen), len(ours.seen)
    return [f"{name} {request!r}: {what}" for what in differences(left, right)]


@pytest.mark.parametrize("name", ["converters", "path", "pathq", "uri", "files"])
def test_the_words_mean_the_same(pair: Pair, name: str) -> None:
    rng = random.Random(f"words {name}")
    values = VALUES if name in ("converters", "files") else [None, "x", ""]
    cases = [("/case/@CASE@", value) for value in values]
    cases += [(target, rng.choice([None, *values])) for target in TARGETS for _ in range(3)]
    wrong = [what for target, value in cases for what in compare(pair, name, "GET", target, value)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("response", [b"HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\nno", b"<close>"])
def test_a_rule_keeps_an_answer_from_being_retried(pair: Pair, response: bytes) -> None:
    for method, value, attempts in (("GET", None, 3), ("GET", "never", 1), ("POST", None, 1)):
        assert not compare(pair, "retry", method, "/case/@CASE@", value, response)
        assert len(pair.one(1, "retry", f"{method} / HTTP/1.1\r\nHost: h\r\nX-Case: @CASE@\r\nX-A: {value}\r\nContent-Length: 0\r\n\r\n".encode(), response).seen) == attempts  # fmt: skip


def test_a_rule_sets_the_level_of_the_line(pair: Pair) -> None:
    """The priority in front of each line, in the order of the lines; a last request says that no more will come."""
    asked = [
        ("/quiet", 200),
        ("/debug", 200),
        ("/emerg", 200),
        ("/deny", 200),
        ("/x", 404),
        ("/x", 500),
        ("/x", 200),
        ("/last", 200),
    ]
    asked[1:1] = [("/quiet", 404), ("/debug", 500)]
    found = []
    for index, (host, program) in enumerate(pair.programs):
        sent = b""
        for number, (path, status) in enumerate(asked):
            case = f"level-{index}-{number}"
            pair.servers.scripts[case] = (
                f"HTTP/1.1 {status} X\r\ncontent-length: 0\r\n{'x-loud: 1' if number == 8 else 'a: b'}\r\n\r\n".encode()
            )
            closing = "Connection: close\r\n" if number + 1 == len(asked) else ""
            sent += f"GET /case/{case}{path} HTTP/1.1\r\nHost: h\r\nX-Case: {case}\r\n{closing}\r\n".encode()
        with socket.create_connection((host, pair.ports["levels"]), 10) as channel:
            channel.sendall(sent)
            while channel.recv(65536):
                pass
        assert program.log.line(f"level-{index}-{len(asked) - 1}", 20)
        lines = [
            (key, line)
            for key, lines in program.log.lines.items()
            for line in lines
            if key.startswith(f"level-{index}-")
        ]
        found.append(sorted((int(key.rpartition("-")[2]), line[: line.index(">") + 1]) for key, line in lines))
    assert found[0] == found[1]
    assert len(found[0]) == 7

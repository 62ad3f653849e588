"""The statistics page over both data paths: who may look, the forms for programs, the administrator's form, big answers."""

from __future__ import annotations

import base64
import csv
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser

import pytest

from haptk.proxy.compile import load_text
from tests.ports import free_ports
from tests.proxy.conftest import RunningProxy, read_answer

CONFIG = """
defaults
    mode http
    timeout connect 1s
    timeout client 5s
    timeout server 5s
frontend fe
    bind 127.0.0.1:{listen}
    {fe}
    default_backend web
backend web
    {be}
    cookie SRV insert indirect
    server s1 127.0.0.1:{port} cookie a
    server s2 127.0.0.1:{port} cookie b backup
"""
Start = Callable[..., RunningProxy]


@pytest.fixture(params=["fast"])
def start(request, monkeypatch, scripted) -> Iterator[Start]:
    if request.param == "reference":
        monkeypatch.setenv("HAPTK_NO_FAST", "1")
    running: list[RunningProxy] = []

    def make(fe: str = "", be: str = "", config: str = CONFIG, **more: object) -> RunningProxy:
        text = config.format(
            fe=fe.replace("\n", "\n    "), be=be, port=scripted().port, listen=free_ports(1)[0], **more
        )
        proxy = RunningProxy(load_text(text))
        kind = type(proxy.engine.workers[0]).__module__
        assert kind == ("haptk._fast.worker" if request.param == "fast" else "haptk.proxy.reference")
        running.append(proxy)
        return proxy

    yield make
    for proxy in running:
        proxy.close()


def ask(proxy: RunningProxy, path: str, *lines: str, method: str = "GET", body: bytes = b"") -> tuple[int, str, bytes]:
    """Status, head and body."""
    length = f"Content-Length: {len(body)}\r\n" if body or method == "POST" else ""
    more = "".join(f"{line}\r\n" for line in lines)
    with proxy.connect() as sock:
        sock.sendall(f"{method} {path} HTTP/1.1\r\nHost: h\r\n{more}{length}\r\n".encode() + body)
        if method == "HEAD":
            data = b""
            while b"\r\n\r\n" not in data:
                data += sock.recv(65536)
            return int(data[9:12]), data.decode(), b""
        head, content, _ = read_answer(sock)
        return int(head[9:12]), head.decode("latin-1"), content


def basic(pair: str) -> str:
    return f"Authorization: Basic {base64.b64encode(pair.encode()).decode()}"


class Page(HTMLParser):
    """What a browser would find: tags, text, the rows' first cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"


def test_the_page_and_its_forms(start: Start) -> None:
    proxy = start("stats uri /stats\nstats refresh 7s\nstats show-node node7\nstats show-desc <b>bold")
    assert ask(proxy, "/")[0] == 200
    status, head, body = ask(proxy, "/stats")
    assert status == 200
    assert "refresh: 7" in head
    assert "text/html" in head
    found = Page(body.decode())
    assert "script" not in found.tags
    assert "b" not in found.tags
    assert "<b>bold" in found.text
    assert "node7" in found.text
    names = re.findall(r"<h2 id='(\w+)'", body.decode())
    assert names == ["fe", "web"]  # as in the file
    assert "s1" in found.text
    assert "backup" in found.text
    assert "refresh:" not in ask(proxy, "/stats;norefresh")[1]
    rows = {row["svname"]: row for row in table(ask(proxy, "/stats;csv")[2])}
    assert rows["s1"]["stot"] == "1"
    assert rows["s1"]["hrsp_2xx"] == "1"
    assert rows["FRONTEND"]["intercepted"] == "2"  # the one that asks is not over
    assert {cell["field"]["name"] for cell in json.loads(ask(proxy, "/stats;json")[2])[0]} >= {"scur", "stot"}
    assert b"F.2.0.0.pxname.1:KNS:str:fe" in ask(proxy, "/stats;typed")[2]
    assert [row["pxname"] for row in table(ask(proxy, "/stats?scope=we;csv")[2])] == ["web"] * 3
    status, head, body = ask(proxy, "/stats", method="HEAD")
    assert (status, body) == (200, b"")
    assert "content-length: " in head
    assert ask(proxy, "/stats", method="DELETE")[0] == 200  # a server's as well, as in HAProxy
    assert ask(proxy, "/other/stats")[0] == 200  # a server's


def table(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(data.decode().removeprefix("# ").splitlines()))


def test_who_may_look(start: Start) -> None:
    proxy = start("stats uri /s\nstats realm Our\\ Farm\nstats auth joe:secret\nstats auth eve:x:y\nstats hide-version")
    status, head, body = ask(proxy, "/s")
    assert status == 401
    assert 'www-authenticate: Basic realm="Our Farm"' in head
    assert b"s1" not in body
    for bad in ("joe:wrong", "joe", "eve:x", "joe:secret2", ""):
        assert ask(proxy, "/s", basic(bad))[0] == 401
    assert ask(proxy, "/s", "Authorization: Basic =#=")[0] == 401
    assert ask(proxy, "/s;csv", "Authorization: Bearer joe:secret")[0] == 401
    for good in ("joe:secret", "eve:x:y"):
        status, _, body = ask(proxy, "/s", basic(good))
        assert status == 200
        assert b"version" not in body


def test_rules_of_the_page_and_its_scope(start: Start) -> None:
    proxy = start(
        "stats uri /s\nstats scope web\nacl away src 10.0.0.0/8\nstats http-request deny if away"
        "\nstats http-request allow if { hdr(x-key) k }\nstats http-request auth realm R"
    )
    assert ask(proxy, "/s")[0] == 401
    status, _, body = ask(proxy, "/s;csv", "X-Key: k")
    assert status == 200
    assert {row["pxname"] for row in table(body)} == {"web"}


FOREIGN = (
    ("Origin: http://evil",), ("Origin: null",), ("Origin: https://h.evil",), ("Sec-Fetch-Site: cross-site",),
    ("Sec-Fetch-Site: same-site",), ("Referer: http://evil/h",), ("Referer: http://evil/", "Sec-Fetch-Site: none"),
    ("Origin: http://h", "Sec-Fetch-Site: cross-site"), ("Origin: http://h", "Referer: http://h.evil/"),
    ("Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: cross-site"), ("Referer: http://h@evil/",),
)  # fmt: skip
OWN = (
    (), ("Origin: http://h",), ("Origin: https://H",), ("Referer: http://h/s",), ("Referer: http://h:80/s;up",),
    ("Sec-Fetch-Site: same-origin", "Origin: http://h", "Referer: http://h/s"), ("Sec-Fetch-Site: none",),
)  # fmt: skip


def test_a_page_of_another_site_changes_nothing(start: Start) -> None:
    """What browsers say about where a form came from is believed; a script says nothing, and is not a browser."""
    proxy = start("stats uri /s\nstats admin if TRUE")
    form = b"s=s1&action=drain&b=web"

    def code(*headers: str) -> str:
        return ask(proxy, "/s", *headers, method="POST", body=form)[1].partition("st=")[2][:4]

    assert {headers: code(*headers) for headers in FOREIGN} == dict.fromkeys(FOREIGN, "DENY")
    assert {row["svname"]: row["status"] for row in table(ask(proxy, "/s;csv")[2])}["s1"] == "no check"
    assert {headers: code(*headers) for headers in OWN} == dict.fromkeys(OWN, "DONE")


def test_the_administrators_form(start: Start) -> None:
    proxy = start("stats uri /s\nstats admin if { hdr(x-admin) yes }")

    def state() -> dict[str, str]:
        return {row["svname"]: row["status"] for row in table(ask(proxy, "/s;csv")[2])}

    form = b"s=s1&s=s2&action=maint&b=web"
    status, head, _ = ask(proxy, "/s", method="POST", body=form)
    assert status == 303
    assert "location: /s;st=DENY" in head
    assert state()["s1"] == "no check"
    assert "st=DENY" in ask(proxy, "/s", "X-Admin: yes", "Origin: http://evil", method="POST", body=form)[1]
    assert b"<form method=post" not in ask(proxy, "/s")[2]
    assert b"<form method=post" in ask(proxy, "/s", "X-Admin: yes")[2]
    for body, code in (
        (form, "DONE"), (b"s=s1&s=zz&action=drain&b=web", "PART"), (b"action=ready&b=web", "NONE"),
        (b"s=s1&action=ready&b=zz", "ERRP"), (b"s=s1&action=blow&b=web", "UNKN"), (b"", "ERRP"),
    ):  # fmt: skip
        assert f"location: /s;st={code}" in ask(proxy, "/s", "X-Admin: yes", method="POST", body=body)[1], body
    assert state() == {"FRONTEND": "OPEN", "s1": "DRAIN", "s2": "MAINT", "BACKEND": "DOWN"}
    assert b"not known" in ask(proxy, "/s;st=PART")[2]
    assert b"role=status" not in ask(proxy, "/s;st=%3Cb%3E")[2]
    ask(proxy, "/s", "X-Admin: yes", method="POST", body=b"s=s1&s=s2&action=ready&b=%233")
    assert state()["s2"] == "no check"


def test_the_backends_own_page_and_bodies_in_pieces(start: Start) -> None:
    proxy = start(be="stats uri /be\n    stats admin if TRUE")
    assert ask(proxy, "/be;csv")[0] == 200
    body = b"s=s1&action=maint&b=web"
    for pieces in (
        [b"POST /be HTTP/1.1\r\nHost: h\r\nContent-Length: 23\r\n\r\n", *(bytes([c]) for c in body)],
        [b"POST /be HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n17\r\n" + body, b"\r\n0\r\n\r\n"],
    ):
        assert b"st=DONE" in proxy.talk(*pieces)[0]
    big = b"POST /be HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 40000
    assert proxy.talk(big)[0].startswith(b"HTTP/1.1 400")
    bad = b"POST /be HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    assert proxy.talk(bad)[0].startswith(b"HTTP/1.1 400")
    # several on one connection, the last one asks for the end
    ask_twice = b"GET /be;csv HTTP/1.1\r\nHost: h\r\n\r\n" * 3 + b"GET /be;csv HTTP/1.0\r\nHost: h\r\n\r\n"
    answer, closed = proxy.talk(ask_twice, quiet_s=2.0)
    assert answer.count(b"HTTP/1.1 200") == 4
    assert closed
    assert answer.count(b"connection: close") == 1


def test_clients_that_leave_or_do_not_read(start: Start) -> None:
    many = "\n".join(f"    server n{number} 127.0.0.1:9" for number in range(1000))
    proxy = start("stats uri /s", config=CONFIG + many)
    slow = proxy.connect()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.sendall(b"GET /s HTTP/1.1\r\nHost: h\r\n\r\n")
    for _ in range(20):
        gone = proxy.connect()
        gone.sendall(b"GET /s HTTP/1.1\r\nHost: h\r\n\r\n" * 3)
        gone.close()
    with proxy.connect() as other:  # traffic goes on
        other.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert read_answer(other)[1] == b"ok"
    head, body, rest = read_answer(slow)
    assert b"200" in head
    assert body.count(b"<tr>") + body.count(b"<tr class") > 1000
    assert rest == b""
    slow.close()
    deadline = time.monotonic() + 60
    while proxy.counters()["sessions"]:
        assert time.monotonic() < deadline, proxy.counters()
        time.sleep(0.05)
    fe = proxy.engine.tallies().frontends[0]
    assert fe.requests == sum(fe.answers)


def test_many_at_once_and_a_stop_in_between(start: Start) -> None:
    proxy = start("stats uri /s")
    wrong: list[bytes] = []

    def client() -> None:
        with proxy.connect() as sock:
            for _ in range(20):
                sock.sendall(b"GET /s;csv HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n")
                _, body, rest = read_answer(sock)
                _, second, _ = read_answer(sock, rest)
                if not body.startswith(b"# pxname") or second != b"ok":
                    wrong.append(body[:50])

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    with proxy.connect() as sock:
        sock.sendall(b"GET /s HTTP/1.1\r\nHost: h\r\n\r\n")
        proxy.engine.stop()
        assert b"200" in read_answer(sock)[0]
    assert proxy.engine.wait(10)

"""Learned tables: the store itself, TCP mode, appsession and reloads, each on the compiled path and on the reference."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from haptk.errors import HaptkError
from haptk.proxy import reference
from haptk.proxy.compile import load_text
from haptk.proxy.engine import Engine
from haptk.proxy.listeners import Listeners
from haptk.proxy.sticktables import rows, stores_for
from tests.proxy.conftest import read_answer

DEFAULTS = """
defaults
    mode http
    timeout connect 1s
    timeout client 5s
    timeout server 5s
    option redispatch
    retries 1
"""
PATHS = ["fast", "reference"]


def make(path: str, kind="string", length=32, size=100, expire_s=None, nopurge=False):
    from haptk._fast.table import Table

    return (Table if path == "fast" else reference.Table)("t", kind, length, size, expire_s, nopurge)


def keys(store) -> list[bytes]:
    return sorted(row[0] for row in rows(store))


@pytest.fixture(params=PATHS)
def path(request) -> str:
    return str(request.param)


# -- the store ---------------------------------------------------------------------------------------------------------


def test_a_key_finds_its_server_by_id_and_name(path):
    store = make(path)
    assert store.find(b"a") is None
    assert store.learn(b"a", 2, b"s2")
    assert store.learn(b"b", 1, b"s1")
    assert store.find(b"a") == (2, b"s2")
    assert store.learn(b"a", 1, b"s1")
    assert store.get(b"a")[:4] == (b"a", 0, 1, b"s1")
    assert (store.used, keys(store)) == (2, [b"a", b"b"])
    assert store.delete(b"a")
    assert not store.delete(b"a")
    assert store.find(b"a") is None
    store.clear()
    assert store.used == 0


HOUR = 3_600_000
COUNTED = ((1, 1, 0), (2, 1, 0), (3, 1, HOUR), (4, 1, 0), (6, 1, 0), (13, 1, 0), (22, 2, 0), (24, 2, HOUR))


@pytest.fixture
def counted(path):
    from haptk._fast.table import Table

    return (Table if path == "fast" else reference.Table)("t", "string", 20, 3, 60.0, False, COUNTED)


def value(store, key: bytes, kind: int, element: int = 0) -> int:
    holders, values = store.values(key)
    del holders
    return next(number for stored, at, number in values if (stored, at) == (kind, element))


def test_a_table_counts_what_it_stores(counted):
    held = counted.hold(b"a")
    assert held
    counted.count(held, (2, 3, 4, 13, 17))  # 17 is not stored
    counted.count(held, (2,), 5)
    counted.count(held, (4,), -7)
    counted.count(held, (13,), 5_000_000_000)
    counted.count(held, (24,), 3, element=1)
    assert counted.values(b"a")[0] == 1
    assert [value(counted, b"a", kind) for kind in (2, 3, 4, 13)] == [6, 1, 0, 5_000_000_001]
    assert (value(counted, b"a", 24), value(counted, b"a", 24, 1)) == (0, 3)
    assert (counted.seek(b"a", 2), counted.seek(b"b", 2), counted.seek(b"a", 17)) == (6, None, 0)
    assert counted.put(b"b", 22, 9, element=1)
    assert not counted.put(b"b", 17, 9)
    assert (value(counted, b"b", 22, 1), value(counted, b"b", 22), value(counted, b"b", 2)) == (9, 0, 0)
    counted.release(held)
    assert counted.values(b"a")[0] == 0


def test_what_a_session_tracks_is_neither_thrown_out_nor_cleared(counted):
    held = counted.hold(b"a")
    for number in range(10):
        assert counted.learn(b"%d" % number, 1)
    assert b"a" in keys(counted)
    assert not counted.delete(b"a")
    counted.clear()
    assert keys(counted) == [b"a"]
    others = [counted.hold(b"b"), counted.hold(b"c")]
    assert all(others)
    assert not counted.hold(b"d")
    assert not counted.learn(b"d", 1)
    for number in (held, *others):
        counted.release(number)
    assert counted.learn(b"d", 1)
    assert keys(counted) == [b"b", b"c", b"d"]


def test_a_tracked_entry_does_not_expire(path):
    from haptk._fast.table import Table

    store = (Table if path == "fast" else reference.Table)("t", "string", 20, 3, 0.05, False, COUNTED)
    held = store.hold(b"a")
    store.learn(b"b", 1)
    deadline = time.monotonic() + 10
    while store.used > 1:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert keys(store) == [b"a"]
    store.release(held)
    while store.used:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_both_tables_count_rates_alike():
    """One second as the period and a random walk through a few of them."""
    from haptk._fast.table import Table

    rng = random.Random(1)
    made = [kind("t", "string", 20, 9, 60.0, False, ((3, 1, 200),)) for kind in (Table, reference.Table)]
    held = [store.hold(b"a") for store in made]
    agreed = 0
    for _ in range(60):
        for store, number in zip(made, held, strict=True):
            store.count(number, (3,), 100)
        time.sleep(rng.choice([0.0, 0.01, 0.03, 0.15]))
        ours, theirs = (value(store, b"a", 3) for store in made)
        # they read the clock one after the other, and the periods begin at their own first event
        agreed += abs(ours - theirs) <= 100 + 0.15 * max(ours, theirs)
    assert agreed >= 50


def test_a_table_that_stores_something_else_keeps_what_it_can(path):
    text = "backend b\n stick-table type string len 9 size 100 expire 1m store {}\n server s 127.0.0.1:9\n"
    make_store = (
        __import__("haptk._fast.conf", fromlist=["Image"]).Image.make_store
        if path == "fast"
        else (reference.Image.make_store)
    )
    before = stores_for(load_text(text.format("gpc0,gpt0,http_req_rate(10s)")), make_store)
    before["b"].put(b"k", 2, 5)
    before["b"].put(b"k", 1, 6)
    before["b"].learn(b"k", 1, b"s")
    same = stores_for(load_text(text.format("gpt0,http_req_rate(10s),gpc0")), make_store, before)
    assert same["b"] is before["b"]
    other = stores_for(load_text(text.format("gpc0,gpc1,http_req_rate(20s)")), make_store, before)
    assert other["b"].get(b"k")[2:4] == (1, b"s")
    assert other["b"].values(b"k")[1] == [(2, 0, 5), (10, 0, 0), (17, 0, 0)]


def test_a_full_table_forgets_what_was_used_longest_ago(path):
    store = make(path, size=3)
    for key in (b"a", b"b", b"c"):
        store.learn(key, 1)
    store.find(b"a")
    store.learn(b"d", 1)
    assert keys(store) == [b"a", b"c", b"d"]


def test_with_nopurge_a_full_table_learns_nothing_new(path):
    store = make(path, size=2, nopurge=True)
    assert store.learn(b"a", 1)
    assert store.learn(b"b", 1)
    assert not store.learn(b"c", 1)
    assert store.learn(b"a", 2)
    assert store.get(b"a")[2] == 2
    assert keys(store) == [b"a", b"b"]


def test_entries_expire_after_their_last_use(path):
    store = make(path, expire_s=0.4)
    store.learn(b"a", 1)
    store.learn(b"b", 1)
    began = time.monotonic()
    while store.find(b"b") is not None and time.monotonic() < began + 1.0:
        time.sleep(0.02)  # b is used all the time
    assert store.find(b"a") is None
    assert store.find(b"b") is not None
    assert store.used == 1
    deadline = time.monotonic() + 60
    while store.used:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_expired_entries_make_room_even_with_nopurge(path):
    store = make(path, size=2, expire_s=0.05, nopurge=True)
    store.learn(b"a", 1)
    store.learn(b"b", 1)
    time.sleep(0.1)
    assert store.learn(b"c", 1)
    assert keys(store) == [b"c"]


def test_what_was_taught_ends_when_its_teacher_said(path):
    store = make(path, size=2, expire_s=60)
    store.learn(b"long", 1)
    store.teach(b"short", 30_000, 2, b"s2")
    assert 29_000 < store.get(b"short")[1] <= 30_000
    store.learn(b"new", 1)
    # the compiled table knows which one is nearest to its end; the reference only which one was used longest ago
    assert keys(store) == ([b"long", b"new"] if path == "fast" else [b"new", b"short"])


def test_reshaping_keeps_the_newest(path):
    store = make(path, size=10, expire_s=60)
    for number in range(10):
        store.learn(b"%d" % number, 1)
    store.find(b"0")
    store.reshape(3, 60)
    assert keys(store) == [b"0", b"8", b"9"]
    store.reshape(1000, 60)
    for number in range(100, 900):
        store.learn(b"%d" % number, 2)
    assert store.used == 803
    assert store.get(b"8")[2] == 1


def test_a_changed_time_counts_from_the_last_use(path):
    store = make(path, expire_s=100)
    store.learn(b"a", 1)
    store.reshape(100, 10)
    assert 9_000 < store.get(b"a")[1] <= 10_000
    store.reshape(100, 200)
    assert 199_000 < store.get(b"a")[1] <= 200_000


def test_zeros_at_the_end_of_a_binary_key_mean_nothing():
    store = make("fast", "binary", 6)
    store.learn(b"ab\0\0", 1)
    assert store.find(b"ab") == (1, b"")
    assert store.find(b"ab\0\0\0\0") == (1, b"")
    store.learn(b"\0\0", 2)
    assert store.find(b"") == (2, b"")


@pytest.mark.parametrize("seed", range(4))
def test_the_compiled_table_does_what_an_ordered_dict_does(seed):
    rng = random.Random(seed)
    size = rng.choice([1, 2, 7, 50, 1500])
    store, model = make("fast", size=size, length=6), OrderedDict()
    for _ in range(6000):
        key = b"%d" % rng.randrange(size * 2)
        action = rng.random()
        if action < 0.5:
            server = rng.randrange(1, 5)
            store.learn(key, server, b"s%d" % server)
            model[key] = (server, b"s%d" % server)
            model.move_to_end(key)
            if len(model) > size:
                model.popitem(last=False)
        elif action < 0.9:
            assert store.find(key) == model.get(key)
            if key in model:
                model.move_to_end(key)
        elif action < 0.97:
            assert store.delete(key) is (model.pop(key, None) is not None)
        else:
            size = rng.choice([size, max(1, size - 1), size + 3])
            store.reshape(size)
            while len(model) > size:
                model.popitem(last=False)
        assert store.used == len(model)
    assert {row[0]: row[2:4] for row in rows(store)} == dict(model)


def test_many_threads_use_one_table():
    store = make("fast", size=500, expire_s=1)
    wrong = []

    def work(number: int) -> None:
        rng = random.Random(number)
        for _ in range(4000):
            key = b"%d" % rng.randrange(900)
            store.learn(key, int(key) + 1, b"s" + key)
            found = store.find(key)
            if found is not None and found != (int(key) + 1, b"s" + key):
                wrong.append((key, found))
            if rng.random() < 0.01:
                store.entries()
                store.reshape(rng.choice([400, 500]), 1)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert store.used <= 500


# -- through the proxy -------------------------------------------------------------------------------------------------


class Running:
    """An engine of a configuration text; @1, @2 are the ports of the servers."""

    def __init__(self, text: str, listeners: Listeners | None = None, old: Engine | None = None) -> None:
        self.listeners = listeners or Listeners()
        self.engine = Engine(load_text(DEFAULTS + text), self.listeners, old)
        self.engine.start()
        self.port = int(self.listeners.addresses()[0].rsplit(":", 1)[1])

    def ask(self, target: str = "/", *headers: str) -> str:
        """The name of the server that answered."""
        lines = [f"GET {target} HTTP/1.1", "Host: h", *headers]
        with socket.create_connection(("127.0.0.1", self.port), 10) as sock:
            sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
            return read_answer(sock)[1].decode()


@pytest.fixture
def run(path, scripted, monkeypatch) -> Iterator[Callable[..., Running]]:
    monkeypatch.setenv("HAPTK_NO_FAST", "1" if path == "reference" else "")
    made: list[Running] = []
    ports: list[int] = []

    def answer(name: bytes) -> Callable[..., None]:
        def script(server, sock, _number) -> None:
            rest = b""
            while True:
                head, rest = server.read_head(sock, rest)
                if not head:
                    return
                wanted = [line[9:] for line in head.split(b"\r\n") if line.startswith(b"x-learn: ")]
                cookie = b"".join(b"Set-Cookie: " + value + b"\r\n" for value in wanted)
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + cookie + b"\r\n" + name)

        return script

    servers = [scripted(answer(b"s1")), scripted(answer(b"s2"))]

    def start(text: str, **more) -> Running:
        for number, server in enumerate(servers, 1):
            text = text.replace(f"@{number}", f"127.0.0.1:{server.port}")
        if not ports or not more:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                ports.append(int(free.getsockname()[1]))
        made.append(Running(text.replace("#", str(ports[-1])), **more))
        return made[-1]

    yield start
    for one in made:
        one.engine.stop(now=True)
        assert one.engine.wait(10)
        one.listeners.close()


FARM = """
listen web
    bind 127.0.0.1:#
    {lines}
    server s1 @1
    server s2 @2
"""


def test_workers_and_everybody_else_contend_for_one_entry(run):
    """Four workers use one key, while others count, take what peers say, look and clear: nothing is lost or torn."""
    lines = "stick-table type string len 20 size 50 expire 1m store gpc0\n    stick on hdr(X)"
    one = run("global\n    nbthread 4\n" + FARM.format(lines=lines))
    store = one.engine.stores["web"]
    held = store.hold(b"k")
    ending, wrong, served = threading.Event(), [], [0]

    def guarded(work: Callable[[], object]) -> Callable[[], None]:
        def loop() -> None:
            try:
                while not ending.is_set():
                    work()
            except Exception as error:  # whatever it is, the test has to hear of it
                wrong.append(repr(error))

        return loop

    def client() -> None:
        with socket.create_connection(("127.0.0.1", one.port), 10) as sock:
            for number in range(50):
                key = ("k", "other", f"n{number}")[number % 3]
                sock.sendall(f"GET / HTTP/1.1\r\nHost: h\r\nX: {key}\r\n\r\n".encode())
                if (found := read_answer(sock)[1]) not in (b"s1", b"s2"):
                    wrong.append(found)
                served[0] += 1

    def operator() -> None:
        for key, *_ in store.entries()[1]:
            if key not in (b"k", b"other") and not key.startswith(b"n"):
                wrong.append(key)
        row = store.get(b"k")
        if row is None or (row[2], row[3]) not in ((0, b""), (1, b"s1"), (2, b"s2")):
            wrong.append(row)
        store.clear()
        store.delete(b"other")

    def peer() -> None:
        store.merge(b"k", 60_000, 1, b"s1", 0, 1 << 50)  # an old version: ours stays
        store.merge(b"other", 60_000, 2, b"s2", 0)

    works = [client] * 6 + [operator, peer]
    threads = [threading.Thread(target=guarded(work)) for work in works]
    counters = [threading.Thread(target=lambda: [store.count(held, (2,)) for _ in range(5000)]) for _ in range(3)]
    for thread in (*threads, *counters):
        thread.start()
    for thread in counters:
        thread.join(60)
    deadline = time.monotonic() + 60
    while served[0] < 1000 and not wrong and time.monotonic() < deadline:
        time.sleep(0.05)
    ending.set()
    for thread in threads:
        thread.join(60)
    assert not wrong, wrong[:5]
    assert served[0] >= 300
    assert store.seek(b"k", 2) == 15000
    store.release(held)
    store.clear()
    assert store.used == 0
    assert all(store.learn(b"x%d" % number, 1) for number in range(50))
    assert store.used == 50


RECORDED = Path(__file__).parents[1] / "data" / "haproxy-stick-exchanges.tsv"
CONFIGURED = {
    "st_cookie": "stick-table type string len 64 size 10k expire 30m\n    stick store-response res.cook(JSESSIONID)\n"
    "    stick match req.cook(JSESSIONID)",
    "st_cookie_len8": "stick-table type string len 8 size 10k expire 30m\n    stick store-response res.cook(JSESSIONID)\n"
    "    stick match req.cook(JSESSIONID)",
    "st_on_cookie": "stick-table type string len 64 size 10k expire 30m\n    stick on req.cook(JSESSIONID)",
}


def cases() -> dict[tuple[str, str], list[tuple[str, str, str]]]:
    """(mode, case) -> steps of (request cookies, response headers, server that HAProxy chose)."""
    found: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
    for line in RECORDED.read_text().splitlines()[1:]:
        mode, case, cookies, response, got = line.split("\t")[:5]
        found.setdefault((mode, case.partition("#")[0]), []).append((cookies, response, got.partition(":")[0]))
    return found


@pytest.mark.parametrize("mode", CONFIGURED)
def test_recorded_exchanges_of_haproxy(run, mode):
    """What stuck in the recording sticks, what went round goes round."""
    proxy = run(FARM.format(lines=CONFIGURED[mode]))
    counted = 0
    for (_, case), steps in ((key, steps) for key, steps in cases().items() if key[0] == mode):
        went = []
        for cookies, response, _ in steps:
            headers = [f"Cookie: {value}" for value in cookies.split(" // ") if value != "—"]
            values = [x for x in response.split(" // ") if x.lower().startswith("set-cookie: ")]
            went.append(proxy.ask("/", *headers, *(f"x-learn: {value[12:]}" for value in values)))
        for text in {cookies for cookies, _, _ in steps if cookies != "—"}:
            places = [at for at, step in enumerate(steps) if step[0] == text]
            if len(places) < 3:
                continue
            counted += 1
            stuck = len({steps[at][2] for at in places}) == 1
            assert (len({went[at] for at in places}) == 1) is stuck, (case, text, went)
            if stuck and steps[0][2] == steps[places[0]][2] and steps[0][1] != "—":
                assert went[0] == went[places[0]], (case, text, went)
    assert counted >= 1


@pytest.mark.parametrize(
    ("line", "learned", "target", "cookie", "sticks"),
    [
        ("appsession JS len 8 timeout 1h", "JS=abc; path=/", "/", "a=1; JS=abc", True),
        ("appsession JS len 8 timeout 1h", "JS=abcdefghijk", "/", "JS=abcdefghXX", True),
        ("appsession JS len 8 timeout 1h", "JS=abc", "/x;JS=abc?y", "", True),
        ("appsession JS len 8 timeout 1h", "JS=abc", "/x?JS=abc", "", False),
        ("appsession JS len 8 timeout 1h mode query-string", "JS=abc", "/x?a=1&JS=abc", "", True),
        ("appsession JS len 8 timeout 1h mode query-string", "JS=abc", "/x;JS=abc", "", False),
        ("appsession JS len 20 timeout 1h prefix", "JSXY=abc", "/", "JSXY=abc", True),
        ("appsession JS len 20 timeout 1h prefix", "JSXY=abc", "/", "JSXZ=abc", False),
        ("appsession JS len 8 timeout 1h", "a=b; JS=abc", "/", "JS=abc", False),
        ("appsession JS len 8 timeout 1h", "", "/", "JS=abc", False),
        ("appsession JS len 8 timeout 1h request-learn", "", "/", "JS=abc", True),
        ("appsession JS len 8 timeout 1h", "JS=abc", "/", 'q="x; JS=no"; JS=abc', True),
    ],
)  # fmt: skip
def test_appsession(run, line, learned, target, cookie, sticks):
    proxy = run(FARM.format(lines=line))
    headers = [f"Cookie: {cookie}"] if cookie else []
    first = proxy.ask("/", f"x-learn: {learned}") if learned else proxy.ask(target, *headers)
    found = {proxy.ask(target, *headers) for _ in range(4)}
    assert (found == {first}) is sticks, (first, found)


def test_appsession_lets_go_of_a_server_that_is_down(run):
    proxy = run(FARM.format(lines="appsession JS len 8 timeout 1h request-learn"))
    first = proxy.ask("/", "Cookie: JS=a")
    proxy.engine.image.set_state(int(first[1]) - 1, "DOWN")
    other = proxy.ask("/", "Cookie: JS=a")
    assert other != first
    proxy.engine.image.set_state(int(first[1]) - 1, "UP")
    # what the request found in its place was learned
    assert {proxy.ask("/", "Cookie: JS=a") for _ in range(3)} == {other}


def test_a_cookie_comes_before_the_table(run):
    lines = "cookie C\n    stick-table type string len 9 size 9\n    stick on hdr(X)"
    text = FARM.format(lines=lines).replace("s1 @1", "s1 @1 cookie a").replace("s2 @2", "s2 @2 cookie b")
    proxy = run(text)
    assert [proxy.ask("/", "X: k", "Cookie: C=b") for _ in range(2)] == ["s2"] * 2
    assert proxy.ask("/", "X: k") == "s2"
    assert proxy.ask("/", "X: k", "Cookie: C=a") == "s1"
    assert proxy.ask("/", "X: k") == "s1"  # and what it chose was learned


def test_persist_keeps_to_a_server_that_is_down(run):
    lines = "stick-table type string len 9 size 9\n    stick on hdr(X)\n    {}"
    for words, same in (("option persist", True), ("no option persist", False)):
        proxy = run(FARM.format(lines=lines.format(words)))
        first = proxy.ask("/", "X: k")
        proxy.engine.image.set_state(int(first[1]) - 1, "DOWN")
        assert (proxy.ask("/", "X: k") == first) is same


def test_tcp_mode_sticks_to_the_source(run):
    lines = "mode tcp\n    stick-table type ip size 9 expire 1m\n    stick on src"
    proxy = run(FARM.format(lines=lines))
    first = proxy.ask()
    assert {proxy.ask() for _ in range(5)} == {first}
    (row,) = rows(proxy.engine.stores["web"])
    assert (row[0], row[3]) == (b"\x7f\0\0\1", first.encode())


def test_tcp_mode_does_not_learn_a_server_that_is_dead(run, closed_port):
    lines = "mode tcp\n    retries 0\n    no option redispatch\n    stick-table type ip size 9\n    stick on src"
    proxy = run(FARM.format(lines=lines).replace("@1", f"127.0.0.1:{closed_port}"))
    outcomes = set()
    for _ in range(2):
        with socket.create_connection(("127.0.0.1", proxy.port), 10) as sock:
            sock.settimeout(10)
            sock.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            try:
                outcomes.add(sock.recv(100)[:8])
            except ConnectionResetError:
                outcomes.add(b"")
    assert outcomes == {b"", b"HTTP/1.1"}  # one turn met the dead server, the next one was learned
    assert [row[3] for row in rows(proxy.engine.stores["web"])] == [b"s2"]


def test_an_answer_is_waited_for_before_anything_is_learned(run, closed_port):
    lines = "retries 0\n    no option redispatch\n    stick-table type string len 9 size 9\n    stick on hdr(X)"
    proxy = run(
        FARM.format(lines=lines).replace("@1", f"127.0.0.1:{closed_port}").replace("@2", f"127.0.0.1:{closed_port}")
    )
    with socket.create_connection(("127.0.0.1", proxy.port), 10) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n\r\n")
        assert b" 503 " in read_answer(sock)[0]
    assert proxy.engine.stores["web"].used == 0


# -- reload ------------------------------------------------------------------------------------------------------------

TABLE = "stick-table type string len 9 size {size} expire 1h\n    stick on hdr(X)"


def test_a_reload_keeps_the_table_and_follows_names(run):
    first = run(FARM.format(lines=TABLE.format(size=100)))
    went = {key: first.ask("/", f"X: {key}") for key in "abcdef"}
    assert set(went.values()) == {"s1", "s2"}
    swapped = FARM.format(lines=TABLE.format(size=100)).replace(
        "    server s1 @1\n    server s2 @2", "    server s2 @2\n    server s1 @1"
    )
    second = run(swapped, listeners=first.listeners, old=first.engine)
    first.engine.stop()
    assert {key: second.ask("/", f"X: {key}") for key in "abcdef"} == went
    assert second.engine.stores["web"] is first.engine.stores["web"]


def test_a_reload_with_another_size_keeps_the_newest(run):
    first = run(FARM.format(lines=TABLE.format(size=100)))
    for key in "abcdef":
        first.ask("/", f"X: {key}")
    second = run(FARM.format(lines=TABLE.format(size=2)), listeners=first.listeners, old=first.engine)
    first.engine.stop()
    assert keys(second.engine.stores["web"]) == [b"e", b"f"]


def test_a_reload_with_another_type_begins_anew(run):
    first = run(FARM.format(lines=TABLE.format(size=100)))
    first.ask("/", "X: a")
    text = FARM.format(lines=TABLE.format(size=100).replace("len 9", "len 8"))
    second = run(text, listeners=first.listeners, old=first.engine)
    first.engine.stop()
    assert second.engine.stores["web"].used == 0


def test_a_reload_between_the_paths_keeps_the_table(run, monkeypatch):
    first = run(FARM.format(lines=TABLE.format(size=100)))
    went = {key: first.ask("/", f"X: {key}") for key in "abcdef"}
    other = "1" if type(first.engine.image).__module__ == "haptk._fast.conf" else ""
    monkeypatch.setenv("HAPTK_NO_FAST", other)
    second = run(FARM.format(lines=TABLE.format(size=100)), listeners=first.listeners, old=first.engine)
    first.engine.stop()
    assert type(second.engine.image) is not type(first.engine.image)
    assert {key: second.ask("/", f"X: {key}") for key in "abcdef"} == went


def test_entries_learned_by_the_leaving_configuration_are_not_lost(run):
    first = run(FARM.format(lines=TABLE.format(size=100)))
    with socket.create_connection(("127.0.0.1", first.port), 10) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n\r\n")
        read_answer(sock)
        second = run(FARM.format(lines=TABLE.format(size=50)), listeners=first.listeners, old=first.engine)
        sock.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nX: late\r\n\r\n")
        _, server, _ = read_answer(sock)
        first.engine.stop()
    assert {second.ask("/", "X: late") for _ in range(3)} == {server.decode()}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("store gpc0,http_req_rate(10s) store gpt(3),gpc_rate(2,1m)", ()),
        ("store server_id,server_key,gpc0,gpc0", ()),
        ("store foo", "'foo' is unknown"),
        ("store gpc0_rate", "gpc0_rate takes a period in parentheses"),
        ("store gpc0(3)", "gpc0 takes nothing in parentheses"),
        ("store gpc", "gpc takes a number of elements in parentheses"),
        ("store gpc_rate(2)", "gpc_rate takes a number of elements and a period in parentheses"),
        ("store gpc(101)", "store gpc"),
        ("store gpc0_rate(0)", "over no time counts nothing"),
        ("store gpc(2),gpc1", "gpc stands for gpc0 and gpc1"),
        ("store gpc0 srvkey addr", "srvkey"),
    ],
)
def test_words_of_store(words: str, said: object):
    text = f"listen a\n mode http\n bind :1\n stick-table type ip size 1k {words}\n server s 127.0.0.1:9\n"
    if said:
        with pytest.raises(HaptkError) as refused:
            load_text(DEFAULTS + text)
        assert str(said) in str(refused.value)
        return
    tables = load_text(DEFAULTS + text)
    stored = [kind for kind, _, _ in tables.stick_tables[0].stored]
    assert stored == ([2, 10, 22, 24] if "rate" in words else [2])
    assert any("no rule counts yet" in str(warning) for warning in tables.warnings)

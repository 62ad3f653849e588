"""Names of servers that change, vanish and come back while the proxy runs."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from haptk.proxy import engine as engine_module
from haptk.proxy import reference
from haptk.proxy.compile import compile_config
from haptk.proxy.names import NameWatch, look_up
from haptk.proxy.tables import ProxyTables
from tests.ports import free_port
from tests.proxy.conftest import RunningProxy

GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
FILE = """defaults
 mode http
 timeout connect 1s
 timeout client 5s
 timeout server 5s
 retries 0
 {global_lines}
listen web
 bind 127.0.0.1:{port}
{servers}
"""


def tables_of(servers: str, resolve: Callable[[str], str | None]) -> ProxyTables:
    from haptk.formats.haproxy_cfg import Source, parse

    text = FILE.format(port=free_port(), servers=servers, global_lines="")
    return compile_config(parse([Source("test.cfg", text)], {}), resolve)


class Names:
    """A resolver whose answers the test sets: a list, [] for no such name, None for no answer."""

    def __init__(self, **answers: list[str] | None) -> None:
        self.answers = answers
        self.asked = 0

    def __call__(self, host: str) -> list[str] | None:
        self.asked += 1
        return self.answers[host.split(".")[0]]

    def first(self, host: str) -> str | None:
        found = self(host)
        return found[0] if found else None


def watch_of(tables: ProxyTables, names: Names) -> tuple[NameWatch, list[tuple[int, str]]]:
    moves: list[tuple[int, str]] = []
    return NameWatch(tables, lambda gid, host, *_: moves.append((gid, host)), lookup=names, hold_s=30), moves


def settle_all(watch: NameWatch, names: Names, now: float) -> None:
    for one in watch.named:
        watch.settle(one, watch.ask(one), now)


def test_an_address_is_kept_while_the_answer_has_it() -> None:
    names = Names(app=["10.0.0.1"])
    watch, moves = watch_of(tables_of(" server a app.test:80\n server b 10.9.9.9:80\n", names.first), names)
    assert [one.label for one in watch.named] == ["web/a"]
    names.answers["app"] = ["10.0.0.7", "10.0.0.1"]
    settle_all(watch, names, 1)
    assert moves == []
    names.answers["app"] = ["10.0.0.7"]
    settle_all(watch, names, 2)
    assert moves == [(0, "10.0.0.7")]


def test_servers_of_one_name_spread_over_its_addresses() -> None:
    names = Names(app=["10.0.0.1"])
    watch, moves = watch_of(tables_of(" server-template a 1-3 app.test:80\n", names.first), names)
    names.answers["app"] = ["10.0.0.5", "10.0.0.6", "10.0.0.7"]
    settle_all(watch, names, 1)
    assert sorted(host for _, host in moves) == names.answers["app"]


def test_a_name_that_is_gone_for_long_takes_its_server_out_until_it_returns() -> None:
    names = Names(app=["10.0.0.1"])
    watch, moves = watch_of(tables_of(" server a app.test:80\n", names.first), names)
    names.answers["app"] = []
    for now in (10, 20, 39.9):
        settle_all(watch, names, now)
    assert moves == []
    settle_all(watch, names, 40)
    assert moves == [(0, "")]
    names.answers["app"] = ["10.0.0.1"]
    settle_all(watch, names, 50)
    assert moves == [(0, ""), (0, "10.0.0.1")]


def test_a_resolver_that_is_away_changes_nothing() -> None:
    names = Names(app=["10.0.0.1"])
    watch, moves = watch_of(tables_of(" server a app.test:80\n", names.first), names)
    names.answers["app"] = None
    for now in range(0, 1000, 10):
        settle_all(watch, names, now)
    names.answers["app"] = []
    settle_all(watch, names, 1001)
    names.answers["app"] = ["10.0.0.1"]  # what was missing for a moment begins anew
    settle_all(watch, names, 1002)
    names.answers["app"] = []
    settle_all(watch, names, 1032)
    assert moves == []


def test_after_chroot_no_such_name_means_nothing() -> None:
    from dataclasses import replace

    names = Names(app=["10.0.0.1"])
    tables = tables_of(" server a app.test:80\n", names.first)
    watch, moves = watch_of(replace(tables, process=replace(tables.process, chroot="/var/empty")), names)
    names.answers["app"] = []
    for now in range(0, 100, 10):
        settle_all(watch, names, now)
    assert moves == []


def test_the_system_resolver() -> None:
    assert "127.0.0.1" in (look_up("localhost") or [])
    assert not look_up("does-not-exist.invalid")


@pytest.mark.parametrize("path", ["fast", "reference"])
def test_a_server_moves_and_comes_back_under_requests(scripted, monkeypatch, path) -> None:
    """127.0.0.2 and 127.0.0.3 are two machines; the name is unknown at start, appears, moves, vanishes, returns."""
    port = scripted(_answer("127.0.0.2"), host="127.0.0.2").port
    scripted(_answer("127.0.0.3"), host="127.0.0.3", port=port)
    names = Names(app=[])
    tables = tables_of(f" server a app.test:{port} init-addr last,libc,none\n", names.first)
    assert any("does not resolve yet" in line for line in tables.warnings)
    monkeypatch.setattr(
        engine_module,
        "NameWatch",
        lambda tables, move: NameWatch(tables, move, lookup=names, period_s=0.05, hold_s=0.2, eager_s=0.05),
    )
    if path == "reference":
        monkeypatch.setattr(engine_module, "data_plane", lambda _tables: (reference.Image, reference.DataWorker))
    proxy = RunningProxy(tables)
    try:
        assert _body(proxy) == b"503"
        assert proxy.engine.image.server(0)["state"] == "MAINT"
        names.answers["app"] = ["127.0.0.2"]
        _until(proxy, b"127.0.0.2")
        names.answers["app"] = ["127.0.0.3"]
        _until(proxy, b"127.0.0.3")
        names.answers["app"] = []
        _until(proxy, b"503")
        names.answers["app"] = ["127.0.0.2"]
        _until(proxy, b"127.0.0.2")
    finally:
        proxy.close()


def test_connections_kept_for_reuse_do_not_lead_to_the_old_address(scripted, proxied) -> None:
    """A server that moves is not reached through a connection that waits at its old place."""
    old, new = scripted(_answer("old")), scripted(_answer("new"))
    proxy = proxied(old, reuse="always")
    with proxy.connect() as sock:
        keep = GET.replace(b"Connection: close\r\n", b"")
        sock.sendall(keep)
        assert sock.recv(1000).endswith(b"old")
        proxy.engine.health.move(0, "127.0.0.1", new.port)
        sock.sendall(keep)
        assert sock.recv(1000).endswith(b"new")
    assert (old.connections, new.connections) == (1, 1)


def _answer(name: str) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(name), name.encode())


def _body(proxy: RunningProxy) -> bytes:
    answer, _ = proxy.talk(GET, quiet_s=5)
    return b"503" if answer.startswith(b"HTTP/1.1 503") else answer.rpartition(b"\r\n\r\n")[2]


def _until(proxy: RunningProxy, wanted: bytes) -> None:
    deadline = time.monotonic() + 60
    while (got := _body(proxy)) != wanted:
        assert time.monotonic() < deadline, got
        time.sleep(0.02)

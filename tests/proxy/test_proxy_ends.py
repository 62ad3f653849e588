"""How the proxy ends a connection to a server on which nothing is under way."""

from __future__ import annotations

import socket
import threading

from tests.proxy.conftest import ScriptedServer


def test_a_complete_exchange_leaves_no_port_behind(scripted, proxied):
    """Who closes first keeps the port for a minute, so the proxy ends with a reset, as HAProxy does."""
    ended = threading.Event()
    how: list[str] = []

    def answer_once(_server: ScriptedServer, sock: socket.socket, _number: int) -> None:
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        try:
            how.append("closed" if sock.recv(1) == b"" else "more")
        except ConnectionResetError:
            how.append("reset")
        ended.set()

    proxy = proxied(scripted(answer_once), connection="http-server-close")
    with proxy.connect() as client:
        client.settimeout(10)
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(65536).endswith(b"ok")
        assert ended.wait(10)
    assert how == ["reset"]

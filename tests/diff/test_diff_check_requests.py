"""The requests of `option httpchk` and `http-check send`, byte for byte beside the real haproxy."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.diff.rig import start
from tests.ports import free_ports

FORMS = [
    "option httpchk",
    "option httpchk /check",
    "option httpchk HEAD /check",
    "option httpchk GET /check HTTP/1.1",
    "option httpchk GET /check HTTP/1.1\\r\\nHost:\\ www",
    "option httpchk OPTIONS * HTTP/1.1",
    "option httpchk\n http-check send meth GET uri /a",
    "option httpchk\n http-check send meth GET uri /a ver HTTP/1.1",
    "option httpchk\n http-check send meth GET uri /a ver HTTP/1.1 hdr Host www",
    "option httpchk\n http-check send meth GET uri /a ver HTTP/1.1 hdr Host www hdr X-One 1 hdr X-Two two",
    "option httpchk\n http-check send meth POST uri /a body text",
    "option httpchk\n http-check send meth POST uri /a ver HTTP/1.1 hdr Content-Type text/plain body text",
    "option httpchk\n http-check send hdr Content-Length 9 hdr Connection keep-alive hdr Transfer-Encoding chunked",
    "option httpchk\n http-check send meth POST uri /a hdr content-length 3 hdr transfer-encoding chunked body text",
    "option httpchk\n http-check send meth POST uri /a ver HTTP/1.1 hdr Content-Length 4 body text",
    "option httpchk\n http-check send ver HTTP/1.0 hdr Host www",
    "option httpchk GET /first\n http-check send hdr X-More yes",
    "option httpchk\n http-check connect\n http-check send meth GET uri /a\n http-check expect status 200",
    "option httpchk\n http-check send meth PUT uri /a?b=c#d body {x}",
]


class Recorder:
    """Keeps the first request that arrives, and answers it."""

    def __init__(self) -> None:
        self.heard = b""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                channel, _ = self.listener.accept()
                with channel:
                    channel.settimeout(20)
                    data = channel.recv(65536)
                    while b"\r\n\r\n" not in data and (more := channel.recv(65536)):
                        data += more
                    channel.settimeout(0.3)  # a body may follow
                    with contextlib.suppress(TimeoutError):
                        while more := channel.recv(65536):
                            data += more
                    self.heard = self.heard or data
                    channel.sendall(b"HTTP/1.0 200 OK\r\n\r\n")


@pytest.mark.real("haproxy")
@pytest.mark.timeout(120)
def test_checks_ask_as_haproxys_ask(tmp_path: Path) -> None:
    heard: dict[str, list[bytes]] = {}
    for kind in ("haproxy", "fast"):
        (port,) = free_ports(1)
        recorders = [Recorder() for _ in FORMS]
        text = "defaults\n mode http\n timeout connect 9s\n timeout client 9s\n timeout server 9s\n timeout check 9s\n"
        text += f"frontend f\n bind 127.0.0.1:{port}\n"
        for number, (form, recorder) in enumerate(zip(FORMS, recorders, strict=True)):
            text += f"backend b{number}\n {form}\n server s 127.0.0.1:{recorder.port} check inter 1s\n"
        program = start(kind, text, tmp_path, [("127.0.0.1", port)])
        try:
            deadline = time.monotonic() + 60
            while not all(recorder.heard for recorder in recorders):
                assert time.monotonic() < deadline, (kind, [r.heard for r in recorders])
                time.sleep(0.05)
        finally:
            program.stop()
            for recorder in recorders:
                recorder.listener.close()
        heard[kind] = [recorder.heard for recorder in recorders]
    differ = [each for each in zip(FORMS, heard["haproxy"], heard["fast"], strict=True) if each[1] != each[2]]
    assert not differ, differ

"""The compiled path between programs that other people wrote: curl, wrk and nginx."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time

import pytest

from tests.ports import free_port

HAPTK = [sys.executable, "-m", "haptk", "proxy"]


def _wait(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.fixture
def farm(tmp_path):
    """nginx with two ports behind `haptk proxy --listen`; yields the proxy's port."""
    ports = free_port(), free_port()
    (tmp_path / "big").write_bytes(bytes(range(256)) * 20000)
    servers = "".join(
        f'server {{ listen 127.0.0.1:{port}; client_max_body_size 0; location / {{ add_header Set-Cookie "SID=abc";'
        f' return 200 "{port} $http_cookie"; }} location /big {{ root {tmp_path}; }}'
        f" location /gz {{ gzip on; gzip_min_length 1; gzip_types *; alias {tmp_path}/big; }} }}"
        for port in ports
    )
    config = tmp_path / "nginx.conf"
    config.write_text(
        # pytest's folders are private: the workers have to be who we are.
        f"{'user root;' if os.geteuid() == 0 else ''} daemon off; worker_processes 1; pid {tmp_path}/pid; error_log {tmp_path}/error.log;"
        f"events {{ worker_connections 1000; }} http {{ access_log off; {servers} }}"
    )
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin") or "nginx"
    port = free_port()
    running = [
        subprocess.Popen([nginx, "-c", str(config)], stderr=subprocess.DEVNULL),
        subprocess.Popen(
            [*HAPTK, "-q", "--listen", f"127.0.0.1:{port}", "--cookie", "SID:prefix"]
            + [f"s{number}=127.0.0.1:{one}" for number, one in enumerate(ports, 1)],
            stderr=subprocess.DEVNULL,
        ),
    ]
    for one in (*ports, port):
        _wait(one)
    yield port
    for child in reversed(running):
        child.terminate()
        child.wait(10)


def _curl(*args: str) -> str:
    done = subprocess.run(["curl", "-s", "--max-time", "20", *args], capture_output=True, check=True)
    return done.stdout.decode("latin-1")


@pytest.mark.real("nginx", "curl")
def test_curl_keeps_its_session(farm, tmp_path):
    jar = str(tmp_path / "jar")
    first = _curl("-c", jar, f"http://127.0.0.1:{farm}/")
    for _ in range(5):
        again = _curl("-b", jar, f"http://127.0.0.1:{farm}/")
        assert again == first.split(" ")[0] + " SID=abc"


@pytest.mark.real("nginx", "curl")
def test_curl_large_bodies_and_codings(farm, tmp_path):
    expected = bytes(range(256)) * 20000
    base = f"http://127.0.0.1:{farm}"
    for args in ([f"{base}/big"], ["--http1.0", f"{base}/big"], ["--compressed", f"{base}/gz"]):
        assert _curl(*args).encode("latin-1") == expected
    upload = tmp_path / "upload"
    upload.write_bytes(expected)
    for extra in ([], ["-H", "Transfer-Encoding: chunked"], ["-H", "Expect: 100-continue"]):
        assert "SID" not in _curl("-T", str(upload), *extra, "-o", "/dev/null", "-w", "%{http_code}", f"{base}/")


@pytest.mark.real("nginx", "curl")
def test_curl_range_head_and_pipeline_of_connections(farm):
    base = f"http://127.0.0.1:{farm}"
    assert _curl("-r", "256-511", f"{base}/big").encode("latin-1") == bytes(range(256))
    assert "Content-Length: 5120000" in _curl("-I", f"{base}/big").replace("content-length", "Content-Length")
    assert _curl("-w", "%{num_connects}", "-o", "/dev/null", f"{base}/", "-o", "/dev/null", f"{base}/") == "10"


@pytest.mark.real("nginx", "wrk")
@pytest.mark.parametrize("header", ["X: y", "Connection: close"])
def test_wrk_sees_no_error(farm, header):
    done = subprocess.run(
        ["wrk", "-t1", "-c50", "-d1s", "-H", header, f"http://127.0.0.1:{farm}/"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(re.search(r"(\d+) requests in", done.stdout)[1]) > 100
    assert "Socket errors" not in done.stdout
    assert "Non-2xx" not in done.stdout

"""The metadata client against a small service over HTTP: tokens, refusals, time-outs, a private cache."""

from __future__ import annotations

import socket
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from haptk.aws import imds as module
from haptk.aws.imds import Imds, ImdsDenied, ImdsMissing, ImdsSilent

MAC = "0e:00:00:00:00:01"
TREE = {
    "meta-data/mac": MAC,
    "meta-data/instance-id": "i-0123456789abcdef0",
    "meta-data/network/interfaces/macs/": f"{MAC}/\n0e:00:00:00:00:02/",
    f"meta-data/network/interfaces/macs/{MAC}/interface-id": "eni-01234567",
    f"meta-data/network/interfaces/macs/{MAC}/local-ipv4s": "10.0.0.5\n10.0.0.6",
    f"meta-data/network/interfaces/macs/{MAC}/ipv4-associations/": "203.0.113.10\n203.0.113.11",
    f"meta-data/network/interfaces/macs/{MAC}/ipv4-associations/203.0.113.10": "10.0.0.5",
    f"meta-data/network/interfaces/macs/{MAC}/ipv4-associations/203.0.113.11": "10.0.0.6",
}


class Service(ThreadingHTTPServer):
    """What a test may set is here."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.good: set[str] = set()
        self.made = 0
        self.asked: list[str] = []
        self.token_status = 200
        self.chunked = False
        self.short_by = 0


class Handler(BaseHTTPRequestHandler):
    server: Service
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        self.server.asked.append("PUT")
        if self.server.token_status != 200:
            return self.answer(self.server.token_status, "")
        assert self.headers["X-aws-ec2-metadata-token-ttl-seconds"].isdigit()
        self.server.made += 1
        token = f"token-{self.server.made}"
        self.server.good = {token}
        return self.answer(200, token)

    def do_GET(self) -> None:
        path = self.path.removeprefix("/latest/")
        self.server.asked.append(path)
        if self.headers.get("X-aws-ec2-metadata-token") not in self.server.good:
            return self.answer(401, "")
        return self.answer(200, TREE[path]) if path in TREE else self.answer(404, "<html>")

    def answer(self, status: int, body: str) -> None:
        data = body.encode()
        self.send_response(status)
        if self.server.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            half = len(data) // 2
            for part in (data[:half], data[half:]):
                if part:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.send_header("Content-Length", str(len(data) + self.server.short_by))
            self.end_headers()
            self.wfile.write(data)
        self.close_connection = True

    def log_message(self, *_arguments: Any) -> None:
        """Quiet."""


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def client(service: Service, tmp_path: Path) -> Imds:
    return Imds(f"http://127.0.0.1:{service.server_port}", str(tmp_path / "run"))


def test_reads_what_the_agent_needs(client: Imds) -> None:
    assert client.primary_mac() == MAC
    assert client.macs() == [MAC, "0e:00:00:00:00:02"]
    assert client.interface_id(MAC) == "eni-01234567"
    assert client.private_ips(MAC) == ["10.0.0.5", "10.0.0.6"]
    assert client.associated(MAC, "203.0.113.10") == ["10.0.0.5"]
    assert client.associated(MAC, "203.0.113.1") == []  # a prefix of a real one is not it
    assert client.associations(MAC) == {"10.0.0.5": "203.0.113.10", "10.0.0.6": "203.0.113.11"}
    with pytest.raises(ImdsMissing):
        client.get("meta-data/nothing")


def test_one_token_serves_many_questions_and_the_next_process(service: Service, client: Imds, tmp_path: Path) -> None:
    client.primary_mac()
    client.instance_id()
    Imds(client.endpoint, str(tmp_path / "run")).primary_mac()
    assert service.asked.count("PUT") == 1


def test_the_cache_is_private_from_the_beginning(client: Imds, tmp_path: Path) -> None:
    client.primary_mac()
    (path,) = (tmp_path / "run").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700


def test_a_cache_that_others_can_read_is_not_used(service: Service, client: Imds, tmp_path: Path) -> None:
    client.primary_mac()
    (path,) = (tmp_path / "run").iterdir()
    path.chmod(0o644)
    Imds(client.endpoint, str(tmp_path / "run")).primary_mac()
    assert service.asked.count("PUT") == 2


def test_a_directory_that_others_can_write_gets_no_token(service: Service, tmp_path: Path) -> None:
    run = tmp_path / "open"
    run.mkdir()
    run.chmod(0o777)
    Imds(f"http://127.0.0.1:{service.server_port}", str(run)).primary_mac()
    assert list(run.iterdir()) == []


def test_a_401_renews_the_token_once(service: Service, client: Imds) -> None:
    client.primary_mac()
    service.good = set()
    assert client.instance_id().startswith("i-")
    assert service.made == 2


def test_a_service_that_refuses_fresh_tokens_is_named(service: Service, client: Imds, monkeypatch: Any) -> None:
    class Never(set[str]):
        def __contains__(self, _item: object) -> bool:
            return False

    client.primary_mac()
    monkeypatch.setattr(Handler, "do_PUT", lambda self: self.answer(200, "useless"))
    service.good = Never()
    with pytest.raises(ImdsDenied, match="401"):
        client.primary_mac()


def test_403_says_disabled_or_proxy(service: Service, client: Imds) -> None:
    service.token_status = 403
    with pytest.raises(ImdsDenied, match=r"disabled.*X-Forwarded-For"):
        client.primary_mac()


def test_a_token_that_never_comes_hints_at_the_hop_limit(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = Imds(f"http://127.0.0.1:{silent.getsockname()[1]}", str(tmp_path), timeout_s=0.2)
        with pytest.raises(ImdsSilent, match="hop limit"):
            client.primary_mac()


def test_nobody_there_is_silent(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ImdsSilent, match="refused"):
        Imds(f"http://127.0.0.1:{port}", str(tmp_path)).primary_mac()


def test_something_that_is_no_metadata_service(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def serve() -> None:
            channel, _ = other.accept()
            channel.recv(1000)
            channel.sendall(b"SSH-2.0-OpenSSH\r\n\r\n")
            channel.close()

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(ImdsSilent, match="no metadata service"):
            Imds(f"http://127.0.0.1:{other.getsockname()[1]}", str(tmp_path)).primary_mac()
        thread.join()


def test_chunked_answers_are_read(service: Service, client: Imds) -> None:
    service.chunked = True
    assert client.private_ips(MAC) == ["10.0.0.5", "10.0.0.6"]


def test_a_broken_off_answer_is_not_taken_for_the_whole(service: Service, client: Imds) -> None:
    client.token()
    service.short_by = 5
    with pytest.raises(ImdsSilent, match="broke off"):
        client.private_ips(MAC)


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, "http://169.254.169.254"),
        ({"AWS_EC2_METADATA_DISABLED": "true"}, None),
        ({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1/"}, "http://127.0.0.1:1"),
        ({"AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE": "IPv6"}, "http://[fd00:ec2::254]"),
    ],
)
def test_the_standard_variables_choose_the_endpoint(env: dict[str, str], expected: str | None) -> None:
    assert module.endpoint_of(env) == expected


@pytest.mark.parametrize("endpoint", ["", "https://169.254.169.254", "169.254.169.254", "http://", "http://host:port"])
def test_an_endpoint_that_cannot_be(endpoint: str) -> None:
    with pytest.raises(ImdsSilent):
        Imds(endpoint)


def test_an_ipv6_endpoint_is_understood() -> None:
    assert module._host_and_port("[fd00:ec2::254]") == ("fd00:ec2::254", 80)
    assert module._host_and_port("[fd00:ec2::254]:8080") == ("fd00:ec2::254", 8080)

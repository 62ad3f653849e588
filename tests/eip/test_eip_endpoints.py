"""Which URL is really asked: real commands through a proxy that writes down every CONNECT, ends the TLS and asks the region.

Nothing is mocked on the way: names, certificates and the Host line are what AWS would see. The proxy makes a certificate
for each name with an authority of its own, which AWS_CA_BUNDLE names.
"""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from haptk.eip.install import PLACES, Installer

HAPTK = str(Path(sys.executable).with_name("haptk"))
ROLE = "arn:aws:iam::123456789012:role/keeper-of-the-address"
VPCE = "vpce-0a1b2c3d.ec2.eu-west-1.vpce.amazonaws.com"
DAY = datetime.timedelta(days=1)


class Authority:
    """Signs a certificate for any name."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "haptk test authority")])
        own = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        self.bundle = scratch / "authority.pem"
        self.bundle.write_bytes(own.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def _builder(self, name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + DAY)
        )

    def context(self, host: str) -> ssl.SSLContext:
        """What a server of this name presents."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName(host)]
        if host.replace(".", "").isdigit():
            names = [x509.IPAddress(ipaddress.ip_address(host))]
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
        builder = self._builder(name, key).add_extension(x509.SubjectAlternativeName(names), False)
        place = self._scratch / f"{host}.pem"
        place.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(place)
        return context


class Proxy:
    """An HTTPS proxy: CONNECT, TLS, one request after the other to the region's API."""

    def __init__(self, authority: Authority, api: str) -> None:
        self._authority = authority
        host, _, port = api.removeprefix("http://").partition(":")
        self._api = (host, int(port))
        self.asked: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                channel, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(channel,), daemon=True).start()

    def _one(self, channel: socket.socket) -> None:
        with channel:
            try:
                method, target, _ = _read(channel).split(b"\r\n", 1)[0].decode().split(" ")
                assert method == "CONNECT"
                host, _, port = target.rpartition(":")
                channel.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                with self._authority.context(host).wrap_socket(channel, server_side=True) as secure:
                    request = _read(secure)
                    named = next(line[6:] for line in request.split(b"\r\n") if line.lower().startswith(b"host: "))
                    # What the Host line says, and only while it is the name that was connected to.
                    self.asked.append(f"https://{named.decode()}")
                    if named.decode() != (host if port == "443" else target):
                        self.asked.append(f"connected to {target}")
                    with socket.create_connection(self._api) as region:
                        own = "{}:{}".format(*self._api).encode()  # moto would look for a service in the name
                        region.sendall(request.replace(b": " + named, b": " + own, 1))
                        secure.sendall(_read(region))
            except (OSError, ssl.SSLError):
                return


def _read(channel: socket.socket) -> bytes:
    """One HTTP message, by its Content-Length."""
    found = b""
    while True:
        part = channel.recv(65536)
        found += part
        head, end, body = found.partition(b"\r\n\r\n")
        lengths = [line[15:] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        if not part or (end and len(body) >= int(lengths[0] if lengths else 0)):
            return found


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def proxy(lab: Any, authority: Authority) -> Iterator[Proxy]:
    made = Proxy(authority, lab.api)
    yield made
    made.close()


def run(lab: Any, proxy: Proxy, authority: Authority, *arguments: str, **more: str) -> Any:
    env = {name: value for name, value in lab.env("lb1").items() if name not in ("AWS_ENDPOINT_URL", "AWS_REGION")}
    env |= {"HTTPS_PROXY": proxy.url, "AWS_CA_BUNDLE": str(authority.bundle), **more}
    env = {name: value for name, value in env.items() if value}  # an empty one is one that is not set
    return subprocess.run([HAPTK, *arguments], env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("options", "env", "hosts"),
    [
        ("", {}, ["ec2.eu-west-1.amazonaws.com"]),
        ("--region us-east-2", {}, ["ec2.us-east-2.amazonaws.com"]),
        ("--region us-gov-west-1", {}, ["ec2.us-gov-west-1.amazonaws.com"]),
        ("--region cn-north-1", {}, ["ec2.cn-north-1.amazonaws.com.cn"]),
        ("--dual-stack", {}, ["ec2.eu-west-1.api.aws"]),
        ("", {"AWS_USE_DUALSTACK_ENDPOINT": "true"}, ["ec2.eu-west-1.api.aws"]),
        ("--region us-east-1 --fips", {}, ["ec2-fips.us-east-1.amazonaws.com"]),
        ("--region us-east-1", {"AWS_USE_FIPS_ENDPOINT": "true"}, ["ec2-fips.us-east-1.amazonaws.com"]),
        ("--region us-east-1 --fips --dual-stack", {}, ["ec2-fips.us-east-1.api.aws"]),
        ("--profile strict", {"AWS_DEFAULT_REGION": ""}, ["ec2-fips.ca-central-1.amazonaws.com"]),
        (f"--endpoint-url https://{VPCE}", {}, [VPCE]),
        (f"--endpoint-url https://{VPCE}", {"AWS_ENDPOINT_URL": "https://all.example"}, [VPCE]),
        ("", {"AWS_ENDPOINT_URL": "https://all.example:8443"}, ["all.example:8443"]),
        ("", {"AWS_ENDPOINT_URL": "https://all.example", "AWS_ENDPOINT_URL_EC2": f"https://{VPCE}"}, [VPCE]),
        ("", {"AWS_ENDPOINT_URL": "https://all.example", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
         ["ec2.eu-west-1.amazonaws.com"]),
        ("--profile private", {}, [VPCE]),
        (f"--role-arn {ROLE}", {}, ["sts.eu-west-1.amazonaws.com", "ec2.eu-west-1.amazonaws.com"]),
        (f"--role-arn {ROLE} --dual-stack", {}, ["sts.eu-west-1.api.aws", "ec2.eu-west-1.api.aws"]),
        (f"--role-arn {ROLE} --region us-east-1 --fips", {},
         ["sts-fips.us-east-1.amazonaws.com", "ec2-fips.us-east-1.amazonaws.com"]),
        # The endpoint of EC2 is not one of STS.
        (f"--role-arn {ROLE} --endpoint-url https://{VPCE}", {}, ["sts.eu-west-1.amazonaws.com", VPCE]),
        (f"--role-arn {ROLE}", {"AWS_ENDPOINT_URL_STS": "https://sts.example"},
         ["sts.example", "ec2.eu-west-1.amazonaws.com"]),
    ],
)  # fmt: skip
def test_the_url_that_is_really_asked(
    lab: Any, proxy: Proxy, authority: Authority, options: str, env: dict[str, str], hosts: list[str]
) -> None:
    config = lab.scratch / ".aws"
    config.mkdir()
    (config / "config").write_text(
        "[profile strict]\nregion = ca-central-1\nuse_fips_endpoint = true\n"
        f"[profile private]\nservices = near\n[services near]\nec2 =\n  endpoint_url = https://{VPCE}\n"
    )
    done = run(lab, proxy, authority, "eip", "status", lab.ip(), *options.split(), **env)
    assert proxy.asked == [f"https://{host}" for host in hosts], done.stderr
    # The region of the tests is the only one with the address; elsewhere the answer is that there is none.
    assert "cannot be reached" not in done.stdout + done.stderr
    if "--region" not in options and "strict" not in options:
        assert done.returncode == 3 and "nobody holds it" in done.stdout


def test_each_service_goes_to_its_own_endpoint(lab: Any, proxy: Proxy, authority: Authority) -> None:
    """The endpoint given for EC2 is EC2's; the table of leases is still asked of DynamoDB."""
    peer = lab.region.instance("lb2").instance_id
    done = run(lab, proxy, authority, "eip", "fence", peer, "--table", "no-such", "--yes", "--endpoint-url",
               f"https://{VPCE}")  # fmt: skip
    assert done.returncode == 1 and "not fenced" in done.stdout
    assert set(proxy.asked) == {f"https://{VPCE}", "https://dynamodb.eu-west-1.amazonaws.com"}, done.stderr
    proxy.asked.clear()
    run(lab, proxy, authority, "lease", "show", lab.ip())
    assert set(proxy.asked) == {"https://dynamodb.eu-west-1.amazonaws.com"}
    proxy.asked.clear()
    run(lab, proxy, authority, "lease", "show", lab.ip(), "--endpoint-url", "https://lab.example")
    assert set(proxy.asked) == {"https://lab.example"}


def test_a_certificate_of_an_unknown_authority_is_refused_and_named(
    lab: Any, proxy: Proxy, authority: Authority
) -> None:
    done = run(lab, proxy, authority, "eip", "start", lab.ip(), AWS_CA_BUNDLE="")
    assert proxy.asked == [] and lab.holder() is None
    assert "TLS failed" in done.stderr and "ec2.eu-west-1.amazonaws.com" in done.stderr


def test_an_answer_that_is_not_of_aws_is_no_internal_error(lab: Any, proxy: Proxy, authority: Authority) -> None:
    """A captive portal, a load balancer's error page: HTML with any status."""
    with socket.create_server(("127.0.0.1", 0)) as portal:
        page = b"<!doctype html><title>Sign in</title>" + b"<p>Welcome" * 100
        answer = b"HTTP/1.1 %s\r\nContent-Type: text/html\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"

        def serve() -> None:
            for status in (b"200 OK", b"500 Oops") * 2:
                with portal.accept()[0] as channel:
                    _read(channel)
                    channel.sendall(answer % (status, len(page), page))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{portal.getsockname()[1]}"
        for _status in ("200 OK", "500 Oops"):
            done = run(lab, proxy, authority, "eip", "status", lab.ip(), "--endpoint-url", url)
            assert done.returncode == 4 and "internal error" not in done.stdout
            assert "is not AWS" in done.stdout and done.stdout.count("\n") == 1 and len(done.stdout) < 700


def test_a_manager_that_passes_no_environment_reaches_it_by_the_settings_file(
    lab: Any, proxy: Proxy, authority: Authority
) -> None:
    """Heartbeat and keepalived pass none: /etc/haptk/eip.env has the proxy, its authority, the region and the kind."""
    Installer(lab.scratch / "root").install(["heartbeat"])
    whole = {name: value for name, value in lab.env("lb1").items() if name != "AWS_ENDPOINT_URL"}
    wanted = {"HTTPS_PROXY": proxy.url, "AWS_CA_BUNDLE": str(authority.bundle), "AWS_USE_DUALSTACK_ENDPOINT": "true"}
    settings = lab.scratch / "eip.env"
    settings.write_text("".join(f"{name}={value}\n" for name, value in {**whole, **wanted}.items()))
    env = {"PATH": whole["PATH"], "HAPTK_EIP_ENV": str(settings), "HA_LOGFACILITY": "none"}
    script = str(lab.scratch / "root" / PLACES["heartbeat"][0])
    done = subprocess.run([script, lab.ip(), "status"], env=env, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("stopped\n", "")
    assert proxy.asked == ["https://ec2.eu-west-1.api.aws"]

"""The instance metadata service, version 2, over one plain socket per question: no credentials, no quota, no botocore.

This file is imported by `eip/quick.py`, which must answer a poll in a few milliseconds: it imports no module that
costs (no typing, dataclasses, http.client, socket), and so speaks HTTP/1.1 by hand over `_socket`.

Rules. The service is link-local: it answers in a millisecond or not at all, so time-outs are short. A token is asked by
PUT with a TTL and cached in a private directory by mode 0600 from the moment of creation; a 401 means that it is no
longer good (a reboot, a restored image): it is renewed once. A 403 comes from a disabled service or from a request that
went through a proxy; a token that never arrives, while TCP connects, is the hop limit of containers. Each says so.

Documentation: "Use the Instance Metadata Service to access instance metadata" in the EC2 User Guide.
"""

from __future__ import annotations

import _socket
import os

from haptk.io import clock

DEFAULT_ENDPOINT = "http://169.254.169.254"
DEFAULT_ENDPOINT_IPV6 = "http://[fd00:ec2::254]"
TOKEN_TTL_S = 21600
TIMEOUT_S = 1.0
_MAX_ANSWER_BYTES = 1 << 20


class ImdsError(Exception):
    """The metadata service cannot be used; the text says why and what to do."""


class ImdsSilent(ImdsError):
    """No answer, or none that is HTTP."""


class ImdsDenied(ImdsError):
    """It answers and refuses: disabled, hop limit, proxy."""


class ImdsMissing(ImdsError):
    """404: there is no such entry."""


def endpoint_of(env: dict[str, str] | os._Environ[str]) -> str | None:
    """The endpoint that the standard variables ask for, without a trailing slash; None when metadata is disabled.

    AWS_EC2_METADATA_DISABLED, AWS_EC2_METADATA_SERVICE_ENDPOINT, AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE.
    """
    if env.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return None
    given = env.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "")
    if given:
        return given.rstrip("/")
    if env.get("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "").lower() == "ipv6":
        return DEFAULT_ENDPOINT_IPV6
    return DEFAULT_ENDPOINT


def run_dir(env: dict[str, str] | os._Environ[str]) -> str:
    """Where tokens and last known states live: gone after a boot, private to the user.

    HAPTK_RUN_DIR, else /run/haptk for root, else a directory of the user's own runtime directory.
    """
    given = env.get("HAPTK_RUN_DIR", "")
    if given:
        return given
    if os.geteuid() == 0:
        return "/run/haptk"
    return os.path.join(env.get("XDG_RUNTIME_DIR") or f"/tmp/haptk-{os.geteuid()}", "haptk")  # noqa: PTH118, S108


def read_private(path: str) -> str | None:
    """The text of a small file of ours, or None: one that belongs to another user or is readable by others is ignored."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        found = os.fstat(handle)
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            return None
        return os.read(handle, 65536).decode("utf-8", "replace")
    finally:
        os.close(handle)


def write_private(path: str, text: str) -> bool:
    """Replace a small file, mode 0600 by O_CREAT, in a directory of ours of mode 0700; False when that cannot be done.

    A cache that cannot be written costs time, not correctness, so the reason is not raised.
    """
    directory = os.path.dirname(path)  # noqa: PTH120 (pathlib costs more than the whole poll)
    temporary = f"{path}.{os.getpid()}.{clock.monotonic_usec()}"
    try:
        if not os.path.isdir(directory):  # noqa: PTH112
            os.makedirs(directory, mode=0o700, exist_ok=True)  # noqa: PTH103
        found = os.lstat(directory)
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            return False
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(handle, text.encode())
        finally:
            os.close(handle)
        os.rename(temporary, path)  # noqa: PTH104
    except OSError:
        return False
    return True


def file_name(*parts: str) -> str:
    """A file name made of arbitrary words: letters, digits, dot and dash survive, everything else becomes `_`."""
    return "_".join("".join(c if c.isalnum() or c in ".-" else "_" for c in part) for part in parts)


class Imds:
    """A client of one metadata service. Not thread-safe: use one each thread, they share the token file."""

    def __init__(self, endpoint: str, cache_dir: str | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self.endpoint = endpoint
        self.timeout_s = timeout_s
        scheme, _, rest = endpoint.partition("://")
        authority, _, self._prefix = rest.partition("/")
        if scheme != "http" or not authority:
            raise ImdsSilent(f"{endpoint!r} is not a metadata endpoint: http://HOST[:PORT] is accepted")
        self._authority = authority
        self._host, self._port = _host_and_port(authority)
        self._cache = os.path.join(cache_dir, file_name("imds", authority)) if cache_dir else None  # noqa: PTH118
        self._token: str | None = None
        self._token_until = 0.0
        self._deadline = 0.0

    def get(self, path: str) -> str:
        """The text of `meta-data/...` under /latest/; raises ImdsMissing for a 404, else ImdsSilent or ImdsDenied."""
        self._deadline = clock.monotonic() + self.timeout_s
        for renew in (False, True):
            status, body = self._ask(
                "GET", f"latest/{path}", f"X-aws-ec2-metadata-token: {self.token(renew=renew)}\r\n"
            )
            if status == 200:
                return body
            if status == 404:
                raise ImdsMissing(f"{path}: not in the metadata")
            if status != 401:
                raise _refusal(status, path)
        raise ImdsDenied(f"{path}: the metadata service refuses a fresh token (401); is a proxy or a relay in between?")

    def token(self, *, renew: bool = False) -> str:
        """A session token: from memory, from the private cache, or by PUT. `renew` asks for a new one."""
        if renew:
            self._token = None
        elif self._token is None and self._cache:
            until, _, cached = (read_private(self._cache) or "").partition(" ")
            if cached and until.isdigit():
                self._token, self._token_until = cached.strip(), float(until)
        if self._token and clock.wall() < self._token_until:
            return self._token
        if not self._deadline or renew:
            self._deadline = clock.monotonic() + self.timeout_s
        try:
            status, body = self._ask(
                "PUT", "latest/api/token", f"X-aws-ec2-metadata-token-ttl-seconds: {TOKEN_TTL_S}\r\n"
            )
        except ImdsSilent as error:
            raise ImdsSilent(
                f"{error} (in a container: is the hop limit of the instance at least 2? "
                "aws ec2 modify-instance-metadata-options --http-put-response-hop-limit 2)"
            ) from error
        if status != 200 or not body or not body.isascii() or not body.isprintable():
            raise _refusal(status, "latest/api/token")
        # A minute before its end the token counts as old: it must not die between two questions of one poll.
        self._token, self._token_until = body, clock.wall() + TOKEN_TTL_S - 60
        if self._cache:
            write_private(self._cache, f"{int(self._token_until)} {body}")
        return body

    def _ask(self, method: str, path: str, header: str) -> tuple[int, str]:
        request = (
            f"{method} /{self._prefix + '/' if self._prefix else ''}{path} HTTP/1.1\r\n"
            f"Host: {self._authority}\r\n{header}"
            f"{'Content-Length: 0' if method == 'PUT' else 'Accept: */*'}\r\nConnection: close\r\n\r\n"
        ).encode("ascii")
        try:
            family, address = _resolve(self._host, self._port)
            channel = _socket.socket(family, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
            try:
                channel.settimeout(self._left())
                channel.connect(address)
                channel.send(request)
                answer = self._read(channel)
            finally:
                channel.close()
        except TimeoutError as error:
            raise ImdsSilent(
                f"the metadata service at {self.endpoint} did not answer within {self.timeout_s} s"
            ) from error
        except OSError as error:
            why = error.strerror or str(error)
            raise ImdsSilent(f"the metadata service at {self.endpoint} cannot be reached: {why}") from error
        return _parse(answer, self.endpoint)

    def _left(self) -> float:
        left = self._deadline - clock.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _read(self, channel: _socket.socket) -> bytes:
        answer = b""
        while len(answer) < _MAX_ANSWER_BYTES and not _complete(answer):
            channel.settimeout(self._left())
            part = channel.recv(65536)
            if not part:
                break
            answer += part
        return answer

    # The entries that the agent reads.

    def macs(self) -> list[str]:
        """The MAC addresses of this instance's interfaces."""
        lines = self.get("meta-data/network/interfaces/macs/").splitlines()
        return [line.strip().rstrip("/") for line in lines if line.strip()]

    def primary_mac(self) -> str:
        return self.get("meta-data/mac").strip()

    def interface_id(self, mac: str) -> str:
        """The ENI id of the interface with this MAC."""
        return self.get(f"meta-data/network/interfaces/macs/{mac}/interface-id").strip()

    def private_ips(self, mac: str) -> list[str]:
        return self.get(f"meta-data/network/interfaces/macs/{mac}/local-ipv4s").split()

    def instance_id(self) -> str:
        return self.get("meta-data/instance-id").strip()

    def region(self) -> str:
        return self.get("meta-data/placement/region").strip()

    def associations(self, mac: str) -> dict[str, str]:
        """private address -> Elastic IP, of all Elastic IPs on the interface."""
        try:
            listed = self.get(f"meta-data/network/interfaces/macs/{mac}/ipv4-associations/").split()
        except ImdsMissing:
            return {}
        return {private: public for public in listed for private in self.associated(mac, public)}

    def associated(self, mac: str, public_ip: str) -> list[str]:
        """The private addresses of the interface to which this exact public address is mapped; [] when it is not."""
        try:
            return self.get(f"meta-data/network/interfaces/macs/{mac}/ipv4-associations/{public_ip}").split()
        except ImdsMissing:
            return []


def _host_and_port(authority: str) -> tuple[str, int]:
    host, separator, port = authority.rpartition(":")
    if not separator or authority.endswith("]"):
        host, port = authority, "80"
    if not port.isdigit():
        raise ImdsSilent(f"{authority!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def _resolve(host: str, port: int) -> tuple[int, tuple[str, int]]:
    if ":" in host:
        return _socket.AF_INET6, (host, port)
    return _socket.AF_INET, (host, port)


def _head_of(answer: bytes) -> tuple[bytes, bytes, bool]:
    head, end, body = answer.partition(b"\r\n\r\n")
    return head, body, bool(end)


def _length(head: bytes) -> int | None:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length" and value.strip().isdigit():
            return int(value)
    return None


def _complete(answer: bytes) -> bool:
    head, body, whole = _head_of(answer)
    if not whole:
        return False
    length = _length(head)
    return length is not None and len(body) >= length


def _parse(answer: bytes, endpoint: str) -> tuple[int, str]:
    head, body, whole = _head_of(answer)
    words = head.split(b"\r\n", 1)[0].split(None, 2)
    if not whole or len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise ImdsSilent(f"what answers at {endpoint} is no metadata service: {answer[:60]!r}")
    length = _length(head)
    if length is not None and len(body) < length:
        raise ImdsSilent(f"the metadata service at {endpoint} broke off in the middle of its answer")
    if b"chunked" in head.lower():
        body = _dechunk(body)
    return int(words[1]), (body if length is None else body[:length]).decode("utf-8", "replace")


def _dechunk(body: bytes) -> bytes:
    whole = b""
    while True:
        size_text, _, body = body.partition(b"\r\n")
        try:
            size = int(size_text.partition(b";")[0], 16)
        except ValueError as error:
            raise ImdsSilent("the metadata service sent a broken chunk") from error
        if size == 0:
            return whole
        whole += body[:size]
        body = body[size + 2 :]


def _refusal(status: int, path: str) -> ImdsError:
    if status == 403:
        return ImdsDenied(
            f"{path}: the metadata service refuses (403): it is disabled for this instance "
            "(aws ec2 modify-instance-metadata-options --http-endpoint enabled), "
            "or the request went through a proxy that added X-Forwarded-For"
        )
    if status == 400:
        return ImdsDenied(f"{path}: the metadata service calls the request malformed (400)")
    return ImdsSilent(f"{path}: the metadata service answered {status}")

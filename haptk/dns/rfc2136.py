"""RFC 2136: reading and changing the name at the primary server of a zone, signed with TSIG (RFC 8945).

An update carries what was read as its prerequisite (RFC 2136, 2.4.2): when somebody else changed the name in between,
the server refuses the whole and nothing is done. The key comes from a file of BIND's form that nobody else may read:

    key "haptk" { algorithm hmac-sha256; secret "base64..."; };
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from haptk.cluster.schema import Cluster
from haptk.dns.provider import Plan, surprises
from haptk.errors import ConfigError, MissingFile, NotPermitted, OperatorError, PeerError, PeerTimeout
from haptk.io import clock

if TYPE_CHECKING:
    import dns.tsig

PATIENCE_S = 10.0
ALGORITHMS = ("hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512")
_KEY = re.compile(
    r'^\s*key\s+"?(?P<name>[A-Za-z0-9._-]+)"?\s*\{\s*algorithm\s+"?(?P<algorithm>[A-Za-z0-9-]+)"?\s*;'
    r'\s*secret\s+"?(?P<secret>[A-Za-z0-9+/=]+)"?\s*;\s*\}\s*;?\s*$'
)


def read_key(path: Path) -> dns.tsig.Key:
    """The TSIG key of a file. MissingFile, NotPermitted when others may read it, ConfigError for another form; the
    secret is in no message."""
    import binascii

    import dns.tsig

    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            mode = stat.S_IMODE(path.stat().st_mode)
            text = stream.read(65536)
    except FileNotFoundError as error:
        raise MissingFile(path=path, why="no TSIG key; `tsig-keygen haptk` makes one, --key-file names it") from error
    except OSError as error:
        raise NotPermitted(what=f"read {path}", why=error.strerror or str(error)) from error
    if mode & 0o077:
        raise NotPermitted(what=f"use {path}", why=f"its mode is {mode:04o}: others can read the key; chmod 0600")
    found = _KEY.match(re.sub(r"(?m)^\s*(#|//).*$", "", text))
    accepted = 'key "NAME" { algorithm hmac-sha256; secret "BASE64"; };'
    if found is None:
        raise ConfigError(file=path, line=1, why=f"this is no key statement; accepted is {accepted}")
    if found["algorithm"].lower() not in ALGORITHMS:
        why = f"algorithm {found['algorithm']} is not used; accepted are {', '.join(ALGORITHMS)}"
        raise ConfigError(file=path, line=1, why=why)
    try:
        return dns.tsig.Key(found["name"], found["secret"], found["algorithm"].lower())
    except (binascii.Error, ValueError) as error:
        raise ConfigError(file=path, line=1, why=f"the secret is not base64; accepted is {accepted}") from error


@dataclass(frozen=True)
class Rfc2136:
    """The provider. `key` None sends unsigned messages, which a server takes only from addresses that it trusts."""

    cluster: Cluster
    host: str
    port: int
    key: dns.tsig.Key | None

    def look(self) -> dict[str, int]:
        """The addresses of the name, each with weight 1. PeerError or PeerTimeout when the server does not tell."""
        return dict.fromkeys(self._read()[0], 1)

    def ttl_s(self) -> int | None:
        """The TTL of the name; None without one."""
        return self._read()[1]

    def _read(self) -> tuple[list[str], int | None]:
        import dns.flags
        import dns.message
        import dns.rcode

        from haptk.dns.resolve import addresses

        query = dns.message.make_query(self._name(), "A")
        reply = self._send(query)
        if reply.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            raise PeerError(peer=self._where(), why=f"answers {dns.rcode.to_text(reply.rcode())} for {self._name()}")
        if not reply.flags & dns.flags.AA:
            raise PeerError(peer=self._where(), why=f"it is not authoritative for {self._name()}")
        values, ttls = addresses(reply)
        return sorted(values), min(ttls, default=None)

    def declared(self) -> Plan:
        """The plan that makes the name what is declared."""
        there, ttl = self._read()
        return self._plan(there, ttl, sorted(address.public_ip for address in self.cluster.addresses))

    def plan(self, edits: Mapping[str, int]) -> Plan:
        """The plan for some addresses: weight 0 leaves the name, any other one joins it. What else is there stays."""
        there, ttl = self._read()
        wanted = {**dict.fromkeys(there, 1), **edits}
        return self._plan(there, ttl, sorted(address for address, weight in wanted.items() if weight > 0))

    def _plan(self, there: list[str], ttl: int | None, wanted: list[str]) -> Plan:
        dns_of = _dns(self.cluster)
        declared = int(dns_of.ttl)
        lines = [f"- {self._name()} {ttl} A {one}" for one in there if one not in wanted]
        lines += [f"+ {self._name()} {declared} A {one}" for one in wanted if one not in there]
        if not lines and there and ttl != declared:
            lines = [f"~ {self._name()} TTL {ttl} -> {declared}"]
        if not wanted:
            raise OperatorError(what=f"nobody would be left in {self._name()}")
        return Plan(tuple(lines), surprises(there, wanted), self._committer(there, wanted, declared))

    def _committer(self, there: list[str], wanted: list[str], ttl: int) -> Callable[[], None]:
        def commit() -> None:
            import dns.name
            import dns.rcode
            import dns.rdataset
            import dns.rdatatype
            import dns.update

            update = dns.update.UpdateMessage(_fqdn(_dns(self.cluster).zone))
            name = dns.name.from_text(self._name())
            if there:
                update.present(name, dns.rdataset.from_text_list("IN", "A", 0, there))
            else:
                update.absent(name, "A")
            update.replace(name, dns.rdataset.from_text_list("IN", "A", ttl, wanted))
            code = self._send(update).rcode()
            if code in (dns.rcode.NXRRSET, dns.rcode.YXRRSET, dns.rcode.NXDOMAIN, dns.rcode.YXDOMAIN):
                why = "somebody else changed it in between; nothing was done"
                raise PeerError(peer=self._where(), why=f"did not change {self._name()}: {why}")
            if code != dns.rcode.NOERROR:
                why = f"refused the update of {self._name()}: {dns.rcode.to_text(code)}"
                raise PeerError(peer=self._where(), why=why)

        return commit

    def _send(self, message: Any) -> Any:
        """Over TCP, signed; an answer with another signature is refused by dnspython."""
        import dns.exception
        import dns.query
        import dns.tsig

        if self.key is not None:
            message.use_tsig(self.key)
        started = clock.monotonic()
        try:
            return dns.query.tcp(message, self.host, PATIENCE_S, self.port)
        except dns.exception.Timeout as error:
            waited = round(clock.monotonic() - started, 1)
            raise PeerTimeout(peer=self._where(), timeout_s=waited, why="no answer over TCP") from error
        except (dns.exception.DNSException, OSError, EOFError) as error:
            raise PeerError(peer=self._where(), why=f"{type(error).__name__}: {error}") from error

    def _name(self) -> str:
        return _fqdn(_dns(self.cluster).name)

    def _where(self) -> str:
        return f"{self.host}:{self.port}"


def _fqdn(name: str) -> str:
    return name if name.endswith(".") else f"{name}."


def _dns(cluster: Cluster) -> Any:
    if cluster.dns is None:
        raise OperatorError(what="cluster.toml has no table [dns]: accepted is one with name and zone")
    return cluster.dns

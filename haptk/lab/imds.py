"""The metadata service of one lab instance, as EC2's behaves with HttpTokens=required (IMDSv2).

A session starts with PUT /latest/api/token and a TTL header of 1 to 21600 s; a GET without a valid token is 401, a
PUT that came through a proxy (X-Forwarded-For) is 403, what does not exist is 404. Directories end in `/` and list
their entries; without the slash they are 301. Answers close the connection. The addresses of the interface come live
from the association feed, `lag_ms` late when that fault is set.

A session token carries its own end and a MAC, so the service remembers nothing and any number of clients can ask.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
import struct
from typing import Any

from haptk.io import clock
from haptk.lab.feed import Feed
from haptk.lab.httpwire import Message, WireError, read_request
from haptk.lab.plan import Instance, Region

TTL_HEADER = "x-aws-ec2-metadata-token-ttl-seconds"
TTL_MAX_S = 21600
CREDENTIALS_LIFE_S = 6 * 3600
VERSIONS = ("latest",)
_PAGE = """<?xml version="1.0" encoding="iso-8859-1"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN"
 "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en" lang="en">
 <head><title>{status} - {reason}</title></head>
 <body><h1>{status} - {reason}</h1></body>
</html>
"""
_REASONS = {
    200: "OK",
    301: "Moved Permanently",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
}
Tree = dict[str, Any]


class Tokens:
    """Makes and checks session tokens; `now` is CLOCK_MONOTONIC seconds."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def make(self, ttl_s: int, now: float) -> str:
        payload = struct.pack("!d", now + ttl_s) + secrets.token_bytes(8)
        return base64.urlsafe_b64encode(payload + self._mac(payload)).decode()

    def valid(self, token: str, now: float) -> bool:
        try:
            raw = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
        except ValueError:
            return False
        payload, mac = raw[:16], raw[16:]
        if len(payload) != 16 or not hmac.compare_digest(mac, self._mac(payload)):
            return False
        ends: float = struct.unpack("!d", payload[:8])[0]
        return now < ends

    def _mac(self, payload: bytes) -> bytes:
        return hmac.digest(self._key, payload, hashlib.sha256)[
            :26
        ]  # 42 bytes: base64 without padding, so one text per token


class Metadata:
    """What the tree of one instance holds at a moment."""

    def __init__(self, region: Region, instance: Instance, feed: Feed) -> None:
        self.region = region
        self.instance = instance
        self.feed = feed
        self.lag_ms = 0
        # The instance role: whether there is one, and the credentials that it gives now.
        self.has_role = True
        self.credentials_life_s = CREDENTIALS_LIFE_S
        self.access_key_id = instance.access_key_id
        self._token = secrets.token_urlsafe(96)

    def associations(self) -> dict[str, list[str]]:
        """Public address to private addresses of this interface, as the service knows it now."""
        rows = self.feed.rows if self.lag_ms == 0 else self.feed.at(clock.monotonic() - self.lag_ms / 1000)
        found: dict[str, list[str]] = {}
        for row in rows.values():
            if row["network_interface_id"] == self.instance.network_interface_id:
                found.setdefault(row["public_ip"], []).append(row["private_ip"])
        return found

    def _interface(self, associations: dict[str, list[str]]) -> Tree:
        one = self.instance
        tree: Tree = {
            "device-number": "0",
            "interface-id": one.network_interface_id,
            "local-hostname": self._hostname(),
            "local-ipv4s": "\n".join((one.private_ip, *one.secondary_ips)),
            "mac": one.mac,
            "owner-id": self.region.account_id,
            "security-groups": one.security_group,
            "subnet-id": one.subnet_id,
            "subnet-ipv4-cidr-block": one.subnet_cidr,
            "vpc-id": self.region.vpc_id,
            "vpc-ipv4-cidr-block": self.region.vpc_cidr,
            "vpc-ipv4-cidr-blocks": self.region.vpc_cidr,
        }
        if associations:
            tree["ipv4-associations"] = {public: "\n".join(private) for public, private in associations.items()}
            tree["public-ipv4s"] = "\n".join(associations)
        return tree

    def _hostname(self) -> str:
        return f"ip-{self.instance.private_ip.replace('.', '-')}.{self.region.region}.compute.internal"

    def tree(self) -> Tree:
        """The whole of /latest: a dict is a directory, a text is a file."""
        one, associations = self.instance, self.associations()
        meta: Tree = {
            "ami-id": one.image_id,
            "ami-launch-index": "0",
            "hostname": self._hostname(),
            "instance-action": "none",
            "instance-id": one.instance_id,
            "instance-life-cycle": "on-demand",
            "instance-type": one.instance_type,
            "local-hostname": self._hostname(),
            "local-ipv4": one.private_ip,
            "mac": one.mac,
            "network": {"interfaces": {"macs": {one.mac: self._interface(associations)}}},
            "placement": {"availability-zone": one.availability_zone, "region": self.region.region},
            "security-groups": one.security_group,
            "services": {"domain": "amazonaws.com", "partition": "aws"},
        }
        if self.has_role:
            meta["iam"] = {"info": self._iam_info(), "security-credentials": {one.role: self._credentials()}}
        primary = [public for public, private in associations.items() if one.private_ip in private]
        if primary:
            meta["public-ipv4"] = primary[0]
        return {"dynamic": {"instance-identity": {"document": self._document()}}, "meta-data": meta}

    def _iam_info(self) -> str:
        profile = f"arn:aws:iam::{self.region.account_id}:instance-profile/{self.instance.role}"
        info = {"Code": "Success", "LastUpdated": _stamp(0), "InstanceProfileArn": profile}
        return json.dumps(info | {"InstanceProfileId": "AIPALAB0000000000000"}, indent=2)

    def _credentials(self) -> str:
        credentials = {
            "Code": "Success",
            "LastUpdated": _stamp(0),
            "Type": "AWS-HMAC",
            "AccessKeyId": self.access_key_id,
            "SecretAccessKey": self.instance.secret_access_key,
            "Token": self._token,
            "Expiration": _stamp(self.credentials_life_s),
        }
        return json.dumps(credentials, indent=2)

    def _document(self) -> str:
        one = self.instance
        nothing = dict.fromkeys(
            ("billingProducts", "devpayProductCodes", "marketplaceProductCodes", "kernelId", "ramdiskId")
        )
        document = nothing | {
            "accountId": self.region.account_id,
            "architecture": "x86_64",
            "availabilityZone": one.availability_zone,
            "imageId": one.image_id,
            "instanceId": one.instance_id,
            "instanceType": one.instance_type,
            "pendingTime": one.launch_time,
            "privateIp": one.private_ip,
            "region": self.region.region,
            "version": "2017-09-30",
        }
        return json.dumps(document, indent=2, sort_keys=True)


def _stamp(ahead_s: int) -> str:
    """EC2 writes these times without fractions."""
    return clock.wall_text(int(clock.wall()) + ahead_s).replace(".000Z", "Z")


class Imds:
    """Answers for one instance; `powered` False means silence, as from a machine that is off."""

    def __init__(self, metadata: Metadata) -> None:
        self.metadata = metadata
        self.powered = True
        self._tokens = Tokens()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: one request, one answer (a callback for `asyncio.start_server`)."""
        try:
            request = await read_request(reader, writer)
            if not self.powered:
                await reader.read()
            elif request is not None:
                writer.write(self.answer(request).encode(connection="close"))
                await writer.drain()
        except WireError:
            writer.write(_page(400).encode(connection="close"))
        except OSError:
            pass
        finally:
            writer.close()

    def answer(self, request: Message) -> Message:
        """The response to a request, without any input or output."""
        method, path = request.start[0], request.start[1].partition("?")[0]
        if method == "PUT":
            return self._session(request, path)
        if method != "GET":
            return _page(405, [("Allow", "GET, PUT")])
        if not self._tokens.valid(request.header("x-aws-ec2-metadata-token"), clock.monotonic()):
            return _page(401)
        return self._get(path)

    def _session(self, request: Message, path: str) -> Message:
        if path != "/latest/api/token":
            return _page(405, [("Allow", "GET")])
        if request.has("x-forwarded-for"):
            return _page(403)
        ttl = request.header(TTL_HEADER)
        if not (ttl.isascii() and ttl.isdigit() and len(ttl) <= 5 and 1 <= int(ttl) <= TTL_MAX_S):
            return _page(400)
        token = self._tokens.make(int(ttl), clock.monotonic())
        return _text(token, [("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", ttl)])

    def _get(self, path: str) -> Message:
        words = path.split("/")[1:]
        if words == [""]:
            return _text("\n".join(VERSIONS))
        node: Any = self.metadata.tree() if words[0] in VERSIONS else None
        for word in words[1:-1] if words[-1] == "" else words[1:]:
            node = node.get(word) if isinstance(node, dict) else None
        if node is None or (isinstance(node, str) and words[-1] == ""):
            return _page(404)
        if isinstance(node, str):
            return _text(node)
        if words[-1] != "":
            return _page(301, [("Location", f"{path}/")])
        return _text("\n".join(f"{name}/" if isinstance(child, dict) else name for name, child in sorted(node.items())))


def _text(body: str, headers: list[tuple[str, str]] | None = None) -> Message:
    fixed = [("Content-Type", "text/plain"), ("Server", "EC2ws")]
    return Message(("HTTP/1.1", "200", "OK"), fixed + (headers or []), body.encode())


def _page(status: int, headers: list[tuple[str, str]] | None = None) -> Message:
    body = _PAGE.format(status=status, reason=_REASONS[status])
    fixed = [("Content-Type", "text/html"), ("Server", "EC2ws")]
    return Message(("HTTP/1.1", str(status), _REASONS[status]), fixed + (headers or []), body.encode())

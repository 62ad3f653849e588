"""The fault switch: an HTTP proxy in front of the cloud's API that can be told to misbehave, and keeps a record.

A rule says what happens (`mode`), to which calls (API action, access key, client address; all that are given must
fit), how often (`count`) and when: `before` the cloud sees the call, or `after` it was carried out, so that only the
answer is lost. The first rule that fits wins. Modes:

    pass      nothing happens (a rule that takes calls out of later ones)
    hang      the connection stays open and never gets an answer
    throttle  503 RequestLimitExceeded (EC2), 400 Throttling or ThrottlingException (other protocols)
    error     500 InternalError
    deny      the policy of the caller does not allow the action: 403 UnauthorizedOperation, 400 AccessDeniedException
    expire    the temporary credentials are past their end: 400 RequestExpired (EC2), ExpiredToken (other protocols)
    reset     the connection is reset (RST)
    slow      the call takes `slow_ms` more

Without any rule, a request that was signed more than five minutes from now is refused as AWS refuses it: the clock of
the machine that sent it is wrong.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
from collections import deque
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs, urlsplit

from haptk.errors import OperatorError
from haptk.io import clock
from haptk.lab.httpwire import HEAD_MAX, Message, WireError, read_request, read_response, wants_close

MODES = ("pass", "hang", "throttle", "error", "deny", "expire", "reset", "slow")
WHEN = ("before", "after")
REASONS = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 502: "Bad Gateway", 503: "Service Unavailable"}
CALLS_MAX = 10_000
SIGNATURE_LIFE_S = 300
_CREDENTIAL = re.compile(r"Credential=([^/,\s]+)/\d+/([^/,\s]+)/([^/,\s]+)/")


@dataclass
class Rule:
    """One fault; see the module's text. `count` None is without end, `source` is the client's IP address."""

    mode: str
    action: str | None = None
    access_key_id: str | None = None
    source: str | None = None
    count: int | None = None
    when: str = "before"
    slow_ms: int = 0
    id: int = 0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise OperatorError(what=f"fault mode {self.mode!r} is unknown; there are {', '.join(MODES)}")
        if self.when not in WHEN:
            raise OperatorError(what=f"fault when={self.when!r} is unknown; there are {', '.join(WHEN)}")
        for name in ("action", "access_key_id", "source"):
            if not isinstance(getattr(self, name), str | None):
                raise OperatorError(what=f"fault {name} has to be a text, not {getattr(self, name)!r}")
        if self.count is not None and (type(self.count) is not int or self.count < 1):
            raise OperatorError(what=f"fault count has to be a whole number from 1, not {self.count!r}")
        if type(self.slow_ms) is not int or not 0 <= self.slow_ms <= 600_000:
            raise OperatorError(what=f"fault slow_ms has to be from 0 to 600000, not {self.slow_ms!r}")
        if (self.mode == "slow") != (self.slow_ms > 0):
            raise OperatorError(what="slow_ms is for mode slow, which needs it")

    def fits(self, call: Call) -> bool:
        return all(
            wanted is None or wanted == found
            for wanted, found in (
                (self.action, call.action),
                (self.access_key_id, call.access_key_id),
                (self.source, call.source),
            )
        )


@dataclass
class Call:
    """One API call as it was seen; times are CLOCK_MONOTONIC seconds, `answered_monotonic_s` is None while (or if never)."""

    index: int
    arrived_monotonic_s: float
    source: str
    action: str
    access_key_id: str
    service: str
    answered_monotonic_s: float | None = None
    status: int | None = None
    fault: str | None = None


def identify(request: Message) -> tuple[str, str, str]:
    """(action, access key id, service) of a request of any AWS protocol; empty where it does not say."""
    found = _CREDENTIAL.search(request.header("authorization"))
    key, service = (found[1], found[3]) if found else ("", "")
    target = request.header("x-amz-target")
    if target:
        return target.rpartition(".")[2], key, service or target.partition("_")[0].lower()
    form = parse_qs(urlsplit(request.start[1]).query)
    if request.header("content-type").startswith("application/x-www-form-urlencoded"):
        form |= parse_qs(request.body.decode("latin-1"))
    return form.get("Action", [request.start[0]])[0], key, service


def refusal(request: Message, service: str, status: int, code: str, message: str) -> Message:
    """The error as this service's protocol says it: EC2 XML, query XML, or JSON."""
    serial = "00000000-0000-4000-8000-000000000000"
    content_type = "text/xml;charset=UTF-8"
    target = request.header("x-amz-target")
    if target or "json" in request.header("content-type"):
        content_type = request.header("content-type") if target else "application/json"
        body = json.dumps({"__type": code, "message": message})
    elif service == "ec2":
        error = f"<Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>"
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Response>{error}<RequestID>{serial}</RequestID></Response>'
    else:
        error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
        body = f"<ErrorResponse>{error}<RequestId>{serial}</RequestId></ErrorResponse>"
    headers = [
        ("Content-Type", content_type),
        ("x-amzn-RequestId", serial),
        ("x-amzn-ErrorType", code),
        ("Date", formatdate(clock.wall(), usegmt=True)),
    ]
    return Message(("HTTP/1.1", str(status), REASONS.get(status, "Internal Server Error")), headers, body.encode())


def throttled(request: Message, service: str) -> Message:
    if service == "ec2":
        return refusal(request, service, 503, "RequestLimitExceeded", "Request limit exceeded.")
    code = "ThrottlingException" if request.has("x-amz-target") else "Throttling"
    return refusal(request, service, 400, code, "Rate exceeded")


def denied(request: Message, call: Call) -> Message:
    """As IAM refuses: EC2 adds an encoded message of a kilobyte that only DecodeAuthorizationMessage can read."""
    who = f"arn:aws:sts::123456789012:assumed-role/{call.access_key_id}"
    said = (
        f"{who} is not authorized to perform: {call.service}:{call.action} because no identity-based policy allows it."
    )
    if call.service == "ec2":
        said = f"You are not authorized to perform this operation. User: {said}"
        return refusal(
            request,
            call.service,
            403,
            "UnauthorizedOperation",
            f"{said} Encoded authorization failure message: {'A' * 900}",
        )
    if request.has("x-amz-target"):
        return refusal(request, call.service, 400, "AccessDeniedException", f"User: {said}")
    return refusal(request, call.service, 403, "AccessDenied", f"User: {said}")


def expired(request: Message, service: str) -> Message:
    if service == "ec2":
        return refusal(request, service, 400, "RequestExpired", "Request has expired.")
    code = "ExpiredTokenException" if request.has("x-amz-target") else "ExpiredToken"
    status = 400 if request.has("x-amz-target") else 403
    return refusal(request, service, status, code, "The security token included in the request is expired")


def wrong_clock(request: Message, service: str, now: float) -> Message | None:
    """AWS's refusal of a request signed too far from `now` (Unix seconds), by X-Amz-Date; None when that is near enough."""
    stamp = request.header("x-amz-date")
    try:
        signed = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
    late = now - signed
    if abs(late) <= SIGNATURE_LIFE_S:
        return None
    if service == "ec2":
        if late > 0:
            return refusal(request, service, 400, "RequestExpired", "Request has expired.")
        said = "AWS was not able to validate the provided access credentials"
        return refusal(request, service, 401, "AuthFailure", said)
    server = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    said = (
        f"Signature expired: {stamp} is now earlier than {server} - 5 min."
        if late > 0
        else f"Signature not yet current: {stamp} is still later than {server} + 5 min."
    )
    if request.has("x-amz-target"):
        return refusal(request, service, 400, "InvalidSignatureException", said)
    return refusal(request, service, 403, "SignatureDoesNotMatch", said)


def reset(writer: asyncio.StreamWriter) -> None:
    """End the connection with RST: SO_LINGER 0, then close without flushing."""
    channel = writer.get_extra_info("socket")
    if channel is not None:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class _Ended(Exception):
    """The client's connection is over (hung until it left, or reset)."""


class Switch:
    """The rules, the record, and the proxy itself; one per lab."""

    def __init__(self, cloud_host: str, cloud_port: int) -> None:
        self._cloud = (cloud_host, cloud_port)
        self.rules: list[Rule] = []
        self.calls: deque[Call] = deque(maxlen=CALLS_MAX)
        self._next_call = 0
        self._next_rule = 1

    def add(self, **fields: Any) -> Rule:
        """A new rule behind the others; raises OperatorError with what is accepted."""
        known = set(Rule.__dataclass_fields__) - {"id"}
        unknown = set(fields) - known
        if unknown:
            raise OperatorError(what=f"fault has no {', '.join(sorted(unknown))}; it has {', '.join(sorted(known))}")
        if "mode" not in fields:
            raise OperatorError(what=f"fault needs a mode: {', '.join(MODES)}")
        rule = Rule(**fields)
        rule.id = self._next_rule
        self._next_rule += 1
        self.rules.append(rule)
        return rule

    def clear(self, rule_id: int | None = None) -> int:
        """Remove one rule or all; returns how many went. Calls that hang already stay lost."""
        before = len(self.rules)
        self.rules = [rule for rule in self.rules if rule_id is not None and rule.id != rule_id]
        return before - len(self.rules)

    def calls_since(self, index: int) -> list[dict[str, Any]]:
        """The kept calls from this index on; a call without `answered_monotonic_s` is still open or was never answered."""
        return [asdict(call) for call in self.calls if call.index >= index]

    @property
    def next_index(self) -> int:
        return self._next_call

    def _record(self, request: Message, source: str) -> Call:
        action, key, service = identify(request)
        call = Call(self._next_call, clock.monotonic(), source, action, key, service)
        self._next_call += 1
        self.calls.append(call)
        return call

    def _fault(self, call: Call) -> Rule | None:
        for rule in self.rules:
            if rule.fits(call):
                if rule.count is not None:
                    rule.count -= 1
                    if rule.count == 0:
                        self.rules.remove(rule)
                return rule
        return None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client connection, request after request (a callback for `asyncio.start_server`)."""
        peer = writer.get_extra_info("peername")
        source = peer[0] if peer else ""
        try:
            while (request := await read_request(reader, writer)) is not None:
                call = self._record(request, source)
                answer = await self._answer(request, call, reader, writer)
                close = wants_close(request)
                call.status, call.answered_monotonic_s = int(answer.start[1]), clock.monotonic()
                head_only = request.start[0] == "HEAD"
                writer.write(answer.encode(connection="close" if close else "keep-alive", empty=head_only))
                await writer.drain()
                if close:
                    break
        except (OSError, WireError, _Ended):
            pass
        finally:
            writer.close()

    async def _answer(
        self, request: Message, call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Message:
        refused = wrong_clock(request, call.service, clock.wall())
        if refused is not None:
            call.fault = "clock"
            return refused
        rule = self._fault(call)
        if rule is None or rule.mode == "pass":
            return await self._forward(request, call)
        call.fault = rule.mode if rule.when == "before" else f"{rule.mode} after"
        answer = await self._forward(request, call) if rule.when == "after" else None
        if rule.mode == "hang":
            await reader.read()  # until the client gives up
            raise _Ended
        if rule.mode == "reset":
            reset(writer)
            raise _Ended
        if rule.mode == "throttle":
            return throttled(request, call.service)
        if rule.mode == "error":
            return refusal(request, call.service, 500, "InternalError", "An internal error has occurred.")
        if rule.mode == "deny":
            return denied(request, call)
        if rule.mode == "expire":
            return expired(request, call.service)
        await asyncio.sleep(rule.slow_ms / 1000)
        return answer or await self._forward(request, call)

    async def _forward(self, request: Message, call: Call) -> Message:
        """The cloud's answer; 502 when it gives none. The cloud closes after each answer, so each call connects."""
        try:
            reader, writer = await asyncio.open_connection(*self._cloud, limit=HEAD_MAX)
            try:
                writer.write(request.encode(connection="close"))
                await writer.drain()
                return await read_response(reader, request.start[0])
            finally:
                writer.close()
        except (OSError, WireError) as error:
            return refusal(request, call.service, 502, "BadGateway", f"the lab's cloud does not answer: {error}")

"""The cloud of the lab: moto's server in a process of its own, with Elastic IPs that behave like EC2's.

    python -m haptk.lab.cloud --listen HOST:PORT [--die-with-parent [PID]]

Speaks the AWS protocols. No signature is checked; where HAPTK_LAB_TOKEN_FILE names the token of a lab (token.py), every
request needs it in its access key or its header, else any credentials do. When it listens it prints one line on stdout,
its URL, and nothing else ever; port 0 takes a free port. SIGTERM and SIGINT end it with code 0.

One request more than AWS has, answered from the same state:

    GET /_lab/associations?after=VERSION&timeout_ms=N

waits until the version is not VERSION any more (at most N ms, 60 s) and answers {"version", "addresses", "history"}:
who holds each address since when, and every change newer than VERSION (ledger.py). Times are CLOCK_MONOTONIC seconds.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

from haptk.errors import CannotBind, HaptkError, OperatorError
from haptk.io.process import die_with_parent
from haptk.lab import token

ASSOCIATIONS = "/_lab/associations"
BALANCING = "/elasticloadbalancing/"
WAIT_MAX_MS = 60_000
BACKLOG = 128


def parse_endpoint(text: str) -> tuple[str, int]:
    """`HOST:PORT` as (host, port); raises OperatorError that says what is accepted."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise OperatorError(what=f"{text!r} is not HOST:PORT with a port from 0 to 65535")
    return host, int(port)


def _answer_associations(environ: dict[str, Any], start_response: Callable[..., Any], ledger: Any) -> list[bytes]:
    query = parse_qs(environ.get("QUERY_STRING", ""))
    try:
        after = int(query.get("after", ["0"])[0])
        timeout_ms = min(max(int(query.get("timeout_ms", ["0"])[0]), 0), WAIT_MAX_MS)
        status, body = "200 OK", ledger.wait(after, timeout_ms / 1000)
    except ValueError:
        status, body = "400 Bad Request", {"error": "after and timeout_ms are whole numbers"}
    data = json.dumps(body).encode()
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(data)))])
    return [data]


def _refuse(start_response: Callable[..., Any]) -> list[bytes]:
    """EC2's answer to credentials that it does not know."""
    said = "AWS was not able to validate the provided access credentials"
    error = f"<Errors><Error><Code>AuthFailure</Code><Message>{said}</Message></Error></Errors>"
    data = f'<?xml version="1.0" encoding="UTF-8"?>\n<Response>{error}<RequestID>0</RequestID></Response>'.encode()
    start_response("401 Unauthorized", [("Content-Type", "text/xml"), ("Content-Length", str(len(data)))])
    return [data]


def _application(ledger: Any) -> Callable[..., Iterable[bytes]]:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    moto = DomainDispatcherApplication(create_backend_app)
    wanted = token.current()
    first = threading.Lock()

    def correct_balancing() -> None:
        """Only whoever asks for a load balancer pays for that part of moto (0.2 s)."""
        from haptk.lab import moto_elb

        with first:
            moto_elb.apply()

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not token.admits(wanted, environ):
            return _refuse(start_response)
        if environ.get("PATH_INFO") == ASSOCIATIONS:
            return _answer_associations(environ, start_response, ledger)
        if environ.get("PATH_INFO", "").startswith("/moto-api/"):
            with ledger.changing():  # a reset frees all addresses at once
                return list(moto(environ, start_response))
        if BALANCING in environ.get("HTTP_AUTHORIZATION", ""):
            correct_balancing()
        answer: Iterable[bytes] = moto(environ, start_response)
        return answer

    return application


def _warm_up(application: Callable[..., Iterable[bytes]]) -> None:
    """Answer one call inside: it loads EC2's service model (0.4 s), which the first client would wait for."""
    from werkzeug.test import Client

    key = token.access_key_id("cloud")
    scope = f"AWS4-HMAC-SHA256 Credential={key}/20260101/us-east-1/ec2/aws4_request, SignedHeaders=host, Signature=0"
    form = {"Action": "DescribeAddresses", "Version": "2016-11-15"}
    Client(application).post("/", data=form, headers={"Authorization": scope})


def _bound(listen: str) -> socket.socket:
    host, port = parse_endpoint(listen)
    channel = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        channel.bind((host, port))
        channel.listen(BACKLOG)
    except OSError as error:
        channel.close()
        raise CannotBind(address=listen, why=error.strerror or str(error)) from error
    return channel


def _server(channel: socket.socket) -> Any:
    os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"  # 600 images nobody here starts cost 0.3 s and 20 MB
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)

    from moto.moto_server.werkzeug_app import MotoRequestHandler
    from werkzeug.serving import make_server

    from haptk.lab import moto_fixes, moto_more

    class Handler(MotoRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = 65536  # head and body leave in one segment

        def log(self, type: str, message: str, *args: Any) -> None:
            """Calls are recorded by the proxy in front (faults.py), which knows more about them."""

    moto_more.apply()
    application = _application(moto_fixes.apply())
    host, port = channel.getsockname()
    return make_server(host, port, application, threaded=True, request_handler=Handler, fd=channel.fileno())


def _exit(_signal: int, _frame: object) -> None:
    raise SystemExit(0)


def serve(listen: str) -> None:
    """Run until SIGTERM or SIGINT; raises OperatorError or CannotBind.

    It listens before it loads moto, so that its first clients can start meanwhile: their calls wait a second.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)
    with _bound(listen) as channel:
        print("http://{}:{}".format(*channel.getsockname()), flush=True)
        server = _server(channel)

    def stop(_signal: int, _frame: object) -> None:
        # shutdown() waits for the loop that this handler interrupts, so it needs a thread
        threading.Thread(target=server.shutdown, daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    threading.Thread(target=_warm_up, args=(server.app,), daemon=True).start()
    with server:
        server.serve_forever(poll_interval=0.05)


def main(argv: list[str] | None = None) -> int:
    """The process: returns the exit code; an error is one line on stderr."""
    parser = argparse.ArgumentParser(prog="haptk-lab-cloud", description="moto with correct Elastic IPs")
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    parser.add_argument("--die-with-parent", nargs="?", type=int, const=-1, metavar="PID")
    options = parser.parse_args(argv)
    try:
        if options.die_with_parent is not None:
            die_with_parent(parent_pid=None if options.die_with_parent < 0 else options.die_with_parent)
        serve(options.listen)
    except HaptkError as error:
        print(f"haptk-lab-cloud: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

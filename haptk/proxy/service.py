"""Requests that the control plane answers: read from the workers by one thread, answered, and handed back.

The workers (and the reference's sessions) only pass a request over and wait; what it means is decided by the `handle`
that the desk is given. A request that cannot be answered becomes a 500, never a session that waits for ever.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from haptk.proxy.pages import REASONS

STATS, METRICS = 1, 2  # as service.pxd's ServiceId
SERVICES = {"prometheus-exporter": METRICS}  # by their names in `http-request use-service`
BUSY_LIMIT = 256  # requests waiting here; more are answered with 503 at once
log = logging.getLogger("haptk.proxy")


@dataclass
class Ask:
    """One request. `backend` is the index of the backend whose statistics are meant, -1 for the frontend's own."""

    service: int
    frontend: int
    backend: int
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    peer: str = ""
    minor: int = 1
    keep: bool = True

    def header(self, name: str) -> str:
        """The first value of a header, "" when there is none."""
        return next((value for key, value in self.headers if key == name), "")


@dataclass
class Answer:
    """One response; `content-length` and `connection` are added when it is written."""

    status: int
    body: bytes = b""
    headers: list[tuple[str, str]] = field(default_factory=list)

    def wire(self, ask: Ask) -> bytes:
        """The response as bytes."""
        lines = [f"HTTP/1.1 {self.status} {REASONS.get(self.status, 'Other')}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        lines.append(f"content-length: {len(self.body)}")
        if not ask.keep:
            lines.append("connection: close")
        elif ask.minor == 0:
            lines.append("connection: keep-alive")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
        return head if ask.method == "HEAD" else head + self.body


Handle = Callable[[Ask], Answer]


def ask_of(request: Any) -> Ask:
    """A compiled worker's request; its head was parsed strictly there, so that cutting it at the lines is safe."""
    lines = request.head.decode("latin-1").lstrip("\r\n").replace("\r\n", "\n").split("\n")
    method, target, _ = lines[0].split(" ", 2)
    pairs = (line.partition(":") for line in lines[1:] if line)
    headers = [(name.lower(), value.strip(" \t")) for name, _, value in pairs]
    return Ask(
        request.service, request.frontend, request.backend, method, target, headers, request.body, request.peer,
        request.minor, request.keep,
    )  # fmt: skip


def answer_safely(handle: Handle, ask: Ask) -> Answer:
    """What `handle` says; a 500 when it fails."""
    try:
        return handle(ask)
    except Exception:
        log.exception("a request for %s could not be answered", ask.target)
        return Answer(
            500, b"<html><body><h1>500 Internal Server Error</h1></body></html>\n", [("content-type", "text/html")]
        )


UNAVAILABLE = Answer(503, b"<html><body><h1>503 Service Unavailable</h1></body></html>\n")


class Desk:
    """Serves `workers` with `handle`: `start` once, `stop` after the workers have ended."""

    def __init__(self, workers: Sequence[Any], handle: Handle) -> None:
        self.workers = workers
        self.handle = handle
        self._thread: threading.Thread | None = None
        self._ours, self._wake = socket.socketpair()

    def start(self) -> None:
        """Begin to answer."""
        self._thread = threading.Thread(target=self._run, name="service", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; what is still asked is answered with 500 by its worker."""
        self._wake.send(b"x")
        if self._thread is not None:
            self._thread.join(timeout=5.0)
        self._ours.close()
        self._wake.close()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._ours, selectors.EVENT_READ)
            for worker in self.workers:
                selector.register(worker.service_fd, selectors.EVENT_READ, worker)
            while True:
                for key, _ in selector.select():
                    if key.data is None:
                        return
                    self._serve(key.data.requests())

    def _serve(self, requests: list[Any]) -> None:
        for number, request in enumerate(requests):
            if request.abandoned:
                continue  # dropping it gives it back
            try:
                self._answer(request, busy=number >= BUSY_LIMIT)
            except Exception:  # one request must not end the service; dropping it gives it back
                log.exception("a request to the control plane was dropped")

    def _answer(self, request: Any, *, busy: bool) -> None:
        ask = ask_of(request)
        answer = UNAVAILABLE if busy else answer_safely(self.handle, ask)
        request.answer(answer.status, answer.wire(ask))

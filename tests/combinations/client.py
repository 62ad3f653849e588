"""One client: plays steps, reads answers, says what it got."""

from __future__ import annotations

import select
import socket
import time
import zlib

from tests.combinations.servers import FILL, reset


class Answers:
    """Parses responses as they come; what is no response ends the parsing and is kept as it is."""

    def __init__(self, methods):
        self.methods, self.data, self.done, self.finals, self.raw = methods, b"", [], 0, False
        self.head = self.need = self.chunks = None
        self.body = []

    def feed(self, data):
        self.data += data
        while not self.raw and self.step():
            pass

    def step(self):
        if self.head is None:
            at = self.data.find(b"\r\n\r\n")
            if at < 0:
                return False
            if not self.data.startswith(b"HTTP/1."):
                self.raw = True
                return False
            self.head = self.data[:at].decode("latin-1").split("\r\n")
            self.data = self.data[at + 4 :]
            status = self.head[0].split(" ")[1]
            fields = [x.split(":", 1) for x in self.head[1:]]
            get = {n.lower(): v.strip() for n, *v in fields for v in v}
            method = self.methods[self.finals] if self.finals < len(self.methods) else "GET"
            self.body, self.chunks = [], False
            if status.startswith("1") and status != "101":
                self.need = 0
            elif status == "101":
                self.raw = True
                return self.finish("101", True)
            elif method == "HEAD" or status in ("204", "304"):
                self.need = 0
            elif "chunked" in get.get("transfer-encoding", ""):
                self.chunks, self.need = True, None
            elif get.get("content-length", "").isdigit():
                self.need = int(get["content-length"])
            else:
                self.need = -1
            if self.need == 0:
                return self.finish("whole", not status.startswith("1"))
        if self.chunks:
            if self.need is None:
                at = self.data.find(b"\r\n")
                if at < 0:
                    return False
                try:
                    size = int(self.data[:at].split(b";")[0], 16)
                except ValueError:
                    self.raw = True
                    return False
                if size == 0:
                    end = at if self.data[at : at + 4] == b"\r\n\r\n" else self.data.find(b"\r\n\r\n", at)
                    if end < 0:
                        return False
                    trailers = self.data[at + 2 : end].decode("latin-1")
                    self.data = self.data[end + 4 :]
                    return self.finish("chunks" + trailers, True)
                self.data, self.need = self.data[at + 2 :], size + 2
            if len(self.data) < self.need:
                return False
            self.body.append(self.data[: self.need - 2])
            self.data, self.need = self.data[self.need :], None
            return True
        if self.need == -1:
            self.body.append(self.data)
            self.data = b""
            return False
        if len(self.data) < self.need:
            return False
        self.body.append(self.data[: self.need])
        self.data = self.data[self.need :]
        return self.finish("whole", True)

    def finish(self, how, final):
        whole = b"".join(self.body)
        self.done.append({"head": self.head, "body": [len(whole), zlib.crc32(whole), how]})
        if len(whole) < 400 and not any(
            whole[i : i + 20] in FILL[:200] for i in range(0, len(whole), 20) if whole[i : i + 20]
        ):
            self.done[-1]["text"] = whole.decode("latin-1")
        self.head = self.need = None
        self.finals += final
        return True

    def result(self):
        out = list(self.done)
        if self.head is not None:
            whole = b"".join(self.body) + (self.data if not self.chunks else b"")
            out.append(
                {"head": self.head, "body": [len(whole), zlib.crc32(whole), "close" if self.need == -1 else "cut"]}
            )
            if self.need != -1:  # how much of a torn answer passed is a matter of timing
                out[-1]["body"][:2] = ["?", "?"]
        elif self.data:
            out.append(
                {"head": ["RAW"], "body": [len(self.data), zlib.crc32(self.data), self.data[:100].decode("latin-1")]}
            )
        return out


def play(port, session, limit=3.5):
    """What the client got: answers, how the connection ended."""
    sock = socket.create_connection(("127.0.0.1", port), 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(False)
    answers, steps, out, end = Answers(session["methods"]), list(session["steps"]), b"", ""
    wake, shut, stalled, done_at = 0.0, False, time.monotonic() + limit, None
    wait = 0
    while True:
        now = time.monotonic()
        while not out and not shut and steps and now >= wake and answers.finals >= wait:
            step = steps.pop(0)
            if step[0] == "send":
                out = step[1].encode("latin-1")
            elif step[0] == "fill":
                out = FILL[: step[1]]
            elif step[0] == "pause":
                wake = now + step[1] / 1000
            elif step[0] == "wait":
                wait = step[1]
            elif step[0] == "rst":
                reset(sock)
                return {"answers": answers.result(), "end": "we reset"}
            elif step[0] == "fin":
                try:
                    sock.shutdown(socket.SHUT_WR)
                except OSError:
                    end = "rst"
                shut = True
            # neighbours leave in one write
            while out and steps and steps[0][0] in ("send", "fill") and len(out) < 600000:
                step = steps.pop(0)
                out += step[1].encode("latin-1") if step[0] == "send" else FILL[: step[1]]
        if not steps and not out and answers.finals >= len(session["methods"]) and done_at is None:
            last = answers.done[-1]["head"] if answers.done else []
            closing = any(x.lower() == "connection: close" for x in last) or (last and last[0].startswith("HTTP/1.0"))
            done_at = now + (1.0 if closing or shut else 0.08)
        if end or now >= stalled or (done_at and now >= done_at):
            break
        timeout = min(x for x in (stalled, done_at or stalled, wake if wake > now else stalled) if x) - now
        r, w, _ = select.select([sock], [sock] if out else [], [], max(0, min(timeout, 0.5)))
        if r:
            try:
                data = sock.recv(262144)
            except BlockingIOError:
                data = None
            except OSError:
                end = "rst"
                break
            if data == b"":
                end = "fin"
                break
            if data:
                stalled = time.monotonic() + limit
                answers.feed(data)
        if w:
            try:
                sent = sock.send(out)
                out = out[sent:]
                stalled = time.monotonic() + limit
            except BlockingIOError:
                pass
            except OSError:
                out, steps = b"", []  # the other side is gone; what it said may still be read
    sock.close()
    hang = not end and not (done_at and time.monotonic() >= done_at)
    return {"answers": answers.result(), "end": end or ("hang" if hang else "open")}

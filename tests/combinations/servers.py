"""Servers that do what the plan of a request says, and remember what they were sent."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
import zlib

FILL = bytes(range(33, 127)) * 5000  # 470,000 bytes
DEFAULT = {"early": False, "steps": [["send", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"]], "end": "keep"}
V2 = b"\r\n\r\n\0\r\nQUIT\n"


def reset(sock):
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class Gone(Exception):
    """The peer ended in the middle of something."""


class Reader:
    def __init__(self, sock):
        self.sock, self.rest = sock, b""

    def more(self):
        try:
            data = self.sock.recv(262144)
        except (ConnectionError, TimeoutError) as problem:
            raise Gone(type(problem).__name__) from None
        if not data:
            raise Gone("fin")
        self.rest += data

    def until(self, mark):
        start = 0
        while (at := self.rest.find(mark, start)) < 0:
            start = max(0, len(self.rest) - len(mark))
            self.more()
        out, self.rest = self.rest[: at + len(mark)], self.rest[at + len(mark) :]
        return out

    def exactly(self, n):
        while len(self.rest) < n:
            self.more()
        out, self.rest = self.rest[:n], self.rest[n:]
        return out


def take_body(reader, lines):
    """(length, crc, ended well)"""
    names = {x.split(":", 1)[0].lower().strip(): x.split(":", 1)[1].strip() for x in lines[1:] if ":" in x}
    body, trailers = [], ""
    try:
        if "chunked" in names.get("transfer-encoding", "").lower():
            while True:
                n = int(reader.until(b"\r\n").split(b";")[0].strip() or b"0", 16)
                if n == 0:
                    while (line := reader.until(b"\r\n")) != b"\r\n":
                        trailers += line.decode("latin-1")
                    break
                body.append(reader.exactly(n))
                reader.exactly(2)
        elif names.get("content-length", "").isdigit():
            body.append(reader.exactly(int(names["content-length"])))
        return [sum(map(len, body)), zlib.crc32(b"".join(body)), "whole" + trailers]
    except Gone:
        return [0, 0, "cut"]
    except ValueError:
        return [0, 0, "bad"]


class Servers:
    """Listens at every port of `ports`; `seen` is by plan what arrived, in order."""

    def __init__(self, ports):
        self.sockets, self.plans, self.seen, self.lock, self.stopped = {}, {}, {}, threading.Lock(), False
        for name, port in ports.items():
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))
            sock.listen(64)
            self.sockets[name] = sock
            threading.Thread(target=self.accept, args=(name, sock), daemon=True).start()
        self.open = set()

    def restart(self, plans):
        with self.lock:
            for sock in self.open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            self.plans, self.seen, self.open = plans, {}, set()

    def accept(self, name, sock):
        while True:
            try:
                conn, _ = sock.accept()
            except OSError:
                return
            with self.lock:
                self.open.add(conn)
            threading.Thread(target=self.serve, args=(name, conn), daemon=True).start()

    def serve(self, name, conn):
        conn.settimeout(20)
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader, proxied, number = Reader(conn), "", 0
        try:
            while len(reader.rest) < 12 and not (reader.rest and reader.rest[:1] not in b"\rP"):
                reader.more()
            if reader.rest.startswith(V2):
                head = reader.exactly(16)
                proxied = "v2 " + head[12:14].hex() + " " + reader.exactly(int.from_bytes(head[14:16], "big"))[:8].hex()
            elif reader.rest.startswith(b"PROXY "):
                proxied = " ".join(reader.until(b"\r\n").decode("latin-1").split()[:4])
            while self.one(name, conn, reader, proxied, number):
                number += 1
        except (Gone, OSError):
            with contextlib.suppress(OSError):
                conn.close()

    def one(self, name, conn, reader, proxied, number):
        lines = reader.until(b"\r\n\r\n").decode("latin-1").split("\r\n")[:-2]
        plan = next((x.split(":", 1)[1].strip() for x in lines if x.lower().startswith("x-plan:")), "")
        with self.lock:
            seen = self.seen.setdefault(plan, [])
            choices = self.plans.get(plan)
            todo = choices[min(len(seen), len(choices) - 1)] if choices else DEFAULT
            record = {"server": name, "proxy": proxied, "head": lines, "body": [0, 0, "unread"], "later": number > 0}
            seen.append(record)
        if not todo["early"]:
            record["body"] = take_body(reader, lines)
            if record["body"][2] in ("cut", "bad"):
                raise Gone("body")
        for step in todo["steps"]:
            if step[0] == "send":
                conn.sendall(step[1].encode("latin-1"))
            elif step[0] == "fill":
                conn.sendall(FILL[: step[1]])
            else:
                time.sleep(step[1] / 1000)
        if todo["end"] == "rst":
            time.sleep(0.01)
            reset(conn)
            return False
        if todo["end"] == "fin":
            with contextlib.suppress(OSError):
                conn.shutdown(socket.SHUT_WR)
            conn.settimeout(1)
            with contextlib.suppress(Gone):
                while True:
                    reader.rest = b""
                    reader.more()
            conn.close()
            return False
        if todo["early"]:
            record["body"] = take_body(reader, lines)
            if record["body"][2] in ("cut", "bad"):
                raise Gone("body")
        return True

    def close(self):
        self.restart({})
        for sock in self.sockets.values():
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # wakes who accepts
            sock.close()

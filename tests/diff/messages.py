"""Messages by production of HTTP/1's grammar: for each a systematic list of variants, right and wrong.

`families()` gives name -> messages. Each family is one production (RFC 9112, RFC 9110, RFC 3986), so that a difference
is told as "family, variant".
"""

# ruff: noqa: E501 (tables of bytes)
from __future__ import annotations

import itertools
from collections.abc import Iterator

from tests.diff.wire_stage import ANSWER, NEXT, Message

OKAY = b"HTTP/1.1 200 OK\r\n"
# One of each class of bytes that a parser may tell from its neighbours.
BYTES = [*range(0, 34), *b"\"#%&'()*+,-./09:;<=>?@AZ[\\]^_`az{|}~", 0x7F, 0x80, 0x85, 0xA0, 0xC3, 0xFF]
SIZES = [b"0" * n + b"5" for n in (0, 1, 2, 6, 7, 8, 9, 14, 15, 16, 17, 20, 40)]


def request(*lines: bytes, first: bytes = b"GET /p HTTP/1.1", host: bytes = b"a.b", body: bytes = b"") -> bytes:
    """A request with Host and these lines."""
    return b"\r\n".join([first, b"Host: " + host, *lines, b"", body])


def followed(raw: bytes, **more: object) -> Message:
    """A message with a harmless request behind it: whether and how that is seen tells how the first one was framed."""
    return Message(raw + NEXT, **more)  # type: ignore[arg-type]


def every_byte() -> Iterator[Message]:
    """Each class of bytes in and in place of each position of a small request."""
    base = b"GET /p?q=1 HTTP/1.1\r\nHost: a.b\r\nX-A: v w\r\n\r\n"
    for at in range(len(base)):
        for value in BYTES:
            byte = bytes([value])
            yield Message(base[:at] + byte + base[at:])
            if base[at : at + 1] != byte:
                yield Message(base[:at] + byte + base[at + 1 :])
    for at in range(len(base)):
        yield Message(base[:at] + base[at + 1 :])


def every_answer_byte() -> Iterator[Message]:
    """The same of a small response."""
    base = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-B: v w\r\n\r\nok"
    ask = request()
    for at in range(len(base) - 2):
        for value in BYTES:
            byte = bytes([value])
            yield Message(ask, answer=base[:at] + byte + base[at:], closes=True)
            if base[at : at + 1] != byte:
                yield Message(ask, answer=base[:at] + byte + base[at + 1 :], closes=True)


def sections(messages: Iterator[Message], *names: str) -> Iterator[Message]:
    """Each message in each of these sections."""
    for message in messages:
        for name in names:
            yield Message(message.request, name, message.answer, message.closes, message.piecewise)


LENGTHS = [b"5", b"05", b"+5", b"-5", b"5 ", b" 5", b"\t5", b"0x5", b"5,5", b"5, 5", b"5,6", b"5 5", b"", b",5", b"5,", b"5;q", b"five",
           b"00000000000000000000005", b"18446744073709551615", b"18446744073709551621", b"9223372036854775807", b"9223372036854775808",
           b"5.0", b"5e0", b"\x0b5", b"5\x00", b"0", b"00", b"0,0"]  # fmt: skip
CODINGS = [b"chunked", b"Chunked", b"CHUNKED", b" chunked ", b"chunked,", b",chunked", b"chunked, chunked", b"gzip", b"gzip, chunked",
           b"gzip,chunked", b"gzip ,chunked", b"gzip,, chunked", b"chunked, gzip", b"identity", b"identity, chunked", b"chunked;q=1", b"xchunked", b"chunkedx",
           b"", b"chunked\x00", b'"chunked"', b"chunked gzip", b"trailers, chunked", b"gzip;q=1, chunked", b"\x0bchunked", b"deflate, gzip, chunked",
           b"gzip, chunked, chunked", b"chunked, identity", b"chunked identity"]  # fmt: skip
CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"


def request_framing() -> Iterator[Message]:
    """Content-Length and Transfer-Encoding alone, twice and together, in both versions and with several methods."""
    for method in (b"POST", b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"TRACE", b"PUT", b"FOO"):
        for version in (b"1.1", b"1.0"):
            first = method + b" /p HTTP/" + version
            for length in (b"5", b"0"):
                yield followed(request(b"Content-Length: " + length, first=first, body=b"hello"[: int(length)]))
                yield followed(
                    request(
                        b"Content-Length: " + length,
                        b"Connection: keep-alive",
                        first=first,
                        body=b"hello"[: int(length)],
                    )
                )
            yield followed(request(b"Transfer-Encoding: chunked", first=first, body=CHUNKS))
            yield followed(request(first=first))
    first = b"POST /p HTTP/1.1"
    for value in LENGTHS:
        yield followed(request(b"Content-Length:" + value, first=first, body=b"hello"))
        yield followed(request(b"Content-Length: 5", b"Content-Length: " + value, first=first, body=b"hello"))
        yield followed(request(b"Content-Length: " + value, b"Content-Length: 5", first=first, body=b"hello"))
        yield followed(request(b"Content-Length: " + value, b"Transfer-Encoding: chunked", first=first, body=CHUNKS))
    for value in CODINGS:
        yield followed(request(b"Transfer-Encoding:" + value, first=first, body=CHUNKS))
        yield followed(request(b"Transfer-Encoding: " + value, b"Transfer-Encoding: chunked", first=first, body=CHUNKS))
        yield followed(request(b"Transfer-Encoding: chunked", b"Transfer-Encoding: " + value, first=first, body=CHUNKS))
        yield followed(request(b"Transfer-Encoding: " + value, b"Content-Length: 15", first=first, body=CHUNKS))
        yield followed(request(b"Content-Length: 15", b"Transfer-Encoding: " + value, first=first, body=CHUNKS))
        yield followed(request(b"Transfer-Encoding: " + value, first=b"POST /p HTTP/1.0", body=CHUNKS))
    for name in (b"Transfer_Encoding", b"Transfer-Encoding ", b" Transfer-Encoding", b"Transfer-Encoding\t", b"\tTransfer-Encoding", b"TRANSFER-ENCODING",
                 b"Transfer-Encoding\x0b", b"X:\nTransfer-Encoding", b"X: y\rTransfer-Encoding", b"X: y\n Transfer-Encoding", b"X: y\r\n Transfer-Encoding"):  # fmt: skip
        yield followed(request(name + b": chunked", first=first, body=CHUNKS))
        yield followed(request(name + b": chunked", b"Content-Length: 15", first=first, body=CHUNKS))
        yield followed(
            request(
                name.replace(b"ransfer", b"ontent").replace(b"T", b"C").replace(b"Encoding", b"Length") + b": 5",
                first=first,
                body=b"hello",
            )
        )


def answer_framing() -> Iterator[Message]:
    """The same of responses, and those that have no body whatever they say."""
    get, head = request(), request(first=b"HEAD /p HTTP/1.1")
    for value in LENGTHS:
        for lines in (
            [b"Content-Length:" + value],
            [b"Content-Length: 5", b"Content-Length: " + value],
            [b"Content-Length: " + value, b"Transfer-Encoding: chunked"],
        ):
            body = CHUNKS if len(lines) == 2 and b"Transfer" in lines[1] else b"hello"
            yield Message(get, answer=OKAY + b"\r\n".join([*lines, b"", body]), closes=True)
    for value in CODINGS:
        for lines in ([b"Transfer-Encoding:" + value], [b"Transfer-Encoding: " + value, b"Transfer-Encoding: chunked"], [b"Transfer-Encoding: chunked", b"Transfer-Encoding: " + value],
                      [b"Transfer-Encoding: " + value, b"Content-Length: 15"]):  # fmt: skip
            yield Message(get, answer=OKAY + b"\r\n".join([*lines, b"", CHUNKS]), closes=True)
            yield Message(head, answer=OKAY + b"\r\n".join([*lines, b"", b""]), closes=True)
            yield Message(get, answer=b"HTTP/1.0 200 OK\r\n" + b"\r\n".join([*lines, b"", CHUNKS]), closes=True)
            yield Message(
                request(first=b"GET /p HTTP/1.0"), answer=OKAY + b"\r\n".join([*lines, b"", CHUNKS]), closes=True
            )
    for status in (
        b"200",
        b"204",
        b"304",
        b"205",
        b"100",
        b"101",
        b"102",
        b"103",
        b"199",
        b"300",
        b"599",
        b"600",
        b"999",
        b"099",
        b"000",
        b"20",
        b"2000",
        b"1x1",
    ):
        for line in (
            b"X-B: b",
            b"Content-Length: 0",
            b"Content-Length: 5",
            b"Transfer-Encoding: chunked",
            b"Connection: upgrade\r\nUpgrade: x",
        ):
            raw = b"HTTP/1.1 " + status + b" Reason\r\n" + line + b"\r\n\r\n"
            for ask in (get, head):
                yield Message(ask, answer=raw, closes=True)
                yield Message(ask, answer=raw + ANSWER, closes=True)
                yield followed(ask, answer=raw)


def chunk_bodies() -> list[bytes]:
    """Chunked bodies of `hello`, right and wrong."""
    found = [size + b"\r\nhello\r\n0\r\n\r\n" for size in SIZES]
    found += [b"5\r\nhello\r\n" + b"0" * n + b"\r\n\r\n" for n in (1, 2, 8, 15, 16, 17, 30)]
    for size in (b"0x5", b"+5", b"-5", b" 5", b"5 ", b"5\t", b"\t5", b"", b"g", b"5g", b"5.", b"FFFFFFFF", b"FFFFFFFFFFFFFFFF", b"7fffffffffffffff", b"8000000000000000", b"10000000000000005", b"100000005",
                 b"5_", b"5,", b'5"', b"\x005", b"5\x00"):  # fmt: skip
        found.append(size + b"\r\nhello\r\n0\r\n\r\n")
    for blanks, extension in itertools.product(
        (b"", b" ", b"\t", b"  \t "),
        (
            b"",
            b";",
            b";a",
            b"; a",
            b" ;a",
            b";a=b",
            b'; a = "b;c"',
            b';a="b',
            b";a=\xff",
            b";a=\x01",
            b";a=\x00",
            b";" + b"a" * 300,
            b";" + b"a" * 1100,
            b";a\r",
            b";a\nb",
        ),
    ):
        found.append(b"5" + blanks + extension + b"\r\nhello\r\n0\r\n\r\n")
        found.append(b"5\r\nhello\r\n0" + blanks + extension + b"\r\n\r\n")
    for end in (b"\n", b"\r", b"\r\r\n", b"", b"\n\r", b"\r\n\r\n", b" \r\n", b"x\r\n"):
        found.append(b"5" + end + b"hello\r\n0\r\n\r\n")
        found.append(b"5\r\nhello" + end + b"0\r\n\r\n")
        found.append(b"5\r\nhello\r\n0" + end + b"\r\n")
        found.append(b"5\r\nhello\r\n0\r\n" + end)
    for trailer in (b"X: y", b"x", b"X : y", b" X: y", b"X: y\r\n Z: z", b": y", b"X: \x00", b"X: \xff", b"X:", b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Host: x", b"Connection: close",
                    b"X: " + b"y" * 3000, b"X: " + b"y" * 9000, b"X\xff: y", b"Cookie: a=b", b"X: y\r\nX: z"):  # fmt: skip
        found.append(b"5\r\nhello\r\n0\r\n" + trailer + b"\r\n\r\n")
    return found


def request_chunks() -> Iterator[Message]:
    """Chunked bodies of requests, come with the head and byte by byte."""
    for body in chunk_bodies():
        raw = request(b"Transfer-Encoding: chunked", first=b"POST /p HTTP/1.1", body=body)
        yield followed(raw)
        if len(body) < 60:
            yield followed(raw, piecewise=True)


def answer_chunks() -> Iterator[Message]:
    """Chunked bodies of responses, for clients of both versions."""
    for body in chunk_bodies():
        answer = OKAY + b"Transfer-Encoding: chunked\r\n\r\n" + body
        yield Message(request(), answer=answer, closes=True)
        yield Message(request(first=b"GET /p HTTP/1.0"), answer=answer, closes=True)


TARGETS = [b"/", b"/p", b"*", b"p", b"?", b"#", b"", b"//", b"///p", b"//a.b/p", b"/#f", b"/p#f", b"/p?q#f", b"/%", b"/%zz", b"/%00", b"/\\", b"/\"", b"/<>", b"/{}", b"/|", b"/^", b"/`", b"/[", b"/\x80", b"/\xff", b"/\x7f",
           b"/\x01", b"/../x", b"/./", b"/a:b", b"/a@b", b"/p;s=1", b"/" + b"p" * 3000, b"a.b:80", b"a.b", b"a.b:443", b"http:", b"http:/", b"http://", b"http:///", b"http://a.b", b"http://a.b/", b"http://a.b?q", b"http://a.b#f", b"http://a.b/p?q#f", b"HTTP://A.B/p", b"hTTp://a.b/p", b"https://a.b/p",
           b"ftp://a.b/p", b"h2+x.y-1://a.b/p", b"1http://a.b/p", b"+http://a.b/p", b"://a.b/p", b"/http://a.b/p", b"http://a.b:/p", b"http://a.b:80/p", b"http://a.b:080/p", b"http://a.b:443/p", b"https://a.b:443/p", b"http://a.b:8080/p", b"http://a.b:x/p", b"http://:80/p", b"http://u@a.b/p", b"http://u:p@a.b/p", b"http://c.d/p",
           b"http://[::1]/p", b"http://[::1]:80/p", b"http://[::1]:/p", b"http://[::1/p", b"http://::1/p", b"http://a.b./p", b"http://a.b/mon", b"http://a.b/secret", b"http://a.b//secret", b"http://c.d/mon", b"/mon", b"/mon?x", b"/mon/", b"/monx", b"/secret", b"/SECRET", b"//secret",
           b"/%73ecret", b"http://a.b /p", b"mailto:x", b"urn:x:y", b"about:blank", b"file:///etc", b"ws://a.b/p"]  # fmt: skip
HOSTS = [b"a.b", b"A.B", b"", b" a.b", b"a.b ", b"a.b:80", b"a.b:", b"a.b:443", b"a.b:8080", b"a.b:080", b"c.d", b"a.b.", b"[::1]", b"[::1]:80", b"[::1]:", b"::1", b"[::1", b"u@a.b", b"a.b/p", b"a b", b"a,b", b"a.b:x", b"a.b:99999",
         b"a.b#", b"a.b?", b"a\x00b", b"a\xffb", b"a\x01b", b"a%20b", b"a_b", b"-a", b".", b":80", b"xn--a", b"a\tb", b"a;b", b"(a)", b"a\"b", b"a\\b", b"a<b", b"a'b", b"a|b", b"a^b", b"127.0.0.1", b"a.b, c.d"]  # fmt: skip


def targets() -> Iterator[Message]:
    """Request targets in all forms with several methods, against several Hosts."""
    for method in (b"GET", b"OPTIONS", b"CONNECT", b"POST"):
        for target in TARGETS:
            yield Message(request(first=method + b" " + target + b" HTTP/1.1"))
    for target in TARGETS:
        yield Message(request(first=b"GET " + target + b" HTTP/1.0"))
        yield Message(b"GET " + target + b" HTTP/1.1\r\n\r\n")
        yield Message(b"GET " + target + b" HTTP/1.0\r\n\r\n")


def authorities() -> Iterator[Message]:
    """Host alone, twice, missing, and against the authority of an absolute form."""
    for host in HOSTS:
        yield Message(request(host=host))
        yield Message(request(b"Host: " + host))
        yield Message(request(b"Host: a.b", host=host))
        yield Message(request(host=host, first=b"GET /p HTTP/1.0"))
        for authority in (b"a.b", b"a.b:80", b"a.b:", b"A.b", b"[::1]", b"[::1]:80", b"a.b:8080"):
            yield Message(request(host=host, first=b"GET http://" + authority + b"/p HTTP/1.1"))
        yield Message(request(host=host, first=b"GET https://a.b/p HTTP/1.1"))
        yield Message(request(host=host, first=b"GET https://a.b:443/p HTTP/1.1"))
        yield Message(request(host=host, first=b"CONNECT a.b:80 HTTP/1.1"))
        yield Message(request(host=host, first=b"CONNECT a.b:443 HTTP/1.1"))
        yield Message(request(host=host, first=b"GET http://a.b/p HTTP/1.0"))
    for version in (b"1.0", b"1.1"):
        for method in (b"GET", b"OPTIONS", b"POST", b"CONNECT"):
            yield Message(method + b" / HTTP/" + version + b"\r\n\r\n")
            yield Message(method + b" * HTTP/" + version + b"\r\n\r\n")
            yield Message(method + b" a.b:80 HTTP/" + version + b"\r\n\r\n")
            yield Message(method + b" http://a.b/p HTTP/" + version + b"\r\n\r\n")


def first_lines() -> Iterator[Message]:
    """Methods, versions, blanks and line ends of request lines."""
    for version in (b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/1.9", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/2", b"HTTP/3.0", b"http/1.1", b"Http/1.1", b"HTTP/1.10", b"HTTP/01.1", b"HTTP/1.1 ", b"HTTP/1,1", b"HTTP /1.1", b"HTTP/ 1.1",
                    b"HTTP/1", b"HTTP/", b"HTTP", b"", b"ICAP/1.0", b"RTSP/1.0", b"RTSP/2.0", b"XTTP/1.1", b"HTTP/1.1x", b"HTTP/1.a", b"HTTP/a.1", b"HTTP/11", b"HTTP/+1.1", b"HTTP/1.1\t"):  # fmt: skip
        for method in (b"GET", b"POST", b"PRI"):
            yield Message(request(first=method + b" /p " + version))
    for method in (
        b"g",
        b"get",
        b"Get",
        b"GETS",
        b"G" * 63,
        b"G" * 64,
        b"G" * 65,
        b"G" * 200,
        b"G" * 3000,
        b"G-T",
        b"G_T",
        b"G.T",
        b"G!T",
        b"G#$%&'*+^`|~T",
        b"G/T",
        b"G:T",
        b"G@T",
        b"G\x80",
        b"G\x00",
        b"G\x01",
        b"1",
        b"",
        b"PRI",
        b"PROXY",
        b'"G"',
        b"G,T",
        b"(G)",
        b"[G]",
    ):
        yield Message(request(first=method + b" /p HTTP/1.1"))
        yield Message(request(first=method + b" /p HTTP/1.0"))
    for first in (b"GET", b"GET ", b"GET /p", b"GET /p ", b" GET /p HTTP/1.1", b"GET  /p HTTP/1.1", b"GET /p  HTTP/1.1", b"GET\t/p HTTP/1.1", b"GET /p\tHTTP/1.1", b"GET /p HTTP/1.1 x", b"GET /p x HTTP/1.1",
                  b"GET /a b HTTP/1.1", b"\r\nGET /p HTTP/1.1", b"\nGET /p HTTP/1.1", b"\r\n" * 3 + b"GET /p HTTP/1.1", b"\r\n" * 20 + b"GET /p HTTP/1.1", b"\n" * 20 + b"GET /p HTTP/1.1", b"\rGET /p HTTP/1.1", b"\n\rGET /p HTTP/1.1", b"\r\n GET /p HTTP/1.1", b"\x00GET /p HTTP/1.1",
                  b"GET /p HTTP/1.1\r", b"GET /p HTTP/1.1\nX: y"):  # fmt: skip
        yield Message(request(first=first))
    yield Message(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    yield Message(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
    yield Message(b"GET /p\r\n")
    yield Message(b"GET /p\r\n\r\n")
    yield Message(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    yield Message(b"SSH-2.0-x\r\n")
    for raw in (b"GET /p HTTP/1.1\nHost: a\n\n", b"GET /p HTTP/1.1\r\nHost: a\n\n", b"GET /p HTTP/1.1\nHost: a\r\n\r\n", b"GET /p HTTP/1.1\r\nHost: a\r\n\n", b"GET /p HTTP/1.1\r\nHost: a\n\r\n",
                b"POST /p HTTP/1.1\nHost: a\nContent-Length: 5\n\nhello", b"POST /p HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n5\r\nhello\r\n0\r\n\r\n", b"POST /p HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n5\nhello\n0\n\n", b"GET /p HTTP/1.1\r\rHost: a\r\n\r\n"):  # fmt: skip
        yield followed(raw)


def header_lines() -> Iterator[Message]:
    """Names, colons, values, folding, in requests and responses."""
    lines = [b"X-A:v", b"X-A: v", b"X-A:  v  ", b"X-A:\tv\t", b"X-A : v", b"X-A\t: v", b" X-A: v", b"\tX-A: v", b"X-A", b":", b": v", b" : v", b"X-A:", b"X-A: ", b"X A: v", b"X-A: a\r\n b", b"X-A: a\r\n\tb", b"X-A:\r\n b", b"X-A: a\r\n \r\n b", b"X-A: a\n b", b"X-A: a\r\n", b"X-A: a\rb", b"X-A: a\nb", b"X-A: a\n\rb", b"X-A: \r", b"X-A: a\r\r",
             b"X-A: \x00", b"X-A: a\x00b", b"X-A: \x01", b"X-A: \x7f", b"X-A: \x80", b"X-A: \xff", b"X-A: a\tb", b"X-A: a\x0bb", b"X-A: a\x0cb", b"X\xff: v", b"X\x00: v", b"X\x01: v", b"X\x7f: v", b"X(: v", b"X/: v", b"X@: v", b"X[: v", b"X{: v", b"X\": v", b"X,: v", b"X;: v", b"X=: v", b"X?: v", b"X<: v", b"X!#$%&'*+-.^_`|~9: v", b"A" * 300 + b": v",
             b"X-A: " + b"v" * 5000, b"X-A: v\r\nX-A: w", b"x-a: v\r\nX-a: w", b"X_A: v", b"X-Gone: v", b"X-Gone : v", b"X-Gone: v\r\n w", b"X-Secret: v", b"X-Secret : v", b" X-Secret: v", b"X-Y: z\r\n X-Secret: v", b"X-Y: z\nX-Secret: v", b"X-Y: z\rX-Secret: v", b"X-Secret:", b"X-Secret\x00: v"]  # fmt: skip
    for line in lines:
        yield followed(request(line))
        yield followed(b"GET /p HTTP/1.1\r\n" + line + b"\r\nHost: a\r\n\r\n")
        yield Message(request(), answer=OKAY + line + b"\r\nContent-Length: 2\r\n\r\nok", closes=True)
        yield Message(request(), answer=OKAY + b"Content-Length: 2\r\n" + line + b"\r\n\r\nok", closes=True)
    for count in (50, 99, 100, 101, 102, 150):
        yield Message(request(*[b"X-%d: v" % n for n in range(count)]))
        yield Message(
            request(),
            answer=OKAY + b"".join(b"X-%d: v\r\n" % n for n in range(count)) + b"Content-Length: 2\r\n\r\nok",
            closes=True,
        )


HOP = [
    b"close",
    b"keep-alive",
    b"Close",
    b"upgrade",
    b"close, x-a",
    b"x-a",
    b"x-a, close",
    b"keep-alive, close",
    b"",
    b",",
    b"close,",
    b",close",
    b"close;q",
    b'"close"',
    b"te",
    b"host",
    b"content-length",
    b"transfer-encoding",
    b"cookie",
    b"x-forwarded-for",
    b"close\tx",
    b"closed",
]


def connections() -> Iterator[Message]:
    """Connection and its fellows: what goes on, what is removed, what closes."""
    for value in HOP:
        for version in (b"1.1", b"1.0"):
            first = b"GET /p HTTP/" + version
            yield followed(request(b"Connection: " + value, b"X-A: v", first=first))
            yield followed(request(b"Connection: x-b", b"Connection: " + value, b"X-A: v", first=first))
            yield followed(request(b"Proxy-Connection: " + value, first=first))
            yield followed(request(b"Keep-Alive: timeout=3", b"TE: trailers", b"Connection: " + value, first=first))
            yield followed(
                request(first=first),
                answer=b"HTTP/"
                + version
                + b" 200 OK\r\nX-A: v\r\nContent-Length: 2\r\nConnection: "
                + value
                + b"\r\n\r\nok",
            )
    for lines in ([b"Upgrade: websocket"], [b"Connection: upgrade"], [b"Connection: Upgrade", b"Upgrade: websocket"], [b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="],
                  [b"Connection: Upgrade", b"Upgrade: WebSocket", b"Sec-WebSocket-Key:"], [b"Connection: keep-alive, Upgrade", b"Upgrade: h2c", b"HTTP2-Settings: AA"], [b"Connection: Upgrade", b"Upgrade: websocket, x"], [b"Connection: Upgrade", b"Upgrade: x", b"Upgrade: websocket"],
                  [b"Connection: Upgrade", b"Upgrade:"], [b"Upgrade: websocket", b"Sec-WebSocket-Key: x"]):  # fmt: skip
        for method in (b"GET", b"POST", b"HEAD"):
            for version in (b"1.1", b"1.0"):
                raw = request(*lines, first=method + b" /p HTTP/" + version)
                yield followed(raw)
                for answer in (
                    b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nbytes",
                    b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nbytes",
                    b"HTTP/1.1 101 Go\r\n\r\n",
                    b"HTTP/1.1 426 No\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n",
                ):
                    yield Message(raw, answer=answer, closes=True)
        yield followed(request(*lines, b"Content-Length: 5", first=b"POST /p HTTP/1.1", body=b"hello"))
        yield followed(request(*lines, b"Transfer-Encoding: chunked", first=b"POST /p HTTP/1.1", body=CHUNKS))
    for value in (b"100-continue", b"100-Continue", b"x", b"", b"100-continue, x"):
        for version in (b"1.1", b"1.0"):
            yield followed(
                request(b"Expect: " + value, b"Content-Length: 5", first=b"POST /p HTTP/" + version, body=b"hello")
            )
            yield followed(request(b"Expect: " + value, first=b"GET /p HTTP/" + version))


def status_lines() -> Iterator[Message]:
    """Status lines."""
    for first in (b"HTTP/1.1 200 OK", b"HTTP/1.1 200 ", b"HTTP/1.1 200", b"HTTP/1.1 200  OK", b"HTTP/1.1  200 OK", b"HTTP/1.1\t200 OK", b"HTTP/1.1 200\tOK", b"HTTP/1.0 200 OK", b"HTTP/1.2 200 OK", b"HTTP/1.9 200 OK", b"HTTP/0.9 200 OK", b"HTTP/2.0 200 OK", b"HTTP/2 200 OK", b"http/1.1 200 OK", b"HTTP/1.10 200 OK", b"HTTP/1.1x200 OK",
                  b"HTTP/1.1 200 \xff\xfe", b"HTTP/1.1 200 a\tb", b"HTTP/1.1 200 a\x00b", b"HTTP/1.1 200 a\x01b", b"HTTP/1.1 200 a\rb", b"HTTP/1.1 200OK", b"HTTP/1.1 2000 OK", b"HTTP/1.1 20 OK", b"HTTP/1.1 +20 OK", b"HTTP/1.1 2 0 OK", b"HTTP/1.1 OK", b"HTTP/1.1", b"", b"\r\nHTTP/1.1 200 OK", b" HTTP/1.1 200 OK", b"ICY 200 OK", b"RTSP/1.0 200 OK",
                  b"HTTP/1.1 200 " + b"r" * 3000, b"HTTP/1.1 404 Not Found", b"HTTP/1.1 777 x"):  # fmt: skip
        for end in (b"\r\n", b"\n"):
            for version in (b"1.1", b"1.0"):
                yield Message(
                    request(first=b"GET /p HTTP/" + version),
                    answer=end.join([first, b"Content-Length: 2", b"", b"ok"]),
                    closes=True,
                )
        yield Message(request(), answer=first + b"\r\n\r\nbody", closes=True)


def cookie_lists() -> Iterator[Message]:
    """Set-Cookie and Set-Cookie2 with one cookie and several, in each mode of `cookie`."""
    ours = (b"SRV=x", b"SRV=c1", b"SRV=x; path=/", b'SRV="x, y"', b"SRV", b"SRV=")
    rests = (b"", b"A=b", b"A=b; Version=1", b'A="b, SRV=x"', b"A=b,B=c", b"A")
    for name, one, rest, blank in itertools.product((b"Set-Cookie", b"Set-Cookie2"), ours, rests, (b"", b" ")):
        for value in (
            one,
            b",".join([one, blank + rest]),
            b",".join([rest, blank + one]),
            b",".join([rest, blank + one, blank + rest]),
        ):
            for section in ("watched", "prefixed", "rewritten"):
                yield Message(
                    request(), section, OKAY + name + b": " + value + b"\r\nContent-Length: 2\r\n\r\nok", closes=True
                )


def families() -> dict[str, list[Message]]:
    """All of them."""
    plain = {
        "every byte of a request": every_byte,
        "every byte of a response": every_answer_byte,
        "request framing": request_framing,
        "response framing": answer_framing,
        "request chunks": request_chunks,
        "response chunks": answer_chunks,
        "targets": targets,
        "authorities": authorities,
        "first lines": first_lines,
        "header lines": header_lines,
        "connections": connections,
        "status lines": status_lines,
    }
    found = {name: list(make()) for name, make in plain.items()}
    found["lists of cookies"] = list(cookie_lists())
    for name, make in plain.items():
        found[name + ", lax"] = list(sections(make(), "lax"))
        found[name + ", watched"] = list(sections(make(), "watched"))
    return found

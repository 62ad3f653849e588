"""Answers of the proxy's own: reasons, built-in pages and error files, as HAProxy's users know them. Pure.

The words of the pages are those that people search their logs and monitoring for.
"""

from __future__ import annotations

import re

# What stands behind a status that a rule names, word for word as the real HAProxy 2.6 writes it.
REASONS = {
    200: "OK", 201: "Created", 202: "Accepted", 203: "Non-Authoritative Information", 204: "No Content", 205: "Reset Content",
    206: "Partial Content", 207: "Multi-Status", 210: "Content Different", 226: "IM Used", 300: "Multiple Choices",
    301: "Moved Permanently", 302: "Moved Temporarily", 303: "See Other", 304: "Not Modified", 305: "Use Proxy",
    307: "Temporary Redirect", 308: "Permanent Redirect", 310: "Too many Redirects", 400: "Bad Request", 401: "Unauthorized",
    402: "Payment Required", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 406: "Not Acceptable",
    407: "Proxy Authentication Required", 408: "Request Time-out", 409: "Conflict", 410: "Gone", 411: "Length Required",
    412: "Precondition Failed", 413: "Request Entity Too Large", 414: "Request-URI Too Long", 415: "Unsupported Media Type",
    416: "Requested range unsatisfiable", 417: "Expectation failed", 418: "I'm a teapot", 421: "Misdirected Request",
    422: "Unprocessable Content", 423: "Locked", 424: "Method failure", 425: "Too Early", 426: "Upgrade Required",
    428: "Precondition Required", 429: "Too Many Requests", 431: "Request Header Fields Too Large", 449: "Retry With",
    450: "Blocked by Windows Parental Controls", 451: "Unavailable For Legal Reasons", 456: "Unrecoverable Error",
    499: "client has closed connection", 500: "Internal Server Error", 501: "Not Implemented",
    502: "Bad Gateway or Proxy Error", 503: "Service Unavailable", 504: "Gateway Time-out", 505: "HTTP Version not supported",
    506: "Variant also negotiate", 507: "Insufficient storage", 508: "Loop detected", 509: "Bandwidth Limit Exceeded",
    510: "Not extended", 511: "Network authentication required", 520: "Web server is returning an unknown error",
}  # fmt: skip
_CLASSES = {2: "Success", 3: "Redirection", 4: "Client Error", 5: "Server Error"}
REDIRECT_REASONS = {
    301: "Moved Permanently", 302: "Found", 303: "See Other", 307: "Temporary Redirect", 308: "Permanent Redirect",
}  # fmt: skip
# Statuses that have a page. The first seven stand where the compiled path expects them (state.pxd: ErrorPage).
STATUSES = (200, 400, 408, 500, 502, 503, 504, 401, 403, 404, 405, 407, 410, 413, 421, 422, 425, 429, 501)
_TITLES = {400: "Bad request", 407: "Unauthorized", 413: "Payload Too Large", 502: "Bad Gateway"}
_CLOSING = (400, 408)
_TEXTS = {
    200: "Service ready.",
    400: "Your browser sent an invalid request.",
    401: "You need a valid user and password to access this content.",
    403: "Request forbidden by administrative rules.",
    404: "The resource could not be found.",
    405: "A request was made of a resource using a request method not supported by that resource",
    407: "You need a valid user and password to access this content.",
    408: "Your browser didn't send a complete request in time.",
    410: "The resource is no longer available and will not be available again.",
    413: "The request entity exceeds the maximum allowed.",
    421: "Request sent to a non-authoritative server.",
    422: "The server cannot process the contained instructions.",
    425: "Your browser sent early data.",
    429: "You have sent too many requests in a given amount of time.",
    500: "An internal server error occurred.",
    501: "The server does not support the functionality required to fulfill the request.",
    502: "The server returned an invalid or incomplete response.",
    503: "No server is available to handle this request.",
    504: "The server didn't respond in time.",
}


def reason(status: int) -> str:
    """The reason phrase of a status that a rule names."""
    return REASONS.get(status) or _CLASSES.get(status // 100, "Other")


def title(status: int) -> str:
    """The reason phrase on the page of a status."""
    return _TITLES.get(status) or REASONS[status]


def body(status: int) -> bytes:
    """The built-in page's body."""
    return f"<html><body><h1>{status} {title(status)}</h1>\n{_TEXTS[status]}\n</body></html>\n".encode()


def builtin(status: int) -> bytes:
    """The whole built-in answer, as it goes out but for the Connection line of an answer that keeps it."""
    content = body(status)
    close = "connection: close\r\n" if status in _CLOSING else ""
    return (
        f"HTTP/1.1 {status} {title(status)}\r\ncontent-length: {len(content)}\r\ncache-control: no-cache\r\n"
        f"{close}content-type: text/html\r\n\r\n"
    ).encode() + content


def checked(content: bytes, bufsize: int) -> str:
    """What is wrong with the content of an error file; "" for nothing. An empty file is an answer of no bytes.

    Its status may be another one than that of the error it stands for, as people do who hide a 503 behind a 200.
    """
    if not content:
        return ""
    if not re.match(rb"HTTP/1\.[01] [0-9]{3}[ \r\n]", content):
        return f"is no HTTP/1 response: it begins with {content[:20]!r}"
    if len(content) > bufsize - 128:
        return f"has {len(content)} bytes, more than tune.bufsize less 128"
    head, blank, _ = _parted(content)
    if not blank:
        return "has no empty line behind its headers"
    for line in head[1:]:
        if not re.match(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:", line):
            return f"has a line that is no header: {line[:40]!r}"
    return ""


def _parted(content: bytes) -> tuple[list[bytes], bytes, bytes]:
    found = re.search(rb"\r?\n\r?\n", content)
    if not found:
        return re.split(rb"\r?\n", content), b"", b""
    return re.split(rb"\r?\n", content[: found.start()]), found[0], content[found.end() :]


def as_sent(content: bytes) -> bytes:
    """An error file as it goes out: one way to write lines and names, and the length that its body really has.

    A Connection line stays only where it says what the rest does not: a file without a length ends with the connection
    anyway.
    """
    if not content:
        return b""
    head, _, rest = _parted(content)
    lines = [head[0]]
    has_length = close = False
    for line in head[1:]:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        if name == b"content-length":
            if not has_length:
                lines.append(b"content-length: %d" % len(rest))
            has_length = True
        elif name == b"connection":
            close = close or value.lower() == b"close"
        elif name not in (b"transfer-encoding", b"keep-alive", b"proxy-connection"):
            lines.append(name + b": " + value)
    if close and has_length:
        lines.append(b"connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n" + rest

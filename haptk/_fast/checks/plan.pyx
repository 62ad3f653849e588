# Python objects in, a table out. Whatever a step needs at run time is decided here.

import re as pyre
import socket as pysocket

from libc.stdlib cimport calloc, free
from libc.string cimport memset

from haptk._fast.bytes.span cimport Room, Span, room_over, room_put, span_of
from haptk._fast.inet cimport AF_INET, AF_INET6, AF_UNIX, htons, inet_pton, sockaddr_in, sockaddr_in6, sockaddr_un
from haptk._fast.regex cimport regex_compile, regex_free

CODES = ("UNK", "INI", "CHECKED", "HANA", "SOCKERR", "L4OK", "L4TOUT", "L4CON", "L6OK", "L6TOUT", "L6RSP", "L7TOUT", "L7RSP",
         "L7OK", "L7OKC", "L7STS")
ACTIONS = {"connect": A_CONNECT, "send": A_SEND, "send-binary": A_SEND, "expect": A_EXPECT, "agent": A_AGENT}
KINDS = {"string": K_STRING, "rstring": K_REGEX, "binary": K_BINARY, "rbinary": K_BINARY_REGEX, "status": K_STATUS,
         "rstatus": K_STATUS_REGEX, "hdr": K_HEADER, "fhdr": K_HEADER}
HOWS = {"": HOW_NONE, "str": HOW_STR, "beg": HOW_BEG, "end": HOW_END, "sub": HOW_SUB, "reg": HOW_REG}


cdef int address_of(Address *out, str host, int port) except -1:
    cdef sockaddr_in *four = <sockaddr_in *>&out.a
    cdef sockaddr_in6 *six = <sockaddr_in6 *>&out.a
    cdef sockaddr_un *path = <sockaddr_un *>&out.a
    cdef bytes raw
    cdef Room room
    memset(out, 0, sizeof(Address))
    if host.startswith("/") or host.startswith("@") or host.startswith("\0"):
        raw = host.encode("utf-8", "surrogateescape")
        if raw.startswith(b"@"):
            raw = b"\0" + raw[1:]
        if len(raw) >= 107:
            raise ValueError(f"the path of a unix socket is at most 106 bytes long: {host!r}")
        path.sun_family = AF_UNIX
        room = room_over(path.sun_path, sizeof(path.sun_path))
        room_put(&room, span_of(raw))
        out.n = 2 + len(raw) + (0 if raw.startswith(b"\0") else 1)
        return 0
    raw = host.partition("%")[0].encode()
    if ":" in host:
        six.sin6_family = AF_INET6
        six.sin6_port = htons(port)
        if inet_pton(AF_INET6, raw, six.sin6_addr.s6_addr) != 1:
            raise ValueError(f"{host!r} is not an address")
        if "%" in host:
            six.sin6_scope_id = pysocket.if_nametoindex(host.partition("%")[2])
        out.n = sizeof(sockaddr_in6)
        return 0
    four.sin_family = AF_INET
    four.sin_port = htons(port)
    if inet_pton(AF_INET, raw, &four.sin_addr) != 1:
        raise ValueError(f"{host!r} is not an address")
    out.n = sizeof(sockaddr_in)
    return 0


cdef class Steps:
    """The table of one kind of check. `kind` is tcp, tcp-check, http or agent; `steps` are proxy.tables.TcpStep."""

    def __cinit__(self, str kind, steps):
        cdef int i
        self.kept = []
        self.patterns = []
        self.http = kind == "http"
        self.agent = kind == "agent"
        self.tcp_texts = kind == "tcp-check"
        self.count = len(steps)
        self.steps = <StepC *>calloc(self.count + 1, sizeof(StepC))
        if self.steps == NULL:
            raise MemoryError
        for i in range(self.count):
            self.fill(&self.steps[i], i, steps[i], steps[i + 1] if i + 1 < self.count else None)

    def __dealloc__(self):
        cdef int i
        if self.steps == NULL:
            return
        for i in range(self.count):
            regex_free(self.steps[i].regex.code)
            regex_free(self.steps[i].name_regex.code)
            regex_free(self.steps[i].value_regex.code)
            free(self.steps[i].codes)
        free(self.steps)

    cdef int note(self, Span *out, bytes value) except -1:
        self.kept.append(value)
        out[0] = span_of(value)
        return 0

    cdef int regex(self, RegexC *out, str pattern, bint ignore_case) except -1:
        # Bytes are latin-1 characters; where the library is missing, Python's re serves (regex.pxd).
        out.code = regex_compile(pattern.encode("utf-8", "surrogateescape"), ignore_case)
        if out.code == NULL:
            self.patterns.append(pyre.compile(pattern, pyre.ASCII | (pyre.IGNORECASE if ignore_case else 0)))
            out.number = len(self.patterns) - 1
            out.patterns = <void *>self.patterns
        return 0

    cdef int fill(self, StepC *out, int at, step, following) except -1:
        out.action = ACTIONS[step.action]
        out.number = step.number
        out.implicit, out.plain, out.linger = step.implicit, step.plain, step.linger
        out.has_data = following is not None and ACTIONS[following.action] == A_SEND
        out.last = following is None
        out.no_body = step.send is not None and step.send.method.upper() == "HEAD"
        out.port, out.send_proxy = step.port, step.send_proxy
        if step.addr:
            address_of(&out.addr, step.addr, step.port)
        self.note(&out.data, step.data)
        self.note(&out.comment, step.comment.encode("utf-8", "surrogateescape"))
        out.head = at
        out.min_recv = -1
        if step.expect is not None:
            self.fill_expect(out, at, step.expect)
        return 0

    cdef int fill_expect(self, StepC *out, int at, expect) except -1:
        cdef int i
        out.kind = KINDS[expect.kind]
        out.negate = expect.negate
        out.min_recv = expect.min_recv
        out.ok_status = CODES.index(expect.ok_status) if expect.ok_status else O_UNK
        out.error_status = CODES.index(expect.error_status) if expect.error_status else O_UNK
        out.timeout_status = CODES.index(expect.timeout_status) if expect.timeout_status else O_UNK
        out.says_success, out.says_error = bool(expect.on_success), bool(expect.on_error)
        self.note(&out.on_success, expect.on_success.encode("utf-8", "surrogateescape"))
        self.note(&out.on_error, expect.on_error.encode("utf-8", "surrogateescape"))
        if out.kind == K_STRING:
            self.note(&out.data, expect.pattern.encode("utf-8", "surrogateescape"))
        elif out.kind == K_BINARY:
            self.note(&out.data, bytes.fromhex(expect.pattern))
        elif out.kind == K_STATUS:
            ranges = [part.partition("-") for part in expect.pattern.split(",")]
            out.codes = <int *>calloc(2 * len(ranges), sizeof(int))
            if out.codes == NULL:
                raise MemoryError
            out.code_count = len(ranges)
            for i in range(out.code_count):
                out.codes[2 * i] = int(ranges[i][0])
                out.codes[2 * i + 1] = int(ranges[i][2] or ranges[i][0])
        elif out.kind == K_HEADER:
            self.fill_header(at, expect)
        else:
            self.regex(&out.regex, expect.pattern, 0)
        # the answer is looked at again from the first negated expectation on
        for i in range(at - 1, -1, -1):
            if self.steps[i].action != A_EXPECT:
                break
            if self.steps[i].negate:
                out.head = i
        return 0

    def fill_header(self, int at, expect):
        """The name and the value of `hdr` and `fhdr`."""
        cdef StepC *out = &self.steps[at]
        name, value = expect.name, expect.value
        if not name:
            name, _, value = expect.pattern.partition(" ")
        out.whole_line = expect.kind == "fhdr" or not value
        out.name_how = HOWS[expect.name_how]
        out.value_how = HOWS[expect.value_how] if value else HOW_NONE
        if out.name_how == HOW_REG:
            self.regex(&out.name_regex, name, 1)
        self.note(&out.name, name.lower().encode("utf-8", "surrogateescape"))
        if out.value_how == HOW_REG:
            self.regex(&out.value_regex, value, 0)
        self.note(&out.value, value.encode("utf-8", "surrogateescape"))

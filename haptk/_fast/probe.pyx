# Nothing here runs in a proxy. The worker's turn of the loop is left out: a question is one call.

import socket as pysocket

from libc.stdlib cimport calloc, free
from libc.string cimport memset

from haptk._fast.address cimport note_bytes
from haptk._fast.bytes.buf cimport buf_empty, buf_owed, buf_put
from haptk._fast.bytes.span cimport Room, room_close, room_open, room_span, span_bytes, span_of, span_over
from haptk._fast.edit cimport edits_close, edits_open
from haptk._fast.facts cimport MADE_SIZE
from haptk._fast.format cimport format_put
from haptk._fast.http1 cimport Buf, HEAD_MORE, head_line, parse_request, parse_response
from haptk._fast.match cimport holds, test_holds
from haptk._fast.pool cimport buf_drop, buf_take, pool_close
from haptk._fast.program cimport ConditionC, FormatC, LOG_HEADER, TestC
from haptk._fast.regex cimport regex_close, regex_open
from haptk._fast.render cimport render_request
from haptk._fast.rules cimport RULES_ANSWER, RULES_GO, rules_request
from haptk._fast.state cimport ServerW, Tally

cdef class Probe:
    """Asks about heads that come from 127.0.0.1:1234 to 127.0.0.1:80 through the first frontend of `tables`."""

    def __cinit__(self, tables):
        memset(&self.w, 0, sizeof(Worker))
        memset(&self.s, 0, sizeof(Session))
        self.image = Image(tables)
        self.arena = Arena({be.name: index for index, be in enumerate(tables.backends)})
        self.w.conf = &self.image.conf
        self.w.servers = <ServerW *>calloc(self.w.conf.server_room + 1, sizeof(ServerW))
        self.w.fronts = <Tally *>calloc(self.w.conf.frontend_count + 1, sizeof(Tally))
        self.w.backs = <Tally *>calloc(self.w.conf.backend_count + 1, sizeof(Tally))
        self.w.servs = <Tally *>calloc(self.w.conf.server_room + 1, sizeof(Tally))
        if self.w.fronts == NULL or self.w.backs == NULL or self.w.servs == NULL:
            raise MemoryError
        if edits_open(&self.w) < 0 or room_open(&self.w.made, MADE_SIZE) < 0 or self.w.servers == NULL:
            raise MemoryError
        regex_open(&self.w.regex)
        self.s.frontend = &self.image.conf.frontends[0]
        note_bytes(&self.s.peer, pysocket.AF_INET, span_over(b"\x7f\0\0\1", 4), 1234)
        self.s.local = self.s.peer
        self.s.local.port = 80

    def __dealloc__(self):
        if self.w.conf != NULL:
            buf_drop(&self.w, &self.s.rx)
            buf_drop(&self.w, &self.s.sx)
            buf_drop(&self.w, &self.s.out_head)
            buf_drop(&self.w, &self.s.in_head)
            buf_drop(&self.w, &self.s.line)
            pool_close(&self.w)
        regex_close(&self.w.regex)
        edits_close(&self.w)
        room_close(&self.w.made)
        free(self.w.servers)
        free(self.w.fronts)
        free(self.w.backs)
        free(self.w.servs)

    cdef int reset(self) except -1:
        buf_drop(&self.w, &self.s.out_head)
        buf_drop(&self.w, &self.s.in_head)
        self.s.backend = self.s.frontend.backend
        self.s.server = NULL
        self.s.first = 1
        self.s.keep = 1
        self.s.force_persist = self.s.ignore_persist = self.s.direct = 0
        self.s.up.done = 1
        self.s.up.mode = 0
        self.s.status = 0
        return 0

    cdef int parse(self, bytes data, bint response) except -1:
        cdef Buf *b = &self.s.sx if response else &self.s.rx
        cdef int got
        self.reset()
        if len(data) > <int>self.w.conf.bufsize or buf_take(&self.w, b) < 0:
            raise ValueError("longer than a buffer")
        buf_empty(b)
        buf_put(b, span_of(data))
        got = parse_response(b, &self.w.head, 0) if response else parse_request(b, &self.w.head, 0)
        if got <= 0:
            raise ValueError("not all of a head" if got == HEAD_MORE else "no head")
        if not response:
            self.s.method = self.s.method_sent = self.w.head.method
            self.s.minor = self.w.head.minor
            b.r = b.f = b.p = <unsigned int>got
        return got

    cdef int look(self, Seen *x, bytes data, bint response) except -1:
        memset(x, 0, sizeof(Seen))
        self.parse(data, response)
        x.w, x.s = &self.w, &self.s
        if response:
            x.res = &self.w.head
        else:
            x.req = &self.w.head
            x.line = head_line(&self.w.head)
        return 0

    def test(self, test, bytes data, bint response=False):
        """Whether a core.acl.Test holds for the head."""
        cdef Seen x
        cdef TestC *built = <TestC *>self.arena.block(1, sizeof(TestC))
        self.arena.test(built, test)
        self.look(&x, data, response)
        return bool(test_holds(&x, built))

    def condition(self, condition, bytes data, bint response=False):
        """Whether a core.acl.Condition holds for the head."""
        cdef Seen x
        cdef ConditionC *built = self.arena.condition(condition)
        self.look(&x, data, response)
        return bool(holds(&x, built))

    def format(self, chosen, bytes data, bint response=False):
        """The text of a core.acl.Format, None when it does not fit into a buffer."""
        cdef Seen x
        cdef FormatC *built = <FormatC *>self.arena.block(1, sizeof(FormatC))
        cdef Room out
        self.arena.format(built, chosen, LOG_HEADER)
        self.look(&x, data, response)
        if room_open(&out, self.w.conf.bufsize) < 0:
            raise MemoryError
        try:
            return None if format_put(&x, built, &out) < 0 else span_bytes(room_span(&out))
        finally:
            room_close(&out)

    def request(self, bytes data):
        """Run the rules: ("go", backend, head for the server), ("answer", "", answer) or ("failed", "", b"")."""
        cdef int got
        self.parse(data, 0)
        got = rules_request(&self.w, &self.s, &self.w.head)
        if got == RULES_ANSWER:
            return "answer", "", span_bytes(buf_owed(&self.s.in_head))
        if got != RULES_GO:
            return "failed", "", b""
        if self.s.backend == NULL:
            return "go", "", b""
        if render_request(&self.w, &self.s, &self.w.head) < 0:
            return "failed", "", b""
        name = self.s.backend.name.p[:self.s.backend.name.n].decode()
        return "go", name, span_bytes(buf_owed(&self.s.out_head))

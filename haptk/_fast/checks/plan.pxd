# plan: what a check does, as a table of steps. Built under the GIL from proxy/tables.py's TcpStep; never changed
# afterwards. A Steps object owns all of its memory and is shared by every check that plays the same steps.

from libc.stdint cimport int64_t, uint32_t

from haptk._fast.bytes.span cimport Span
from haptk._fast.inet cimport sockaddr_storage
from haptk._fast.regex cimport RegexC

# HAProxy's outcomes, in its order: everything from L57DATA on carries a code of the answer.
cdef enum Outcome:
    O_UNK = 0, O_INI, O_CHECKED, O_HANA, O_SOCKERR, O_L4OK, O_L4TOUT, O_L4CON, O_L6OK, O_L6TOUT, O_L6RSP, O_L7TOUT, O_L7RSP
    O_L7OK, O_L7OKC, O_L7STS

cdef enum Action:
    A_CONNECT = 0, A_SEND, A_EXPECT, A_AGENT

cdef enum Kind:             # of an expectation
    K_STRING = 0, K_REGEX, K_BINARY, K_BINARY_REGEX, K_STATUS, K_STATUS_REGEX, K_HEADER

cdef enum How:              # a name or a value is compared
    HOW_NONE = 0, HOW_STR, HOW_BEG, HOW_END, HOW_SUB, HOW_REG

ctypedef struct Address:
    uint32_t n              # 0: none
    sockaddr_storage a

ctypedef struct StepC:
    int action
    int number              # as HAProxy counts it for its texts; 0 for the connection that nobody wrote down
    bint implicit
    bint plain              # the connection is made as the server line says (PROXY header)
    bint linger             # closed without a reset
    bint has_data           # the next step sends: the first bytes travel with the last ACK of the handshake
    bint no_body            # a request whose answer has none: HEAD
    bint last               # nothing follows: the ACK of the handshake need not be sent at all
    int port
    int send_proxy
    Address addr
    Span data               # what is sent or looked for; spans are of bytes objects that Steps keeps
    Span comment
    int kind
    bint negate
    int head                # the first negated expectation of the chain that this one ends; the step itself without
    int64_t min_recv        # -1: not said
    int ok_status
    int error_status
    int timeout_status
    Span on_success
    Span on_error
    bint says_success
    bint says_error
    RegexC regex
    int code_count
    int *codes              # pairs, both inclusive
    bint whole_line         # fhdr
    int name_how
    int value_how
    Span name
    Span value
    RegexC name_regex
    RegexC value_regex

cdef class Steps:
    cdef StepC *steps
    cdef readonly int count
    cdef bint http
    cdef bint agent
    cdef bint tcp_texts         # texts name the step, as tcp-check's do
    cdef list kept
    cdef list patterns

    cdef int note(self, Span *out, bytes value) except -1
    cdef int regex(self, RegexC *out, str pattern, bint ignore_case) except -1
    cdef int fill(self, StepC *out, int at, step, following) except -1
    cdef int fill_expect(self, StepC *out, int at, expect) except -1

# The structure of an IP address or the path of a unix socket; ValueError for what is none.
cdef int address_of(Address *out, str host, int port) except -1

# The seam for another transport (TLS) is five functions: dial, connected, carry, take and hang_up. Everything above them
# knows steps and bytes only.
#
# On the wire a check ends as HAProxy's does: with a reset, so that no TIME_WAIT is left behind on the machine that is to
# be guarded, unless the server has closed first or the file says `linger`. A check that only connects does not even
# acknowledge the handshake: the reset comes first, and the application never hears of a connection.

from libc.errno cimport EADDRINUSE, EALREADY, ECONNRESET, EINPROGRESS, EISCONN, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.stdlib cimport malloc
from libc.string cimport memset

from haptk._fast.bytes.address cimport room_address
from haptk._fast.bytes.buf cimport buf_give, buf_held, buf_take_back
from haptk._fast.bytes.span cimport (Room, Span, room_char, room_decimal, room_over, room_put, room_span, room_word,
                                     span_from, span_given, span_len, span_none, span_over)
from haptk._fast.checks.judge cimport (judge, say, say_comment, say_number, settle, settle_broken, settle_passed, unsay)
from haptk._fast.checks.plan cimport A_CONNECT, A_SEND, Address, O_L7RSP, O_SOCKERR, O_UNK, StepC
from haptk._fast.checks.state cimport P_CONNECTING, P_IDLE, P_READING, P_SENDING, V_GO, V_STOP, V_WAIT, Verdict
from haptk._fast.checks.timers cimport timer_set
from haptk._fast.descriptors cimport FD_SERVER, fd_opened
from haptk._fast.inet cimport (AF_INET, AF_INET6, AF_UNIX, getsockname, htons, ntohs, sockaddr, sockaddr_in, sockaddr_in6,
                               sockaddr_storage, socklen_t)
from haptk._fast.sockets cimport IO_AGAIN, IO_EOF, IO_ERROR, close_fd, fill, put2, reset_fd, socket_error, watch

cdef extern from "<sys/socket.h>" nogil:
    int SOCK_STREAM, SOCK_NONBLOCK, SOCK_CLOEXEC, SOL_SOCKET, SO_REUSEADDR
    int socket(int family, int kind, int protocol)
    int connect(int fd, const sockaddr *addr, socklen_t n)
    int bind(int fd, const sockaddr *addr, socklen_t n)
    int setsockopt(int fd, int level, int name, const void *value, socklen_t n)
    int getpeername(int fd, sockaddr *addr, socklen_t *n)

cdef extern from "<netinet/tcp.h>" nogil:
    int TCP_NODELAY, TCP_QUICKACK, IPPROTO_TCP

cdef extern from "<netinet/in.h>" nogil:
    int IP_BIND_ADDRESS_NO_PORT, IPPROTO_IP

cdef enum:
    PROXY_ROOM = 128

cdef extern from *:
    """
    static const char haptk_proxy_local[16] = "\\r\\n\\r\\n\\0\\r\\nQUIT\\n\\x20\\0\\0\\0";
    """
    const char haptk_proxy_local[16]


# ---------------------------------------------------------------- transport

cdef int bind_source(CheckC *c, int fd) noexcept nogil:
    # 0, or an errno. Ports of a range are taken in turn.
    cdef Address from_where = c.source
    cdef int one = 1, port, most = c.source_high - c.source_low + 1
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one))
    if c.source_low == 0:
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one))
        return 0 if bind(fd, <sockaddr *>&from_where.a, from_where.n) == 0 else errno
    for _ in range(most):
        port = c.source_low + (c.source_next % most)
        c.source_next += 1
        if from_where.a.ss_family == AF_INET6:
            (<sockaddr_in6 *>&from_where.a).sin6_port = htons(<uint16_t>port)
        else:
            (<sockaddr_in *>&from_where.a).sin_port = htons(<uint16_t>port)
        if bind(fd, <sockaddr *>&from_where.a, from_where.n) == 0:
            return 0
    return EADDRINUSE


cdef int dial(EngineC *e, CheckC *c, StepC *step, Address *to) noexcept nogil:
    # 0 when a connection is under way or made (c.fd), else an errno.
    cdef int one = 1, zero = 0, error = 0
    cdef int family = to.a.ss_family
    c.fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if c.fd < 0:
        return errno
    fd_opened(c.fd, FD_SERVER)
    if family != AF_UNIX:
        setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))
        if step.last or step.has_data:
            setsockopt(c.fd, IPPROTO_TCP, TCP_QUICKACK, &zero, sizeof(zero))
        if c.source.n and c.source.a.ss_family == family:
            error = bind_source(c, c.fd)
    if not error and connect(c.fd, <sockaddr *>&to.a, to.n) != 0:
        error = errno
        if error == EINPROGRESS or error == EALREADY or error == EISCONN:
            error = 0
    if not error and watch(e.epfd, c.fd, c) != 0:
        error = errno
    return error


cdef int connected(CheckC *c) noexcept nogil:
    # -1 while it is being made, 0 when it is, else the errno that ended it.
    cdef sockaddr_storage peer
    cdef socklen_t n = sizeof(peer)
    cdef int error = socket_error(c.fd)
    if error:
        return error
    return 0 if getpeername(c.fd, <sockaddr *>&peer, &n) == 0 else -1


cdef int64_t carry(CheckC *c, Span data) noexcept nogil:
    # Bytes that went out; IO_AGAIN for "later", IO_ERROR with c.error set.
    cdef int64_t got = put2(c.fd, data, span_none())
    if got == IO_ERROR:
        c.error = errno
    return got


cdef void take(EngineC *e, CheckC *c) noexcept nogil:
    # What has come, as far as there is room for it; c.eof and c.error say how it ended.
    cdef int64_t got
    while c.data.n < e.bufsize and not c.eof:
        got = fill(c.fd, &c.data)
        if got == IO_AGAIN:
            return
        if got == IO_ERROR:
            c.error = errno
        if got == IO_ERROR or got == IO_EOF:
            c.eof = 1


cdef void hang_up(CheckC *c, bint linger) noexcept nogil:
    if c.fd < 0:
        return
    if linger or c.eof or c.error:
        close_fd(c.fd)
    else:
        reset_fd(c.fd)
    c.fd = -1


# ---------------------------------------------------------------- buffers

cdef bint get_data(EngineC *e, CheckC *c) noexcept nogil:
    cdef void *memory
    if buf_held(&c.data):
        return 1
    if e.free_n:
        e.free_n -= 1
        memory = e.free_bufs[e.free_n]
    else:
        memory = malloc(e.bufsize)
    if memory != NULL:
        buf_give(&c.data, memory, e.bufsize)
    return buf_held(&c.data)


cdef void drop_data(EngineC *e, CheckC *c) noexcept nogil:
    if buf_held(&c.data):
        e.free_bufs[e.free_n] = buf_take_back(&c.data)
        e.free_n += 1
    memset(&c.data, 0, sizeof(c.data))


# ---------------------------------------------------------------- steps

cdef bint linger_of(CheckC *c) noexcept nogil:
    # What the connection step said under which the descriptor was opened.
    cdef int i = c.at if c.at < c.count else c.count - 1
    while i > 0 and c.steps[i].action != A_CONNECT:
        i -= 1
    return c.steps[i].linger


cdef void proxy_text(CheckC *c, Room *out) noexcept nogil:
    # Version 1: our own two ends.
    cdef sockaddr_storage ends[2]
    cdef socklen_t n
    cdef int i
    n = sizeof(ends[0])
    if getsockname(c.fd, <sockaddr *>&ends[0], &n) != 0 or ends[0].ss_family not in (AF_INET, AF_INET6):
        room_word(out, b"PROXY UNKNOWN\r\n")
        return
    n = sizeof(ends[1])
    getpeername(c.fd, <sockaddr *>&ends[1], &n)
    room_word(out, b"PROXY TCP4 " if ends[0].ss_family == AF_INET else b"PROXY TCP6 ")
    for i in range(2):
        if ends[i].ss_family == AF_INET:
            room_address(out, AF_INET, <const uint8_t *>&(<sockaddr_in *>&ends[i]).sin_addr)
        else:
            room_address(out, AF_INET6, (<sockaddr_in6 *>&ends[i]).sin6_addr.s6_addr)
        room_char(out, b' ')
    for i in range(2):
        if ends[i].ss_family == AF_INET:
            room_decimal(out, ntohs((<sockaddr_in *>&ends[i]).sin_port))
        else:
            room_decimal(out, ntohs((<sockaddr_in6 *>&ends[i]).sin6_port))
        room_char(out, b' ' if i == 0 else b'\r')
    room_char(out, b'\n')


cdef bint send_header(CheckC *c, int version) noexcept nogil:
    cdef char bytes_[PROXY_ROOM]
    cdef Room room = room_over(bytes_, PROXY_ROOM)
    if version == 2:
        room_put(&room, span_over(haptk_proxy_local, 16))
    else:
        proxy_text(c, &room)
    if carry(c, room_span(&room)) == span_len(room_span(&room)):
        return 1
    if not c.error:
        c.error = ECONNRESET
    return 0


cdef Verdict broken(CheckC *c) noexcept nogil:
    settle_broken(c, c.error, 0)
    return V_STOP


cdef Verdict connect_begin(EngineC *e, CheckC *c, StepC *step) noexcept nogil:
    cdef Address to = step.addr if step.addr.n else c.target
    cdef int64_t due
    hang_up(c, linger_of(c))
    drop_data(e, c)
    c.eof = c.error = 0
    c.phase = P_CONNECTING
    c.open = 1
    if step.port and to.a.ss_family == AF_INET:
        (<sockaddr_in *>&to.a).sin_port = htons(<uint16_t>step.port)
    elif step.port and to.a.ss_family == AF_INET6:
        (<sockaddr_in6 *>&to.a).sin6_port = htons(<uint16_t>step.port)
    c.error = dial(e, c, step, &to)
    if c.error:
        if c.fd < 0:
            c.phase = P_IDLE    # this machine's trouble
        return broken(c)
    due = e.now + c.inter
    if c.connect_timeout and e.now + c.connect_timeout < due:
        due = e.now + c.connect_timeout
    timer_set(e, c, due)
    return V_WAIT


cdef Verdict connect_go_on(EngineC *e, CheckC *c, StepC *step, bint broke) noexcept nogil:
    # An event without an error says that the connection stands.
    cdef int version = step.send_proxy if step.send_proxy else c.send_proxy if step.plain else 0
    c.error = connected(c) if broke else 0
    if c.error < 0:
        c.error = 0
        return V_WAIT
    if c.error:
        return broken(c)
    c.open = 0
    c.phase = P_SENDING
    if version and not send_header(c, version):
        return broken(c)
    if c.timeout:
        timer_set(e, c, e.now + c.timeout)
    c.must_read = 1
    return V_GO


cdef Verdict send_step(EngineC *e, CheckC *c, StepC *step) noexcept nogil:
    cdef Span data = c.own if span_given(c.own) and c.http else step.data
    cdef uint32_t n = span_len(data)
    cdef int64_t got
    c.phase = P_SENDING
    if c.sent == 0:
        drop_data(e, c)     # an answer to what was sent before is not one to this
    c.no_body = step.no_body
    if n >= e.bufsize and not c.http:
        unsay(c)
        say(c, b"tcp-check send : string too large (")
        say_number(c, n)
        say(c, b") for buffer size (")
        say_number(c, e.bufsize)
        say(c, b") at step ")
        say_number(c, step.number)
        settle(c, O_L7RSP)
        return V_STOP
    while c.sent < n:
        got = carry(c, span_from(data, c.sent))
        if got < 0:
            return broken(c) if got == IO_ERROR else V_WAIT
        c.sent += <uint32_t>got
    c.sent = 0
    c.must_read = 1
    return V_GO


cdef Verdict read_some(EngineC *e, CheckC *c, StepC *step) noexcept nogil:
    # V_GO when there is something to look at.
    cdef uint32_t before
    c.phase = P_READING
    if not get_data(e, c):
        settle(c, O_SOCKERR)
        return V_STOP
    before = c.data.n
    take(e, c)
    if c.data.n == 0 and c.error:
        return broken(c)    # a reset behind data is what it is: the end
    if c.data.n == before and not c.eof and c.data.n < e.bufsize:
        return V_WAIT
    if c.data.n == 0 and not c.http:
        unsay(c)
        say(c, b"TCPCHK got an empty response at step ")
        say_number(c, step.number)
        say_comment(c, step, 1)
        settle(c, step.error_status if step.error_status != O_UNK else O_L7RSP)
        return V_STOP
    return V_GO


cdef Verdict expect_step(EngineC *e, CheckC *c, StepC *step) noexcept nogil:
    cdef Verdict got
    if c.must_read:
        got = read_some(e, c, step)
        if got != V_GO:
            return got
        c.must_read = 0
    # what came before a reset is looked at; that it ends there is no end of an HTTP answer
    got = judge(e, c, step, c.eof and not (c.error and c.http))
    if got == V_WAIT and c.error:
        return broken(c)
    if got == V_WAIT:
        c.at = step.head
        c.must_read = 1
    return got


cdef void finish(EngineC *e, CheckC *c) noexcept nogil:
    hang_up(c, linger_of(c))
    drop_data(e, c)
    c.open = 0
    c.phase = P_IDLE
    timer_set(e, c, 0)
    c.ended = e.now


cdef void play(EngineC *e, CheckC *c, bint broke) noexcept nogil:
    cdef StepC *step
    cdef Verdict got = V_GO
    while c.at < c.count:
        step = &c.steps[c.at]
        if step.action == A_CONNECT:
            got = connect_go_on(e, c, step, broke) if c.open else connect_begin(e, c, step)
        else:
            c.code = 0
            got = send_step(e, c, step) if step.action == A_SEND else expect_step(e, c, step)
        if got == V_WAIT:
            return
        if got == V_STOP:
            break
        c.at += 1
    if got == V_GO:
        settle_passed(c)
    finish(e, c)


cdef void play_begin(EngineC *e, CheckC *c) noexcept nogil:
    c.started = e.now
    c.outcome = O_UNK
    c.at = c.code = 0
    c.sent = 0
    unsay(c)
    c.open = c.eof = c.error = 0
    e.begun += 1
    play(e, c, 0)


cdef void play_event(EngineC *e, CheckC *c, bint broken) noexcept nogil:
    if c.phase != P_IDLE:
        play(e, c, broken)


cdef void play_expired(EngineC *e, CheckC *c) noexcept nogil:
    settle_broken(c, 0, 1)
    finish(e, c)


cdef void play_drop(EngineC *e, CheckC *c) noexcept nogil:
    if c.phase != P_IDLE:
        finish(e, c)

# state: one check and what it found. A CheckC belongs to the engine's thread; only its Found is read by others, under
# its lock.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from haptk._fast.bytes.buf cimport Buf
from haptk._fast.bytes.span cimport Room, Span
from haptk._fast.checks.plan cimport Address, StepC
from haptk._fast.http1 cimport Head
from haptk._fast.regex cimport RegexRoom

cdef enum:
    DESC_SIZE = 128         # of a text, as HAProxy cuts it
    LINE_SIZE = 1024        # of an agent's answer

cdef enum Phase:
    P_IDLE = 0              # waits for its time, or for the control plane's decision
    P_CONNECTING, P_SENDING, P_READING

cdef enum Verdict:          # of a step
    V_WAIT = 0, V_GO, V_STOP

ctypedef struct Found:
    int lock
    int outcome             # plan.Outcome
    int code                # status of an answer
    int64_t duration_ms     # -1: not known
    Room desc               # over the bytes behind it
    char desc_bytes[DESC_SIZE]
    uint64_t number         # grows with each result

ctypedef struct CheckC:
    int index
    int fd                  # -1: none
    Phase phase
    int at                  # step
    bint open               # `at` is a connection that is being made
    StepC *steps
    int count
    bint http
    bint agent
    bint tcp_texts
    bint no_body
    # where
    Address target
    Address source
    int source_low
    int source_high
    int source_next
    int send_proxy
    # how long, ms
    int64_t inter
    int64_t connect_timeout  # 0: inter alone
    int64_t timeout         # 0: what is left of inter
    # what the control plane said
    int steady              # an outcome that changes nothing; O_UNK: it decides each time
    int64_t steady_ms       # until the next check after such an outcome
    bint stopped            # its server is down: no conditional pass
    bint off_404            # http-check disable-on-404
    bint asks               # the control plane says what is sent, each time (http-check send-state)
    bint paused
    # under way
    int64_t started
    int64_t ended
    int64_t due             # 0: nothing
    int place               # in the heap, -1: in none
    Buf data                # bytes received, all of them unseen
    bint eof
    int error               # errno that ended the connection
    bint must_read
    uint32_t sent
    Span own                # what is sent instead of the step's data, for `asks`
    int outcome             # O_UNK while it is under way
    int code
    Room desc
    char desc_bytes[DESC_SIZE]
    Room line               # of an agent
    char line_bytes[LINE_SIZE]
    Found found

ctypedef struct EngineC:
    int epfd
    int wake_fd
    int wake_kind           # its address tells the descriptor from a check
    int alarm_kind
    int alarm_fd            # borrowed, -1: none
    int woken
    int alarmed
    int64_t now
    int64_t began
    uint32_t bufsize
    uint32_t spread         # percent
    uint64_t rng
    CheckC **heap
    int heap_n
    int room                # of heap and results
    int *results
    int result_n
    void **free_bufs
    int free_n
    Buf scratch             # an answer is parsed in a copy
    Room hex
    Head head
    RegexRoom regex
    uint64_t begun
    uint64_t quiet          # results that stayed here

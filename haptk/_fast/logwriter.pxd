# logwriter: the one thread that sends the lines of all workers. Owns the sockets, and the rings in memory. Traffic never
# waits for it: a worker whose lane is full drops its lines.
#
# A record leaves its lane when every target that wants it has taken or lost it. A datagram socket whose reader is slow is
# waited for a little, as long as lanes have room; one that stays full loses its lines at once until it takes one again.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from haptk._fast.state cimport LogLane, Place

cdef extern from "<sys/uio.h>" nogil:
    cdef struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass

cdef enum:
    BATCH = 64              # lines given to the kernel at once
    PIECES = 4              # of a line: header, structured data, text, line end
    HEADER_MAX = 640

cdef enum SinkKind:
    SINK_SOCKET = 0, SINK_STREAM, SINK_RING

cdef enum HeaderFormat:     # of a line; proxy/logformats.py has the names in this order
    LF_LOCAL = 0, LF_RFC3164, LF_RFC5424, LF_PRIORITY, LF_SHORT, LF_TIMED, LF_ISO, LF_RAW

ctypedef struct EventsC:    # lines in memory, the oldest make room; each as length (32 bits) and bytes
    pthread_mutex_t lock
    char *d
    uint32_t size
    uint64_t first          # bytes ever written before the oldest line that is there
    uint64_t end            # bytes ever written
    uint64_t dropped        # lines that are larger than the ring
    uint32_t most           # bytes of a line

ctypedef struct Line:       # on its way to a sink
    iovec piece[PIECES]
    int pieces
    uint32_t length
    char header[HEADER_MAX]

ctypedef struct Sink:       # a place; several targets may share it
    int kind                # SinkKind
    int fd                  # -1 while it could not be opened
    int owned
    int pipe                # writes of a pipe are whole up to 4096 bytes
    int stalled
    int torn                # the last line was cut short: a line end comes first
    Place *place
    EventsC *events
    int64_t again_ms        # when it is worth trying to open it again
    uint64_t dropped
    uint64_t sent
    int count               # lines in the batch
    Line lines[BATCH]

ctypedef struct Target:     # a `log` line of one frontend
    Sink *sink
    int format              # HeaderFormat
    int facility
    int level
    int least               # minlevel
    uint32_t length
    char *host
    uint32_t host_n
    char *tag
    uint32_t tag_n
    int *ranges             # sample: pairs, from 1; NULL for all
    int range_count
    int range_at            # which range comes next, and how far it is used
    int range_used
    int sample_size
    int sample_at
    int64_t second          # of the stamp
    char stamp[40]
    uint32_t stamp_n

ctypedef struct Targets:    # of one frontend
    Target *items
    int count

cdef class EventRing:
    cdef EventsC c
    cdef readonly str name
    cdef readonly str description
    cdef readonly str format

cdef class LogWriter:
    cdef LogLane *lanes[256]
    cdef int lane_count
    cdef Sink *sinks
    cdef int sink_count
    cdef Targets *plans
    cdef int plan_count
    cdef int stopping           # atomic
    cdef char pid[16]
    cdef uint32_t pid_n
    cdef list kept
    cdef object blocks      # addresses to free, in an array as Image's
    cdef object image
    cdef list workers
    cdef readonly dict rings

    cdef void *block(self, size_t count, size_t size) except NULL
    cdef char *bytes_of(self, value, uint32_t *n) except NULL
    cdef int fill_sink(self, Sink *out, str address) except -1
    cdef int fill_target(self, Target *out, target, plan, dict sinks) except -1

# logplan: what a frontend logs, as a list of small steps. Built once under the GIL from tables.LogPlan, read without it
# by logline and journal. The Arena owns the memory; only the counter changes afterwards.

from libc.stdint cimport uint8_t, uint32_t

from haptk._fast.program cimport Arena, FormatC

cdef enum LogMoment:        # when the line is written
    LOG_END = 0, LOG_REQUEST, LOG_RESPONSE

cdef enum LogMask:          # of a byte: what it becomes
    LOG_URL = 1             # #XX in a request line
    LOG_CAPTURE = 2         # #XX in a capture
    LOG_STRUCTURED = 4      # \ before it with +E
    LOG_FIELD = 8           # %XX in a header
    LOG_ENDS = 16           # #XX in a sample: it would begin a line of its own

cdef uint8_t LOG_BYTES[256]

ctypedef struct LogPlanC:
    int index               # of the frontend
    int plain               # no format: HAProxy's "Connect from" when a stream begins
    FormatC line
    FormatC error         # of what never became a request
    FormatC structured    # of rfc5424
    int own_error           # error-log-format, not the line's
    int moment              # LogMoment
    int early               # values that only the end knows carry a +
    int dontlognull
    int no_normal           # option dontlog-normal
    int separate_errors
    int wants_line          # the request line is kept
    int wants_local         # %fi, %fp
    int wants_link          # %bi, %bp, %si, %sp
    int wants_room          # samples
    uint32_t most           # bytes of a line
    int *lines              # atomic, shared by all workers: %lc

# What `plan` (tables.LogPlan of a tables.Frontend) means; `most` is the longest line that any target takes.
cdef LogPlanC *log_plan(Arena arena, fe, int index, int most) except NULL
# Whether some step is one of the variables in `names`.
cdef bint log_names(chosen, names)

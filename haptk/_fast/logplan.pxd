# logplan: what a frontend logs, as a list of small steps. Built once under the GIL from tables.LogPlan, read without it
# by logline and journal. The Arena owns the memory; only the counter changes afterwards.

from libc.stdint cimport uint8_t, uint32_t

from haptk._fast.program cimport Arena, ExprC, Text

cdef enum LogOpId:          # after L_EXPR the variables of configuration.txt 8.2.4, by their names
    L_TEXT = 0, L_SPACE, L_EXPR
    L_B, L_CC, L_CS, L_H, L_HM, L_HP, L_HPO, L_HQ, L_HU, L_HV, L_ID, L_ST, L_T, L_Ta, L_Tc, L_Td, L_Th, L_Ti, L_Tl
    L_Tq, L_TR, L_Tr, L_Ts, L_Tt, L_Tu, L_Tw, L_U, L_ac, L_b, L_bc, L_bi, L_bp, L_bq, L_ci, L_cp, L_f, L_fc, L_fi
    L_fp, L_ft, L_hr, L_hrl, L_hs, L_hsl, L_lc, L_ms, L_pid, L_r, L_rc, L_rt, L_s, L_sc, L_si, L_sp, L_sq, L_t, L_tr
    L_trg, L_trl, L_ts, L_tsc

cdef enum LogFlag:
    LOG_QUOTE = 1, LOG_HEX = 2, LOG_ESCAPE = 4
    LOG_DASH = 8            # what is not there is a dash
    LOG_HEADER = 16         # bytes that no header may have become %XX

cdef enum LogMoment:        # when the line is written
    LOG_END = 0, LOG_REQUEST, LOG_RESPONSE

cdef enum LogMask:          # of a byte: what it becomes
    LOG_URL = 1             # #XX in a request line
    LOG_CAPTURE = 2         # #XX in a capture
    LOG_STRUCTURED = 4      # \ before it with +E
    LOG_FIELD = 8           # %XX in a header
    LOG_ENDS = 16           # #XX in a sample: it would begin a line of its own

cdef uint8_t LOG_BYTES[256]

ctypedef struct LogOp:
    int op                  # LogOpId
    int flags               # LogFlag
    Text text
    ExprC *expr

ctypedef struct LogFormat:
    LogOp *ops
    int count

ctypedef struct LogPlanC:
    int index               # of the frontend
    int plain               # no format: HAProxy's "Connect from" when a stream begins
    LogFormat line
    LogFormat error         # of what never became a request
    LogFormat structured    # of rfc5424
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
cdef int log_format(Arena arena, LogFormat *out, chosen, int flags) except -1
# Whether some step is one of the variables in `names`.
cdef bint log_names(chosen, names)

# Names become numbers here; what absent formats mean was decided in proxy/logformats.py.

from haptk._fast.program cimport LOG_DASH, LOG_MERGE

from haptk.core.acl import Expr, Variable
from haptk.proxy import logformats

_MOMENTS = {"end": LOG_END, "request": LOG_REQUEST, "response": LOG_RESPONSE}


cdef void fill_bytes() noexcept:
    cdef int c
    for c in range(256):
        LOG_BYTES[c] = 0
        if c < 32 or c > 126:
            LOG_BYTES[c] = LOG_URL | LOG_CAPTURE
        if c < 32 and c != 9 or c == 127:
            LOG_BYTES[c] |= LOG_FIELD
    for c in b"\"#":
        LOG_BYTES[c] |= LOG_URL | LOG_CAPTURE
    for c in b"{|}":
        LOG_BYTES[c] |= LOG_CAPTURE
    for c in b"\"\\]":
        LOG_BYTES[c] |= LOG_STRUCTURED
    for c in b"\0\r\n":
        LOG_BYTES[c] |= LOG_ENDS


fill_bytes()


cdef bint log_names(chosen, names):
    return chosen is not None and any(isinstance(part, Variable) and part.name in names for part in chosen.parts)


cdef LogPlanC *log_plan(Arena arena, fe, int index, int most) except NULL:
    cdef LogPlanC *out = <LogPlanC *>arena.block(1, sizeof(LogPlanC))
    plan = fe.log
    line = logformats.line_of(plan)
    formats = [line, plan.error_format, plan.sd_format, fe.unique_id_format]
    out.index = index
    out.plain = line is None
    arena.format(&out.line, line, LOG_DASH | LOG_MERGE)
    arena.format(&out.error, plan.error_format or line, LOG_DASH | LOG_MERGE)
    arena.format(&out.structured, plan.sd_format, LOG_DASH | LOG_MERGE)
    out.own_error = plan.error_format is not None
    out.moment = _MOMENTS[logformats.moment_of(plan, fe.unique_id_format)]
    out.early = logformats.is_early(plan, fe.unique_id_format)
    out.dontlognull = plan.dontlognull
    out.no_normal = plan.dontlog_normal
    out.separate_errors = plan.log_separate_errors
    out.wants_line = fe.mode == "http"
    out.wants_local = out.plain or any(log_names(one, ("fi", "fp")) for one in formats)
    out.wants_link = any(log_names(one, ("bi", "bp", "si", "sp")) for one in formats)
    out.wants_room = any(isinstance(part, Expr) for one in formats if one is not None for part in one.parts)
    out.most = most
    out.lines = <int *>arena.block(1, 64)
    return out

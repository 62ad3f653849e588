# Names become numbers here; what absent formats mean was decided in proxy/logformats.py.

import socket as pysocket

from haptk.core.acl import Expr, Variable
from haptk.proxy import logformats

_OPS = {
    "B": L_B, "CC": L_CC, "CS": L_CS, "H": L_H, "HM": L_HM, "HP": L_HP, "HPO": L_HPO, "HQ": L_HQ, "HU": L_HU,
    "HV": L_HV, "ID": L_ID, "ST": L_ST, "T": L_T, "Ta": L_Ta, "Tc": L_Tc, "Td": L_Td, "Th": L_Th, "Ti": L_Ti,
    "Tl": L_Tl, "Tq": L_Tq, "TR": L_TR, "Tr": L_Tr, "Ts": L_Ts, "Tt": L_Tt, "Tu": L_Tu, "Tw": L_Tw, "U": L_U,
    "ac": L_ac, "b": L_b, "bc": L_bc, "bi": L_bi, "bp": L_bp, "bq": L_bq, "ci": L_ci, "cp": L_cp, "f": L_f,
    "fc": L_fc, "fi": L_fi, "fp": L_fp, "ft": L_ft, "hr": L_hr, "hrl": L_hrl, "hs": L_hs, "hsl": L_hsl, "lc": L_lc,
    "ms": L_ms, "pid": L_pid, "r": L_r, "rc": L_rc, "rt": L_rt, "s": L_s, "sc": L_sc, "si": L_si, "sp": L_sp,
    "sq": L_sq, "t": L_t, "tr": L_tr, "trg": L_trg, "trl": L_trl, "ts": L_ts, "tsc": L_tsc,
}
_FLAGS = {"Q": LOG_QUOTE, "X": LOG_HEX, "E": LOG_ESCAPE, "M": LOG_DASH}
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


def _with(int flags, text):
    # "+Q,-X" on top of what was set before; words that are none of ours change nothing, as in HAProxy
    for word in text.split(","):
        if word[1:] in _FLAGS:
            if word[0] == "+":
                flags |= _FLAGS[word[1:]]
            elif word[0] == "-":
                flags &= ~_FLAGS[word[1:]]
    return flags


def _steps(chosen, int flags):
    """The steps of a Format as (op, flags, text, expression)."""
    steps = []
    for part in chosen.parts if chosen is not None else ():
        if isinstance(part, str):
            for index, piece in enumerate(part.split(" ")):
                if index:
                    steps.append((L_SPACE, 0, None, None))
                if piece:
                    steps.append((L_TEXT, 0, piece, None))
        elif isinstance(part, Expr):
            steps.append((L_EXPR, _with(flags, part.flags), None, part))
        elif part.name == "o":
            flags = _with(flags, part.flags)
        else:
            text = pysocket.gethostname() if part.name == "H" else None
            steps.append((_OPS[part.name], _with(flags, part.flags), text, None))
    return steps


cdef int log_format(Arena arena, LogFormat *out, chosen, int flags) except -1:
    cdef int i
    steps = _steps(chosen, flags)
    out.count = len(steps)
    out.ops = <LogOp *>arena.block(out.count, sizeof(LogOp))
    for i, (op, own, text, expr) in enumerate(steps):
        out.ops[i].op = op
        out.ops[i].flags = own
        if text is not None:
            arena.text(&out.ops[i].text, text)
        if expr is not None:
            out.ops[i].expr = <ExprC *>arena.block(1, sizeof(ExprC))
            arena.expr(out.ops[i].expr, expr)
    return 0


cdef bint log_names(chosen, names):
    return chosen is not None and any(isinstance(part, Variable) and part.name in names for part in chosen.parts)


cdef LogPlanC *log_plan(Arena arena, fe, int index, int most) except NULL:
    cdef LogPlanC *out = <LogPlanC *>arena.block(1, sizeof(LogPlanC))
    plan = fe.log
    line = logformats.line_of(plan)
    formats = [line, plan.error_format, plan.sd_format, fe.unique_id_format]
    out.index = index
    out.plain = line is None
    log_format(arena, &out.line, line, LOG_DASH)
    log_format(arena, &out.error, plan.error_format or line, LOG_DASH)
    log_format(arena, &out.structured, plan.sd_format, LOG_DASH)
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

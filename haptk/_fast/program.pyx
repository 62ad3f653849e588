# Plain translation, word by word; what a word means to HAProxy was decided in formats/haproxy_cfg. Strings of rules
# have one character for each byte (proxy/compile_rules.py sees to that), as the reference's heads have.

import ipaddress
import os
import re as pyre
import socket as pysocket
from array import array

cimport cython

from libc.stdint cimport INT64_MAX, INT64_MIN
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from haptk._fast.regex cimport regex_compile, regex_free, regex_native

from haptk.core.acl import Expr
from haptk.proxy.pages import REDIRECT_REASONS, reason
from haptk.proxy.service import SERVICES

_FETCHES = {
    "base": F_BASE, "path": F_PATH, "pathq": F_PATHQ, "query": F_QUERY, "url": F_URL, "url_param": F_URL_PARAM,
    "method": F_METHOD, "req.ver": F_VERSION, "res.ver": F_VERSION, "req.hdr": F_HDR, "res.hdr": F_HDR,
    "req.fhdr": F_FHDR, "res.fhdr": F_FHDR, "req.hdr_cnt": F_HDR_CNT, "res.hdr_cnt": F_HDR_CNT,
    "req.fhdr_cnt": F_FHDR_CNT, "req.hdr_val": F_HDR_VAL, "res.hdr_val": F_HDR_VAL, "req.hdr_ip": F_HDR_IP,
    "req.cook": F_COOK, "res.cook": F_COOK, "req.cook_cnt": F_COOK_CNT, "res.cook_cnt": F_COOK_CNT,
    "req.cook_val": F_COOK_VAL, "status": F_STATUS, "src": F_SRC, "src_port": F_SRC_PORT, "dst": F_DST,
    "dst_port": F_DST_PORT, "fe_name": F_FE_NAME, "be_name": F_BE_NAME, "srv_name": F_SRV_NAME, "so_id": F_SO_ID,
    "so_name": F_SO_NAME, "http_first_req": F_FIRST, "nbsrv": F_NBSRV, "be_conn": F_BE_CONN,
    "capture.req.hdr": F_KEPT_REQUEST, "capture.res.hdr": F_KEPT_RESPONSE, "capture.req.method": F_KEPT_METHOD,
    "capture.req.uri": F_KEPT_URI, "capture.req.ver": F_KEPT_VERSION, "capture.res.ver": F_KEPT_RES_VERSION,
}
_TRUE = {"always_true": 1, "always_false": 0, "wait_end": 1, "ssl_fc": 0, "req.proto_http": 1}
_CONVERTERS = {
    "lower": C_LOWER, "upper": C_UPPER, "length": C_LENGTH, "add": C_ADD, "sub": C_SUB, "not": C_NOT,
    "concat": C_CONCAT, "bytes": C_BYTES, "field": C_FIELD, "word": C_WORD, "url_dec": C_URL_DEC, "regsub": C_REGSUB,
    "mul": C_MUL, "div": C_DIV, "mod": C_MOD, "neg": C_NEG, "and": C_AND, "or": C_OR, "xor": C_XOR, "cpl": C_CPL,
    "odd": C_ODD, "even": C_EVEN, "bool": C_BOOL, "base64": C_BASE64, "b64dec": C_B64DEC, "hex": C_HEX,
    "rtrim": C_RTRIM, "ltrim": C_LTRIM,
}
_MATCHES = {
    "str": MT_STR, "beg": MT_BEG, "end": MT_END, "sub": MT_SUB, "dir": MT_DIR, "dom": MT_DOM, "reg": MT_REG,
    "len": MT_LEN, "int": MT_INT, "ip": MT_IP, "found": MT_FOUND, "bool": MT_BOOL,
}
_ACTIONS = {
    "allow": A_ALLOW, "deny": A_DENY, "return": A_RETURN, "redirect": A_REDIRECT, "set-header": A_SET_HEADER,
    "add-header": A_ADD_HEADER, "del-header": A_DEL_HEADER, "replace-header": A_REPLACE_HEADER,
    "replace-value": A_REPLACE_VALUE, "set-status": A_SET_STATUS, "set-method": A_SET_METHOD, "set-path": A_SET_PATH,
    "set-pathq": A_SET_PATHQ, "set-query": A_SET_QUERY, "set-uri": A_SET_URI, "capture": A_CAPTURE,
    "disable-l7-retry": A_NO_RETRY, "set-log-level": A_LOG_LEVEL, "replace-path": A_REPLACE_PATH,
    "replace-pathq": A_REPLACE_PATHQ,
    "replace-uri": A_REPLACE_URI, "use-service": A_USE_SERVICE,
    "use_backend": A_USE_BACKEND, "force-persist": A_FORCE_PERSIST, "ignore-persist": A_IGNORE_PERSIST,
    "monitor-fail": A_MONITOR_FAIL,
}
_OPS = {
    "B": L_B, "CC": L_CC, "CS": L_CS, "H": L_H, "HM": L_HM, "HP": L_HP, "HPO": L_HPO, "HQ": L_HQ, "HU": L_HU,
    "HV": L_HV, "ID": L_ID, "ST": L_ST, "T": L_T, "Ta": L_Ta, "Tc": L_Tc, "Td": L_Td, "Th": L_Th, "Ti": L_Ti,
    "Tl": L_Tl, "Tq": L_Tq, "TR": L_TR, "Tr": L_Tr, "Ts": L_Ts, "Tt": L_Tt, "Tu": L_Tu, "Tw": L_Tw, "U": L_U,
    "ac": L_ac, "b": L_b, "bc": L_bc, "bi": L_bi, "bp": L_bp, "bq": L_bq, "ci": L_ci, "cp": L_cp, "f": L_f,
    "fc": L_fc, "fi": L_fi, "fp": L_fp, "ft": L_ft, "hr": L_hr, "hrl": L_hrl, "hs": L_hs, "hsl": L_hsl, "lc": L_lc,
    "ms": L_ms, "pid": L_pid, "r": L_r, "rc": L_rc, "rt": L_rt, "s": L_s, "sc": L_sc, "si": L_si, "sp": L_sp,
    "sq": L_sq, "t": L_t, "tr": L_tr, "trg": L_trg, "trl": L_trl, "ts": L_ts, "tsc": L_tsc,
    "sslc": L_sslc, "sslv": L_sslv,
}
_FLAGS = {"Q": LOG_QUOTE, "X": LOG_HEX, "E": LOG_ESCAPE, "M": LOG_DASH}
_DELIMITERS = {"dir": "/?", "dom": "/?.:"}


cdef int64_t _bound(str text, int64_t otherwise) except? -1:
    return max(INT64_MIN, min(INT64_MAX, int(text))) if text else otherwise


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
        if isinstance(part, str) and not flags & LOG_MERGE:
            steps.append((L_TEXT, 0, part, None))
        elif isinstance(part, str):
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


@cython.no_gc_clear     # __dealloc__ needs the arrays
cdef class Arena:
    """Owner of the C form of rules. `names` maps backend names to their indices."""

    def __cinit__(self, names=None):
        self.kept = []
        self.blocks = array("Q")
        self.codes = array("Q")
        self.patterns = []
        self.names = dict(names or {})

    def __dealloc__(self):
        for code in self.codes or ():
            regex_free(<void *><size_t>code)
        for address in self.blocks or ():
            free(<void *><size_t>address)

    cdef void *block(self, size_t count, size_t size) except NULL:
        cdef void *got = calloc(count if count else 1, size)
        if got == NULL:
            raise MemoryError
        self.blocks.append(<size_t>got)
        return got

    cdef int text(self, Text *out, value) except -1:
        if value is None:
            out.p = NULL
            out.n = 0
            return 0
        if isinstance(value, str):
            try:
                value = value.encode("latin-1")
            except UnicodeEncodeError:
                value = value.encode("utf-8", "surrogateescape")
        self.kept.append(value)
        out.p = <char *>(<bytes>value)
        out.n = len(value)
        return 0

    cdef int net(self, Net *out, value) except -1:
        network = ipaddress.ip_network(value, strict=False)
        packed = network.network_address.packed
        out.family = pysocket.AF_INET if network.version == 4 else pysocket.AF_INET6
        out.bits = network.prefixlen
        memcpy(out.base, <char *>(<bytes>packed), len(packed))
        return 0

    cdef RegexC *regex(self, str pattern, bint ignore_case) except NULL:
        cdef RegexC *out = <RegexC *>self.block(1, sizeof(RegexC))
        out.code = regex_compile(pattern.encode("latin-1", "replace"), ignore_case)
        if regex_native():
            self.codes.append(<size_t>out.code)
        else:
            self.patterns.append(pyre.compile(pattern, pyre.ASCII | (pyre.IGNORECASE if ignore_case else 0)))
        out.number = len(self.patterns) - 1
        out.patterns = <void *>self.patterns
        return out

    # ---- expressions

    cdef int converter(self, ConverterC *out, call) except -1:
        args = call.args
        out.op = _CONVERTERS[call.name]
        out.b = INT64_MAX
        if call.name in ("add", "sub", "mul", "div", "mod", "and", "or", "xor", "field", "word", "bytes"):
            out.a = _bound(args[0], 0)
            if call.name == "bytes" and len(args) > 1:
                out.b = _bound(args[1], 0)
            elif call.name in ("field", "word"):
                self.text(&out.text, args[1])
        elif call.name in ("concat", "rtrim", "ltrim"):
            self.text(&out.text, args[0])
        elif call.name == "url_dec":
            out.a = bool(args) and args[0] not in ("", "0")
        elif call.name == "regsub":
            flags = args[2] if len(args) > 2 else ""
            out.regex = self.regex(args[0], "i" in flags)
            self.text(&out.text, args[1])
            out.b = "g" in flags
        return 0

    cdef int expr(self, ExprC *out, expr) except -1:
        cdef int i
        name, args = expr.fetch.name, expr.fetch.args
        out.backend = -1
        out.response = name.startswith("res.") or name in ("status", "srv_name")
        if name in _TRUE:
            out.fetch, out.number = F_BOOL, _TRUE[name]
        elif name == "bool":
            out.fetch, out.number = F_BOOL, args[0].lower() in ("1", "true", "yes", "on")
        elif name == "int":
            out.fetch, out.number = F_INT, _bound(args[0], 0)
        elif name in ("str", "hostname", "env"):
            text = "".join(args) if name == "str" else pysocket.gethostname() if name == "hostname" else os.environ.get(args[0])
            out.fetch = F_NOTHING if text is None else F_TEXT
            self.text(&out.text, text)
        else:
            out.fetch = _FETCHES[name]
            self.arguments(out, name, args)
        out.converter_count = len(expr.converters)
        out.converters = <ConverterC *>self.block(out.converter_count, sizeof(ConverterC))
        for i, call in enumerate(expr.converters):
            self.converter(&out.converters[i], call)
        return 0

    cdef int arguments(self, ExprC *out, str name, args) except -1:
        if name in ("nbsrv", "be_conn"):
            out.backend = self.names.get(args[0], -1) if args else -1
            return 0
        if name in ("capture.req.hdr", "capture.res.hdr"):
            out.number = <int>_bound(args[0], 0)   # HAProxy keeps the lower 32 bits, of slots and occurrences
            return 0
        if args:
            self.text(&out.text, args[0].lower() if "hdr" in name else args[0])
        if "hdr" in name and len(args) > 1:
            # HAProxy keeps the lower 32 bits
            out.occurrence = <int>_bound(args[1], 0)
        if name == "url_param":
            out.delimiter = <char>ord(args[1][0]) if len(args) > 1 and args[1] else c"?"
        return 0

    # ---- conditions

    cdef int pattern(self, PatternC *out, str method, str value, bint ignore_case) except -1:
        if method == "reg":
            out.regex = self.regex(value, ignore_case)
        elif method == "ip":
            self.net(&out.net, value)
        elif method in ("int", "len"):
            low, colon, high = value.partition(":")
            out.low = _bound(low, INT64_MIN)
            out.high = _bound(high, INT64_MAX) if colon else out.low
        else:
            value = value.strip(_DELIMITERS[method]) if method in _DELIMITERS else value
            self.text(&out.text, value.lower() if ignore_case else value)
        return 0

    cdef int test(self, TestC *out, test) except -1:
        cdef int i
        self.expr(&out.expr, test.expr)
        out.method = _MATCHES[test.method]
        out.ignore_case = test.ignore_case
        out.count = len(test.values)
        out.patterns = <PatternC *>self.block(out.count, sizeof(PatternC))
        for i, value in enumerate(test.values):
            self.pattern(&out.patterns[i], test.method, value, test.ignore_case)
        return 0

    cdef ConditionC *condition(self, condition) except? NULL:
        cdef ConditionC *out
        cdef TermC *term
        cdef int i = 0, k
        if condition is None:
            return NULL
        out = <ConditionC *>self.block(1, sizeof(ConditionC))
        out.unless = condition.unless
        out.count = sum(len(terms) for terms in condition.any_of)
        out.terms = <TermC *>self.block(out.count, sizeof(TermC))
        for terms in condition.any_of:
            for wanted in terms:
                term = &out.terms[i]
                term.negated = wanted.negated
                term.count = len(wanted.tests)
                term.tests = <TestC *>self.block(term.count, sizeof(TestC))
                for k, test in enumerate(wanted.tests):
                    self.test(&term.tests[k], test)
                i += 1
            out.terms[i - 1].last = 1
        return out

    # ---- format strings, answers

    cdef int format(self, FormatC *out, chosen, int flags) except -1:
        cdef int i
        steps = _steps(chosen, flags)
        out.count = len(steps)
        out.ops = <FormatOp *>self.block(out.count, sizeof(FormatOp))
        for i, (op, own, text, expr) in enumerate(steps):
            out.ops[i].op = op
            out.ops[i].flags = own
            if text is not None:
                self.text(&out.ops[i].text, text)
            if expr is not None:
                out.ops[i].expr = <ExprC *>self.block(1, sizeof(ExprC))
                self.expr(out.ops[i].expr, expr)
        return 0

    cdef ReplyC *reply(self, dict values) except NULL:
        cdef ReplyC *out = <ReplyC *>self.block(1, sizeof(ReplyC))
        cdef int i
        body = values.get("body")
        out.status = values["status"]
        out.page = body is None and bool(values.get("errorfiles"))
        out.has_body = body is not None
        self.text(&out.reason, reason(out.status))
        self.format(&out.body, body, LOG_HEADER)
        if body is not None and body.parts:
            self.text(&out.content_type, values.get("content_type"))
        headers = values.get("headers", ())
        out.header_count = len(headers)
        out.headers = <HeaderC *>self.block(out.header_count, sizeof(HeaderC))
        for i, (name, chosen) in enumerate(headers):
            self.text(&out.headers[i].name, name.lower())
            self.format(&out.headers[i].format, chosen, LOG_HEADER)
        return out

    cdef RedirectC *redirect(self, dict values) except NULL:
        cdef RedirectC *out = <RedirectC *>self.block(1, sizeof(RedirectC))
        out.kind = {"location": RD_LOCATION, "prefix": RD_PREFIX, "scheme": RD_SCHEME}[values["kind"]]
        out.code = values["code"]
        out.drop_query = bool(values.get("drop_query"))
        out.append_slash = bool(values.get("append_slash"))
        out.ignore_empty = bool(values.get("ignore_empty"))
        self.text(&out.reason, REDIRECT_REASONS[out.code])
        lines = ""
        if "set_cookie" in values:
            lines += f"set-cookie: {values['set_cookie']}; path=/;\r\n"
        if "clear_cookie" in values:
            lines += f"set-cookie: {values['clear_cookie']}; path=/; Max-Age=0;\r\n"
        self.text(&out.cookies, lines)
        return out

    cdef int rule(self, RuleC *out, rule) except -1:
        values = dict(rule.values)
        action = rule.action or rule.kind
        out.action = _ACTIONS[action]
        out.condition = self.condition(rule.condition)
        out.target = rule.target
        self.text(&out.name, values["name"].lower() if "name" in values else None)
        self.format(&out.format, values.get("format"), LOG_HEADER)
        if action == "del-header":
            out.match = _MATCHES[values["match"]]
            if values["match"] == "reg":
                out.regex = self.regex(values["name"], False)   # of the name in lower case
        elif action.startswith("replace-"):
            out.regex = self.regex(values["pattern"], False)
        elif action in ("deny", "return"):
            out.reply = self.reply(values)
        elif action == "redirect":
            out.redirect = self.redirect(values)
        elif action == "set-status":
            out.status = values["status"]
            self.text(&out.reason, values["reason"] or reason(values["status"]))
        elif action == "set-log-level":
            out.target = 1 + values["level"]
        elif action == "capture":
            out.target = values["slot"]
            out.expr = <ExprC *>self.block(1, sizeof(ExprC))
            self.expr(out.expr, values["expr"])
        elif action == "use-service":
            out.target = SERVICES[values["service"]]
        return 0

    cdef RuleC *rules(self, chosen, int *count) except? NULL:
        cdef RuleC *out
        cdef int i
        count[0] = len(chosen)
        if not chosen:
            return NULL
        out = <RuleC *>self.block(count[0], sizeof(RuleC))
        for i, rule in enumerate(chosen):
            self.rule(&out[i], rule)
        return out

    cdef Program *program(self, rules) except NULL:
        cdef Program *out = <Program *>self.block(1, sizeof(Program))
        kinds = {}
        for rule in rules:
            kinds.setdefault("persist" if rule.kind.endswith("-persist") else rule.kind, []).append(rule)
        out.request = self.rules(kinds.get("http-request", ()), &out.request_count)
        out.redirect = self.rules(kinds.get("redirect", ()), &out.redirect_count)
        out.response = self.rules(kinds.get("http-response", ()), &out.response_count)
        out.choice = self.rules(kinds.get("use_backend", ()), &out.choice_count)
        out.monitor = self.rules(kinds.get("monitor-fail", ()), &out.monitor_count)
        out.persist = self.rules(kinds.get("persist", ()), &out.persist_count)
        return out

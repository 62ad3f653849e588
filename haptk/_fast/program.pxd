# program: the rules of a file as C arrays, and the Arena that owns them. Built once under the GIL from tables.Rule and
# the values of core.acl, read without it by facts, match, format, edit and rules; never changed afterwards.

from libc.stdint cimport int64_t, uint8_t, uint32_t

from haptk._fast.bytes.span cimport Span, span_over
from haptk._fast.regex cimport RegexC

ctypedef struct Text:
    char *p
    uint32_t n


cdef inline Span span_text(const Text *t) noexcept nogil:
    return span_over(t.p, t.n)


ctypedef struct Net:
    int family
    uint8_t base[16]
    int bits

cdef enum FetchId:
    F_NOTHING = 0           # never there
    F_BOOL, F_INT, F_TEXT   # constants: number, text
    F_BASE, F_PATH, F_PATHQ, F_QUERY, F_URL, F_URL_PARAM, F_METHOD, F_VERSION
    F_HDR, F_FHDR, F_HDR_CNT, F_FHDR_CNT, F_HDR_VAL, F_HDR_IP, F_COOK, F_COOK_CNT, F_COOK_VAL
    F_STATUS, F_SRC, F_SRC_PORT, F_DST, F_DST_PORT, F_FE_NAME, F_BE_NAME, F_SRV_NAME, F_SO_ID, F_SO_NAME
    F_FIRST, F_NBSRV, F_BE_CONN
    F_KEPT_REQUEST, F_KEPT_RESPONSE, F_KEPT_METHOD, F_KEPT_URI, F_KEPT_VERSION, F_KEPT_RES_VERSION

cdef enum ConverterId:
    C_LOWER = 0, C_UPPER, C_LENGTH, C_ADD, C_SUB, C_NOT, C_CONCAT, C_BYTES, C_FIELD, C_WORD, C_URL_DEC, C_REGSUB
    C_MUL, C_DIV, C_MOD, C_NEG, C_AND, C_OR, C_XOR, C_CPL, C_ODD, C_EVEN, C_BOOL, C_BASE64, C_B64DEC, C_HEX, C_RTRIM
    C_LTRIM

cdef enum MatchId:
    MT_STR = 0, MT_BEG, MT_END, MT_SUB, MT_DIR, MT_DOM, MT_REG, MT_LEN, MT_INT, MT_IP, MT_FOUND, MT_BOOL

cdef enum ActionId:
    A_ALLOW = 0, A_DENY, A_RETURN, A_REDIRECT, A_SET_HEADER, A_ADD_HEADER, A_DEL_HEADER, A_REPLACE_HEADER
    A_REPLACE_VALUE, A_SET_STATUS, A_SET_METHOD, A_SET_PATH, A_SET_PATHQ, A_SET_QUERY, A_SET_URI, A_CAPTURE
    A_NO_RETRY, A_LOG_LEVEL, A_REPLACE_PATH, A_REPLACE_PATHQ, A_REPLACE_URI
    A_USE_SERVICE
    A_USE_BACKEND, A_FORCE_PERSIST, A_IGNORE_PERSIST, A_MONITOR_FAIL

cdef enum FormatOpId:       # a step of a format; after L_EXPR the variables of configuration.txt 8.2.4, by their names
    L_TEXT = 0, L_SPACE, L_EXPR
    L_B, L_CC, L_CS, L_H, L_HM, L_HP, L_HPO, L_HQ, L_HU, L_HV, L_ID, L_ST, L_T, L_Ta, L_Tc, L_Td, L_Th, L_Ti, L_Tl
    L_Tq, L_TR, L_Tr, L_Ts, L_Tt, L_Tu, L_Tw, L_U, L_ac, L_b, L_bc, L_bi, L_bp, L_bq, L_ci, L_cp, L_f, L_fc, L_fi
    L_fp, L_ft, L_hr, L_hrl, L_hs, L_hsl, L_lc, L_ms, L_pid, L_r, L_rc, L_rt, L_s, L_sc, L_si, L_sp, L_sq, L_t, L_tr
    L_trg, L_trl, L_ts, L_tsc, L_sslc, L_sslv

cdef enum FormatFlag:
    LOG_QUOTE = 1, LOG_HEX = 2, LOG_ESCAPE = 4
    LOG_DASH = 8            # what is not there is a dash
    LOG_HEADER = 16         # bytes that no header may have become %XX
    LOG_MERGE = 32          # blanks of the format that follow each other are one

cdef enum RedirectId:
    RD_LOCATION = 0, RD_PREFIX, RD_SCHEME

ctypedef struct ConverterC:
    int op
    int64_t a
    int64_t b               # length of bytes(), INT64_MAX without one; 1 for the flag g of regsub
    Text text
    RegexC *regex

ctypedef struct ExprC:
    int fetch
    int response            # looks at the response's head
    int occurrence          # of a header; 0 for none given
    int backend             # index for nbsrv and be_conn, -1 for the one in charge
    char delimiter          # of url_param
    int64_t number
    Text text               # name of the header, cookie or parameter; or the constant itself
    ConverterC *converters
    int converter_count

ctypedef struct PatternC:
    Text text               # lower-case under -i; without delimiters at its ends for dir and dom
    int64_t low
    int64_t high
    Net net
    RegexC *regex

ctypedef struct TestC:
    ExprC expr
    int method              # MatchId
    int ignore_case
    PatternC *patterns
    int count

ctypedef struct TermC:
    TestC *tests            # alternatives
    int count
    int negated
    int last                # ends a conjunction

ctypedef struct ConditionC:
    TermC *terms
    int count
    int unless

ctypedef struct FormatOp:
    int op                  # FormatOpId
    int flags               # FormatFlag
    Text text
    ExprC *expr

ctypedef struct FormatC:    # any format string of the file: of logs, of the unique id, of rules
    FormatOp *ops
    int count

ctypedef struct HeaderC:
    Text name
    FormatC format

ctypedef struct ReplyC:     # of deny and return
    int status
    int page                # the page of the status (an error file or the built-in one) is the answer
    int has_body
    Text reason
    Text content_type
    FormatC body
    HeaderC *headers
    int header_count

ctypedef struct RedirectC:
    int kind
    int code
    int drop_query
    int append_slash
    int ignore_empty
    Text reason
    Text cookies            # whole Set-Cookie lines

ctypedef struct RuleC:
    int action
    ConditionC *condition   # NULL: always
    Text name               # of a header, lower-case
    int match               # of del-header: MT_STR, MT_BEG, MT_END, MT_SUB or MT_REG
    RegexC *regex
    FormatC format
    ReplyC *reply
    RedirectC *redirect
    int status
    Text reason
    ExprC *expr             # of a capture
    int target              # index of a backend; slot of a capture

ctypedef struct Program:    # the rules of one frontend or backend; counts of 0 where there are none
    RuleC *request          # http-request
    int request_count
    RuleC *redirect         # the old lines, which `http-request allow` does not skip
    int redirect_count
    RuleC *response
    int response_count
    RuleC *choice           # use_backend
    int choice_count
    RuleC *monitor          # monitor fail
    int monitor_count
    RuleC *persist          # force-persist, ignore-persist
    int persist_count

cdef class Arena:
    cdef list kept          # bytes objects that Texts point into
    cdef object blocks      # addresses to free, in an array as Image's
    cdef object codes       # compiled expressions to free, the same
    cdef readonly list patterns     # of Python, where libpcre2 is missing
    cdef dict names         # backend name -> index

    # zeroed memory that lives as long as the arena
    cdef void *block(self, size_t count, size_t size) except NULL
    # value: None, str or bytes; the bytes are kept alive. str is one character per byte, as the parser of heads has it
    cdef int text(self, Text *out, value) except -1
    cdef int net(self, Net *out, value) except -1
    cdef RegexC *regex(self, str pattern, bint ignore_case) except NULL
    cdef int converter(self, ConverterC *out, call) except -1
    cdef int expr(self, ExprC *out, expr) except -1
    cdef int arguments(self, ExprC *out, str name, args) except -1
    cdef int pattern(self, PatternC *out, str method, str value, bint ignore_case) except -1
    cdef int test(self, TestC *out, test) except -1
    cdef ConditionC *condition(self, condition) except? NULL
    # flags: those that hold for every step, of FormatFlag
    cdef int format(self, FormatC *out, chosen, int flags) except -1
    cdef ReplyC *reply(self, dict values) except NULL
    cdef RedirectC *redirect(self, dict values) except NULL
    cdef int rule(self, RuleC *out, rule) except -1
    cdef RuleC *rules(self, chosen, int *count) except? NULL
    # own and borrowed: the rules of one side
    cdef Program *program(self, rules) except NULL

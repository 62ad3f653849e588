# Converters write into the room of Seen; what does not fit there has no result.

cimport cython

from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t, uint32_t, uint64_t

from haptk._fast.bytes.span cimport (NOWHERE, room_char, room_full, room_hex, room_len, room_put, span_at, span_between,
                                     span_find, span_first, span_from, span_len, span_sub, word)
from haptk._fast.facts cimport S_BOOL, as_int, as_text, fetch_last, is_int, is_text, made_text
from haptk._fast.program cimport (C_ADD, C_AND, C_B64DEC, C_BASE64, C_BOOL, C_BYTES, C_CONCAT, C_DIV, C_EVEN,
                                  C_FIELD, C_HEX, C_LENGTH, C_LOWER, C_LTRIM, C_MOD, C_MUL, C_NEG, C_NOT, C_ODD,
                                  C_OR, C_REGSUB, C_RTRIM, C_SUB, C_UPPER, C_URL_DEC, C_WORD, C_XOR, ConverterC,
                                  span_text)
from haptk._fast.regex cimport regex_exec, regex_group
from haptk._fast.scan cimport HEX

cdef enum:
    SP = 32, BACKSLASH = 92, QUESTION = 63, EQUAL = 61, PLUS = 43, PERCENT = 37


cdef inline int64_t saturated(int64_t a, int64_t b) noexcept nogil:
    if b > 0 and a > INT64_MAX - b:
        return INT64_MAX
    if b < 0 and a < INT64_MIN - b:
        return INT64_MIN
    return a + b


cdef bint change_case(Seen *x, Sample *v, bint lower) noexcept nogil:
    cdef Room *o = &x.w.made
    cdef uint32_t i, mark = room_len(o)
    cdef uint8_t c, first = 65 if lower else 97
    for i in range(span_len(v.text)):
        c = span_at(v.text, i)
        room_char(o, c ^ 32 if first <= c < first + 26 else c)
    return made_text(x, mark, v)


cdef inline bint divides(Span delimiters, uint8_t c) noexcept nogil:
    return span_find(delimiters, c, 0) != NOWHERE


cdef bint field_of(Sample *v, int64_t wanted, Span delimiters, bint words) noexcept nogil:
    # Field N from the front, or from the end for a negative N. Words are fields without the empty ones; of one that is not
    # there HAProxy makes an empty text, where a field that is not there is no text at all.
    cdef Span t = v.text
    cdef uint32_t i, start, n = span_len(t)
    cdef int64_t at = 0, total = 0
    if wanted < 0:
        start = 0
        for i in range(n + 1):
            if i == n or divides(delimiters, span_at(t, i)):
                total += not words or i > start
                start = i + 1
        wanted = total + 1 + wanted
    if wanted <= 0:
        return words and is_text(v, span_first(t, 0))
    start = 0
    for i in range(n + 1):
        if i == n or divides(delimiters, span_at(t, i)):
            at += not words or i > start
            if at == wanted and (not words or i > start):
                return is_text(v, span_between(t, start, i))
            start = i + 1
    return words and is_text(v, span_first(t, 0))


cdef bint digits_at(Span t, uint32_t i, uint8_t *value) noexcept nogil:
    # Two hexadecimal digits.
    if span_len(t) - i < 2 or HEX[span_at(t, i)] > 15 or HEX[span_at(t, i + 1)] > 15:
        return 0
    value[0] = HEX[span_at(t, i)] << 4 | HEX[span_at(t, i + 1)]
    return 1


cdef bint url_decoded(Seen *x, Sample *v, bint form) noexcept nogil:
    # `+` means a blank in a form, and always behind a `?`. A % without two digits makes the whole nothing.
    cdef Room *o = &x.w.made
    cdef uint32_t i = 0, mark = room_len(o), n = span_len(v.text)
    cdef uint8_t c
    while i < n:
        c = span_at(v.text, i)
        i += 1
        if c == PLUS and form:
            c = SP
        elif c == PERCENT:
            if not digits_at(v.text, i, &c):
                return 0
            i += 2
        else:
            form = form or c == QUESTION
        room_char(o, c)
    return made_text(x, mark, v)


cdef void expand_groups(Span template, Span v, const Groups *groups, Room *out) noexcept nogil:
    cdef uint32_t i = 0, n = span_len(template)
    cdef uint8_t c
    while i < n:
        c = span_at(template, i)
        i += 1
        if c == BACKSLASH:
            if i == n:
                return
            c = span_at(template, i)
            i += 1
            if 48 <= c <= 57:
                room_put(out, regex_group(v, groups, c - 48))
                continue
            if c == 120 and digits_at(template, i, &c):
                i += 2
        room_char(out, c)


cdef bint substituted(Seen *x, Sample *v, ConverterC *c) noexcept nogil:
    cdef Room *o = &x.w.made
    cdef Span rest = v.text
    cdef Groups groups
    cdef uint32_t mark = room_len(o), begin, end
    cdef bint inside = 0
    while regex_exec(&x.w.regex, c.regex, rest, inside, &groups):
        begin, end = groups.at[0], groups.at[1]
        if begin > end:
            break
        room_put(o, span_first(rest, begin))
        expand_groups(span_text(&c.text), rest, &groups, o)
        if begin == end:
            if end == span_len(rest):
                rest = span_from(rest, end)
                break
            # nothing was matched in front of a byte: that byte stays, or the next search would find the same place
            room_char(o, span_at(rest, end))
            end += 1
        rest = span_from(rest, end)
        inside = 1
        if not c.b or room_full(o):
            break
    room_put(o, rest)
    return made_text(x, mark, v)


cdef int64_t product(int64_t a, int64_t b) noexcept nogil:
    # Held at the ends of 64 bits.
    cdef bint negative = (a < 0) != (b < 0)
    cdef uint64_t x = <uint64_t>0 - <uint64_t>a if a < 0 else <uint64_t>a
    cdef uint64_t y = <uint64_t>0 - <uint64_t>b if b < 0 else <uint64_t>b
    cdef uint64_t limit = <uint64_t>INT64_MAX + negative
    if y and x > limit // y:
        return INT64_MIN if negative else INT64_MAX
    return <int64_t>(<uint64_t>0 - x * y) if negative else <int64_t>(x * y)


cdef int64_t computed(int op, int64_t v, int64_t a) noexcept nogil:
    if op == C_ADD:
        return saturated(v, a)
    if op == C_SUB:
        return saturated(v, -a) if a != INT64_MIN else saturated(saturated(v, INT64_MAX), 1)
    if op == C_MUL:
        return product(v, a)
    if op == C_DIV or op == C_MOD:
        if a == 0:
            return INT64_MAX if op == C_DIV else 0
        if a == -1:
            # the one quotient that does not fit
            return 0 if op == C_MOD else INT64_MAX if v == INT64_MIN else -v
        return c_div(v, a) if op == C_DIV else v - c_div(v, a) * a
    if op == C_NEG:
        return INT64_MAX if v == INT64_MIN else -v
    if op == C_AND:
        return v & a
    if op == C_OR:
        return v | a
    if op == C_XOR:
        return v ^ a
    return ~v


@cython.cdivision(True)
cdef inline int64_t c_div(int64_t v, int64_t a) noexcept nogil:
    return v // a       # towards zero


cdef bint convert_number(ConverterC *c, Sample *v) noexcept nogil:
    if not as_int(v):
        return 0
    if c.op == C_NOT or c.op == C_BOOL or c.op == C_ODD or c.op == C_EVEN:
        v.kind = S_BOOL
        if c.op == C_ODD or c.op == C_EVEN:
            v.v = (v.v & 1) == (c.op == C_ODD)
        else:
            v.v = (v.v != 0) == (c.op == C_BOOL)
        return 1
    return is_int(v, computed(c.op, v.v, c.a))


cdef const char *B64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


cdef bint hexed(Seen *x, Sample *v) noexcept nogil:
    cdef Room *o = &x.w.made
    cdef uint32_t i, mark = room_len(o)
    for i in range(span_len(v.text)):
        room_hex(o, span_at(v.text, i))
    return made_text(x, mark, v)


cdef bint to_base64(Seen *x, Sample *v) noexcept nogil:
    cdef Room *o = &x.w.made
    cdef Span digits = word(B64)
    cdef uint32_t i = 0, bits, left, mark = room_len(o), n = span_len(v.text)
    while i < n:
        left = n - i
        bits = <uint32_t>span_at(v.text, i) << 16
        if left > 1:
            bits |= <uint32_t>span_at(v.text, i + 1) << 8
        if left > 2:
            bits |= span_at(v.text, i + 2)
        room_char(o, span_at(digits, bits >> 18))
        room_char(o, span_at(digits, bits >> 12 & 63))
        room_char(o, span_at(digits, bits >> 6 & 63) if left > 1 else EQUAL)
        room_char(o, span_at(digits, bits & 63) if left > 2 else EQUAL)
        i += 3
    return made_text(x, mark, v)


cdef bint from_base64(Seen *x, Sample *v) noexcept nogil:
    # Whole groups of four, with `=` at the very end only; anything else is no base 64.
    cdef Room *o = &x.w.made
    cdef uint32_t i, d, bits = 0, mark = room_len(o), n = span_len(v.text)
    if n % 4:
        return 0
    if n and span_at(v.text, n - 1) == EQUAL:
        n -= 1
        if span_at(v.text, n - 1) == EQUAL:
            n -= 1
    for i in range(n):
        d = span_find(word(B64), span_at(v.text, i), 0)
        if d == NOWHERE:
            return 0
        bits = bits << 6 | d
        if i % 4 == 3:
            room_char(o, bits >> 16 & 255)
            room_char(o, bits >> 8 & 255)
            room_char(o, bits & 255)
    if n % 4 == 3:
        room_char(o, bits >> 10 & 255)
        room_char(o, bits >> 2 & 255)
    elif n % 4 == 2:
        room_char(o, bits >> 4 & 255)
    return made_text(x, mark, v)


cdef bint trimmed(Sample *v, Span what, bint left) noexcept nogil:
    cdef Span t = v.text
    while span_len(t) and divides(what, span_at(t, 0 if left else span_len(t) - 1)):
        t = span_sub(t, left, span_len(t) - 1)
    return is_text(v, t)


cdef bint concatenated(Seen *x, Sample *v, Span what) noexcept nogil:
    cdef uint32_t mark = room_len(&x.w.made)
    room_put(&x.w.made, v.text)
    room_put(&x.w.made, what)
    return made_text(x, mark, v)


cdef bint convert_text(Seen *x, ConverterC *c, Sample *v) noexcept nogil:
    cdef uint32_t n = span_len(v.text)
    if c.op == C_LOWER or c.op == C_UPPER:
        return change_case(x, v, c.op == C_LOWER)
    if c.op == C_LENGTH:
        return is_int(v, n)
    if c.op == C_CONCAT:
        return concatenated(x, v, span_text(&c.text))
    if c.op == C_BYTES:
        v.text = span_from(v.text, n if c.a >= n else <uint32_t>c.a)
        if c.b < span_len(v.text):
            v.text = span_first(v.text, <uint32_t>c.b)
        return 1
    if c.op == C_FIELD or c.op == C_WORD:
        return field_of(v, c.a, span_text(&c.text), c.op == C_WORD)
    if c.op == C_URL_DEC:
        return url_decoded(x, v, c.a != 0)
    if c.op == C_HEX:
        return hexed(x, v)
    if c.op == C_BASE64:
        return to_base64(x, v)
    if c.op == C_B64DEC:
        return from_base64(x, v)
    if c.op == C_RTRIM or c.op == C_LTRIM:
        return trimmed(v, span_text(&c.text), c.op == C_LTRIM)
    return c.op == C_REGSUB and substituted(x, v, c)


cdef inline bint of_numbers(int op) noexcept nogil:
    return op == C_ADD or op == C_SUB or op == C_NOT or C_MUL <= op <= C_BOOL


cdef bint convert(Seen *x, ExprC *e, Sample *v) noexcept nogil:
    cdef int i
    cdef ConverterC *c
    for i in range(e.converter_count):
        c = &e.converters[i]
        if of_numbers(c.op):
            if not convert_number(c, v):
                return 0
        elif not as_text(x, v) or not convert_text(x, c, v):
            return 0
    return 1


cdef bint fetch_one(Seen *x, ExprC *e, Sample *out) noexcept nogil:
    return fetch_last(x, e, out) and convert(x, e, out)

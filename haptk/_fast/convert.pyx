# Converters write into the room of Seen; what does not fit there has no result.

cimport cython

from libc.stdint cimport INT64_MAX, INT64_MIN, uint8_t, uint64_t
from libc.string cimport memchr, memcpy

from haptk._fast.facts cimport ROOM_SIZE, S_BOOL, S_INT, S_STR, as_int, as_text, fetch_last, room_take
from haptk._fast.program cimport (C_ADD, C_AND, C_B64DEC, C_BASE64, C_BOOL, C_BYTES, C_CONCAT, C_DIV, C_EVEN,
                                  C_FIELD, C_HEX, C_LENGTH, C_LOWER, C_LTRIM, C_MOD, C_MUL, C_NEG, C_NOT, C_ODD,
                                  C_OR, C_REGSUB, C_RTRIM, C_SUB, C_UPPER, C_URL_DEC, C_WORD, C_XOR, ConverterC)
from haptk._fast.regex cimport Groups, regex_exec
from haptk._fast.scan cimport HEX

cdef enum:
    SP = 32, BACKSLASH = 92, QUESTION = 63, EQUAL = 61


cdef inline bint is_text(Sample *out, const char *p, uint32_t n) noexcept nogil:
    out.kind = S_STR
    out.p = p
    out.n = n
    return 1


cdef inline bint is_int(Sample *out, int64_t v) noexcept nogil:
    out.kind = S_INT
    out.v = v
    return 1


cdef inline int64_t saturated(int64_t a, int64_t b) noexcept nogil:
    if b > 0 and a > INT64_MAX - b:
        return INT64_MAX
    if b < 0 and a < INT64_MIN - b:
        return INT64_MIN
    return a + b


cdef bint change_case(Seen *x, Sample *v, bint lower) noexcept nogil:
    cdef char *out = room_take(x, v.n)
    cdef uint32_t i
    cdef char first = 65 if lower else 97
    if out == NULL:
        return 0
    for i in range(v.n):
        out[i] = v.p[i] ^ 32 if first <= v.p[i] < first + 26 else v.p[i]
    v.p = out
    return 1


cdef inline bint divides(Text *delimiters, char c) noexcept nogil:
    return delimiters.n and memchr(delimiters.p, <unsigned char>c, delimiters.n) != NULL


cdef bint field_of(Sample *v, int64_t wanted, Text *delimiters, bint words) noexcept nogil:
    # Field N from the front, or from the end for a negative N. Words are fields without the empty ones.
    cdef uint32_t i, start
    cdef int64_t at = 0, total = 0
    if wanted < 0:
        start = 0
        for i in range(v.n + 1):
            if i == v.n or divides(delimiters, v.p[i]):
                total += not words or i > start
                start = i + 1
        wanted = total + 1 + wanted
    if wanted <= 0:
        return 0
    start = 0
    for i in range(v.n + 1):
        if i == v.n or divides(delimiters, v.p[i]):
            at += not words or i > start
            if at == wanted and (not words or i > start):
                v.p += start
                v.n = i - start
                return 1
            start = i + 1
    return 0


cdef bint url_decoded(Seen *x, Sample *v, bint form) noexcept nogil:
    # `+` means a blank in a form, and always behind a `?`. A % without two digits makes the whole nothing.
    cdef char *out = room_take(x, v.n)
    cdef uint32_t i = 0, n = 0
    if out == NULL:
        return 0
    while i < v.n:
        if v.p[i] == 43 and form:
            out[n] = SP
        elif v.p[i] == 37:
            if i + 2 >= v.n or HEX[<uint8_t>v.p[i + 1]] > 15 or HEX[<uint8_t>v.p[i + 2]] > 15:
                return 0
            out[n] = <char>(HEX[<uint8_t>v.p[i + 1]] * 16 + HEX[<uint8_t>v.p[i + 2]])
            i += 2
        else:
            form = form or v.p[i] == QUESTION
            out[n] = v.p[i]
        n += 1
        i += 1
    return is_text(v, out, n)


cdef int64_t expand_groups(Text *template, const char *v, size_t *at, int count, char *out, uint32_t size) noexcept nogil:
    cdef uint32_t i = 0, n = 0
    cdef const char *from_
    cdef size_t many
    cdef int group
    cdef char one
    while i < template.n:
        from_ = template.p + i
        many = 1
        i += 1
        if from_[0] == BACKSLASH:
            if i == template.n:
                return n
            group = template.p[i] - 48
            if 0 <= group <= 9:
                many = 0
                if group < count and at[2 * group] != <size_t>-1:
                    from_ = v + at[2 * group]
                    many = at[2 * group + 1] - at[2 * group]
                i += 1
            elif template.p[i] == 120 and i + 2 < template.n and HEX[<uint8_t>template.p[i + 1]] < 16 and \
                    HEX[<uint8_t>template.p[i + 2]] < 16:
                one = <char>(HEX[<uint8_t>template.p[i + 1]] * 16 + HEX[<uint8_t>template.p[i + 2]])
                from_ = &one
                i += 3
            else:
                from_ = template.p + i
                i += 1
        if n + many > size:
            return -1
        memcpy(out + n, from_, many)
        n += <uint32_t>many
    return n


cdef bint substituted(Seen *x, Sample *v, ConverterC *c) noexcept nogil:
    cdef uint32_t size = ROOM_SIZE - x.used, n = 0, i = 0, many
    cdef char *out = x.w.room + x.used
    cdef Groups groups
    cdef int64_t got
    cdef bint found = 1
    while found:
        found = (i == 0 or c.b) and regex_exec(&x.w.regex, c.regex, v.p + i, v.n - i, i > 0, &groups)
        many = <uint32_t>groups.at[0] if found else v.n - i
        if n + many > size:
            return 0
        memcpy(out + n, v.p + i, many)
        n += many
        if not found:
            break
        got = expand_groups(&c.text, v.p + i, groups.at, groups.count, out + n, size - n)
        if got < 0:
            return 0
        n += <uint32_t>got
        if groups.at[1] == groups.at[0] and i + groups.at[1] < v.n:
            # nothing was matched in front of a byte: that byte stays, or the next search would find the same place
            if n == size:
                return 0
            out[n] = v.p[i + groups.at[1]]
            n += 1
            groups.at[1] += 1
        i += <uint32_t>groups.at[1]
        if i >= v.n and groups.at[1] == groups.at[0]:
            break
        if not c.b:
            many = v.n - i
            if n + many > size:
                return 0
            memcpy(out + n, v.p + i, many)
            n += many
            break
    x.used += n
    return is_text(v, out, n)


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
cdef const char *HEXITS = b"0123456789ABCDEF"


cdef bint hexed(Seen *x, Sample *v) noexcept nogil:
    cdef char *out
    cdef uint32_t i
    if v.n > ROOM_SIZE // 2:
        return 0
    out = room_take(x, 2 * v.n)
    if out == NULL:
        return 0
    for i in range(v.n):
        out[2 * i] = HEXITS[<uint8_t>v.p[i] >> 4]
        out[2 * i + 1] = HEXITS[<uint8_t>v.p[i] & 15]
    return is_text(v, out, 2 * v.n)


cdef bint to_base64(Seen *x, Sample *v) noexcept nogil:
    cdef char *out
    cdef uint32_t i = 0, k = 0, bits, left
    if v.n > ROOM_SIZE // 2:
        return 0
    out = room_take(x, (v.n + 2) // 3 * 4)
    if out == NULL:
        return 0
    while i < v.n:
        left = v.n - i
        bits = <uint32_t><uint8_t>v.p[i] << 16
        if left > 1:
            bits |= <uint32_t><uint8_t>v.p[i + 1] << 8
        if left > 2:
            bits |= <uint8_t>v.p[i + 2]
        out[k] = B64[bits >> 18]
        out[k + 1] = B64[bits >> 12 & 63]
        out[k + 2] = B64[bits >> 6 & 63] if left > 1 else EQUAL
        out[k + 3] = B64[bits & 63] if left > 2 else EQUAL
        i += 3
        k += 4
    return is_text(v, out, k)


cdef int digit64(char c) noexcept nogil:
    cdef const char *at = <const char *>memchr(B64, <unsigned char>c, 64) if c else NULL
    return -1 if at == NULL else <int>(at - B64)


cdef bint from_base64(Seen *x, Sample *v) noexcept nogil:
    # Whole groups of four, with `=` at the very end only; anything else is no base 64.
    cdef char *out = room_take(x, v.n // 4 * 3)
    cdef uint32_t i, n = v.n, k = 0, bits = 0
    cdef int d
    if out == NULL or v.n % 4:
        return 0
    if n and v.p[n - 1] == EQUAL:
        n -= 1
        if v.p[n - 1] == EQUAL:
            n -= 1
    for i in range(n):
        d = digit64(v.p[i])
        if d < 0:
            return 0
        bits = bits << 6 | <uint32_t>d
        if i % 4 == 3:
            out[k], out[k + 1], out[k + 2] = <char>(bits >> 16), <char>(bits >> 8), <char>bits
            k += 3
    if n % 4 == 3:
        out[k], out[k + 1] = <char>(bits >> 10), <char>(bits >> 2)
        k += 2
    elif n % 4 == 2:
        out[k] = <char>(bits >> 4)
        k += 1
    return is_text(v, out, k)


cdef bint trimmed(Sample *v, Text *what, bint left) noexcept nogil:
    while v.n and divides(what, v.p[0] if left else v.p[v.n - 1]):
        v.p += left
        v.n -= 1
    return 1


cdef bint convert_text(Seen *x, ConverterC *c, Sample *v) noexcept nogil:
    cdef char *out
    cdef uint32_t n
    if c.op == C_LOWER or c.op == C_UPPER:
        return change_case(x, v, c.op == C_LOWER)
    if c.op == C_LENGTH:
        return is_int(v, v.n)
    if c.op == C_CONCAT:
        out = room_take(x, v.n + c.text.n)
        if out == NULL:
            return 0
        memcpy(out, v.p, v.n)
        memcpy(out + v.n, c.text.p, c.text.n)
        return is_text(v, out, v.n + c.text.n)
    if c.op == C_BYTES:
        n = v.n if c.a >= v.n else <uint32_t>c.a
        v.p += n
        v.n -= n
        if c.b < v.n:
            v.n = <uint32_t>c.b
        return 1
    if c.op == C_FIELD or c.op == C_WORD:
        return field_of(v, c.a, &c.text, c.op == C_WORD)
    if c.op == C_URL_DEC:
        return url_decoded(x, v, c.a != 0)
    if c.op == C_HEX:
        return hexed(x, v)
    if c.op == C_BASE64:
        return to_base64(x, v)
    if c.op == C_B64DEC:
        return from_base64(x, v)
    if c.op == C_RTRIM or c.op == C_LTRIM:
        return trimmed(v, &c.text, c.op == C_LTRIM)
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

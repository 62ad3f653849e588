# The prototypes are our own, from the library's public interface for 8-bit code units. JIT is used where it works.

from libc.stdint cimport uint8_t

from haptk._fast.bytes.span cimport NOWHERE, span_between, span_bytes, span_len, span_none, span_raw

cdef extern from "<dlfcn.h>" nogil:
    int RTLD_NOW
    void *dlopen(const char *name, int flags)
    void *dlsym(void *library, const char *name)

cdef enum:
    PCRE2_CASELESS = 0x00000008
    PCRE2_NOTBOL = 0x00000001
    PCRE2_NO_JIT = 0x00002000
    PCRE2_JIT_COMPLETE = 0x00000001
    ERROR_NOMATCH = -1
    ERROR_JIT_STACKLIMIT = -46
    JIT_STACK_MAX = 262144

ctypedef void *(*compile_t)(const uint8_t *, size_t, uint32_t, int *, size_t *, void *) noexcept nogil
ctypedef int (*message_t)(int, uint8_t *, size_t) noexcept nogil
ctypedef int (*jit_t)(void *, uint32_t) noexcept nogil
ctypedef int (*match_t)(void *, const uint8_t *, size_t, size_t, uint32_t, void *, void *) noexcept nogil
ctypedef void (*free_t)(void *) noexcept nogil
ctypedef void *(*data_t)(uint32_t, void *) noexcept nogil
ctypedef size_t *(*vector_t)(void *) noexcept nogil
ctypedef void *(*context_t)(void *) noexcept nogil
ctypedef int (*limit_t)(void *, uint32_t) noexcept nogil
ctypedef void *(*stack_t)(size_t, size_t, void *) noexcept nogil
ctypedef void (*assign_t)(void *, void *, void *) noexcept nogil

cdef compile_t p_compile = NULL
cdef message_t p_message = NULL
cdef jit_t p_jit = NULL
cdef match_t p_match = NULL
cdef free_t p_code_free = NULL
cdef free_t p_data_free = NULL
cdef free_t p_context_free = NULL
cdef free_t p_stack_free = NULL
cdef data_t p_data = NULL
cdef vector_t p_vector = NULL
cdef context_t p_context = NULL
cdef limit_t p_match_limit = NULL
cdef limit_t p_depth_limit = NULL
cdef stack_t p_stack = NULL
cdef assign_t p_assign = NULL
cdef bint ready = 0


cdef bint load(const char *name) noexcept:
    global p_compile, p_message, p_jit, p_match, p_code_free, p_data_free, p_context_free, p_stack_free
    global p_data, p_vector, p_context, p_match_limit, p_depth_limit, p_stack, p_assign
    cdef void *library = dlopen(name, RTLD_NOW)
    if library == NULL:
        return 0
    p_compile = <compile_t>dlsym(library, b"pcre2_compile_8")
    p_message = <message_t>dlsym(library, b"pcre2_get_error_message_8")
    p_jit = <jit_t>dlsym(library, b"pcre2_jit_compile_8")
    p_match = <match_t>dlsym(library, b"pcre2_match_8")
    p_code_free = <free_t>dlsym(library, b"pcre2_code_free_8")
    p_data = <data_t>dlsym(library, b"pcre2_match_data_create_8")
    p_data_free = <free_t>dlsym(library, b"pcre2_match_data_free_8")
    p_vector = <vector_t>dlsym(library, b"pcre2_get_ovector_pointer_8")
    p_context = <context_t>dlsym(library, b"pcre2_match_context_create_8")
    p_context_free = <free_t>dlsym(library, b"pcre2_match_context_free_8")
    p_match_limit = <limit_t>dlsym(library, b"pcre2_set_match_limit_8")
    p_depth_limit = <limit_t>dlsym(library, b"pcre2_set_depth_limit_8")
    p_stack = <stack_t>dlsym(library, b"pcre2_jit_stack_create_8")
    p_stack_free = <free_t>dlsym(library, b"pcre2_jit_stack_free_8")
    p_assign = <assign_t>dlsym(library, b"pcre2_jit_stack_assign_8")
    return p_compile != NULL and p_message != NULL and p_jit != NULL and p_match != NULL and p_code_free != NULL and \
        p_data != NULL and p_data_free != NULL and p_vector != NULL and p_context != NULL and \
        p_context_free != NULL and p_match_limit != NULL and p_depth_limit != NULL and p_stack != NULL and \
        p_stack_free != NULL and p_assign != NULL


ready = load(b"libpcre2-8.so.0")


cdef bint regex_native() noexcept nogil:
    return ready


cdef void *regex_compile(bytes pattern, bint ignore_case) except? NULL:
    cdef int error = 0
    cdef size_t at = 0
    cdef uint8_t words[256]
    cdef void *code
    if not ready:
        return NULL
    code = p_compile(<const uint8_t *><char *>pattern, len(pattern), PCRE2_CASELESS if ignore_case else 0, &error, &at, NULL)
    if code == NULL:
        p_message(error, words, sizeof(words))
        raise ValueError(f"{(<char *>words).decode('latin-1')} at position {at}")
    p_jit(code, PCRE2_JIT_COMPLETE)     # where that is refused, the interpreter serves
    return code


cdef void regex_free(void *code) noexcept:
    if code != NULL:
        p_code_free(code)


cdef int regex_open(RegexRoom *room) except -1:
    if not ready:
        return 0
    room.data = p_data(GROUPS, NULL)
    room.context = p_context(NULL)
    room.stack = p_stack(32768, JIT_STACK_MAX, NULL)
    if room.data == NULL or room.context == NULL:
        raise MemoryError
    p_match_limit(room.context, MATCH_LIMIT)
    p_depth_limit(room.context, MATCH_LIMIT)
    if room.stack != NULL:
        p_assign(room.context, NULL, room.stack)
    return 0


cdef void regex_close(RegexRoom *room) noexcept:
    if room.context != NULL:
        p_context_free(room.context)
    if room.stack != NULL:
        p_stack_free(room.stack)
    if room.data != NULL:
        p_data_free(room.data)
    room.data = room.context = room.stack = NULL


cdef bint ask_python(RegexC *re, Span v, bint inside, Groups *out) noexcept with gil:
    # The fall-back. `inside` is said by one byte in front, at which `^` holds no more.
    cdef int k
    try:
        pattern = (<list>re.patterns)[re.number]
        text = (" " if inside else "") + span_bytes(v).decode("latin-1")
        found = pattern.search(text, 1 if inside else 0)
        if found is None:
            return 0
        out.count = min(GROUPS, pattern.groups + 1)
        for k in range(out.count):
            begin, end = found.span(k)
            out.at[2 * k] = NOWHERE if begin < 0 else begin - inside
            out.at[2 * k + 1] = NOWHERE if begin < 0 else end - inside
        return 1
    except Exception:
        return 0


cdef bint regex_exec(RegexRoom *room, RegexC *re, Span v, bint inside, Groups *out) noexcept nogil:
    cdef int got, k
    cdef uint32_t flags = PCRE2_NOTBOL if inside else 0
    cdef size_t *at
    if re.code == NULL:
        return ask_python(re, v, inside, out)
    got = p_match(re.code, <const uint8_t *>span_raw(v), span_len(v), 0, flags, room.data, room.context)
    if got == ERROR_JIT_STACKLIMIT:
        got = p_match(re.code, <const uint8_t *>span_raw(v), span_len(v), 0, flags | PCRE2_NO_JIT, room.data, room.context)
    if got < 0:
        if got != ERROR_NOMATCH:
            room.given_up += 1
        return 0
    at = p_vector(room.data)
    out.count = GROUPS if got == 0 else got
    for k in range(2 * out.count):
        out.at[k] = NOWHERE if at[k] > span_len(v) else <uint32_t>at[k]
    return 1


cdef Span regex_group(Span v, const Groups *g, int i) noexcept nogil:
    # \\K inside a lookaround can put an end before its begin
    if i >= g.count or g.at[2 * i] == NOWHERE or g.at[2 * i] > g.at[2 * i + 1]:
        return span_none()
    return span_between(v, g.at[2 * i], g.at[2 * i + 1])


def available():
    """Whether expressions run in libpcre2; without it every match takes the GIL and Python's re."""
    return ready


def problem(pattern, bint ignore_case=False):
    """What libpcre2 has against `pattern` (bytes); "" for nothing, or when the library is missing."""
    cdef void *code
    try:
        code = regex_compile(pattern, ignore_case)
    except ValueError as error:
        return str(error)
    regex_free(code)
    return ""

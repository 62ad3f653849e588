# regex: regular expressions as HAProxy has them, by libpcre2 (loaded when this module is imported, no headers needed).
# Where the library is missing, exec() takes the GIL and asks Python's re: the one fall-back of the rules, slow but right.

from libc.stdint cimport uint32_t

from haptk._fast.bytes.span cimport Span

cdef enum:
    GROUPS = 10             # \0 to \9
    MATCH_LIMIT = 100000    # steps of one match; a pattern that needs more does not match, and is counted

ctypedef struct RegexC:
    void *code              # of libpcre2, or NULL: Arena.patterns[number] serves, with the GIL
    int number
    void *patterns          # the list, borrowed from the Arena

ctypedef struct RegexRoom:  # of one thread
    void *data
    void *context
    void *stack
    unsigned long long given_up

ctypedef struct Groups:
    int count               # groups that are set or were tried, at least 1 after a match
    uint32_t at[2 * GROUPS]     # begin and end of each; both NOWHERE for one that took no part

# Whether the library is there.
cdef bint regex_native() noexcept nogil
# Compile; raises ValueError with the library's words. NULL without the library.
cdef void *regex_compile(bytes pattern, bint ignore_case) except? NULL
cdef void regex_free(void *code) noexcept
cdef int regex_open(RegexRoom *room) except -1
cdef void regex_close(RegexRoom *room) noexcept
# Search v; 1 when found, 0 when not (or given up). `inside`: v is not the beginning of a line.
cdef bint regex_exec(RegexRoom *room, RegexC *re, Span v, bint inside, Groups *out) noexcept nogil
# What group `i` (0: everything) of a match of v holds; none when it took no part.
cdef Span regex_group(Span v, const Groups *g, int i) noexcept nogil

# judge: what an answer is worth. HAProxy's rules, in its words. Nothing here reads or writes a socket.

from libc.stdint cimport int64_t, uint32_t

from haptk._fast.bytes.span cimport Span
from haptk._fast.checks.plan cimport StepC
from haptk._fast.checks.state cimport CheckC, EngineC, Verdict

# The text of a result; what does not fit is cut, as HAProxy cuts it.
cdef void say(CheckC *c, const char *word) noexcept nogil
cdef void say_span(CheckC *c, Span s) noexcept nogil
cdef void say_comment(CheckC *c, StepC *step, bint quoted) noexcept nogil
# Nothing was said yet.
cdef void unsay(CheckC *c) noexcept nogil
cdef void say_number(CheckC *c, int64_t v) noexcept nogil
# The check is over.
cdef void settle(CheckC *c, int outcome) noexcept nogil
# The connection broke (`error` is an errno) or the time is over (0).
cdef void settle_broken(CheckC *c, int error, bint expired) noexcept nogil
# One expectation against what has come; `last`: nothing more will.
cdef Verdict judge(EngineC *e, CheckC *c, StepC *step, bint last) noexcept nogil
# All steps were played.
cdef void settle_passed(CheckC *c) noexcept nogil

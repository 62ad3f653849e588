# convert: the converters behind a fetch. Results point into the sample or the room of Seen.

from libc.stdint cimport int64_t, uint32_t

from haptk._fast.facts cimport Sample, Seen
from haptk._fast.program cimport ExprC, Text

# Apply the converters; 0 when one of them has no result.
cdef bint convert(Seen *x, ExprC *e, Sample *v) noexcept nogil
# The one sample that formats take, converted.
cdef bint fetch_one(Seen *x, ExprC *e, Sample *out) noexcept nogil
# `template` with \0 to \9 taken from a match of v; returns the length, or -1 when it does not fit.
cdef int64_t expand_groups(Text *template, const char *v, size_t *at, int count, char *out, uint32_t size) noexcept nogil

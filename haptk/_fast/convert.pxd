# convert: the converters behind a fetch. Results point into the sample or the room of Seen.

from haptk._fast.bytes.span cimport Room, Span
from haptk._fast.facts cimport Sample, Seen
from haptk._fast.program cimport ExprC
from haptk._fast.regex cimport Groups

# Apply the converters; 0 when one of them has no result.
cdef bint convert(Seen *x, ExprC *e, Sample *v) noexcept nogil
# The one sample that formats take, converted.
cdef bint fetch_one(Seen *x, ExprC *e, Sample *out) noexcept nogil
# Append `template` with \0 to \9 taken from a match of v.
cdef void expand_groups(Span template, Span v, const Groups *groups, Room *out) noexcept nogil

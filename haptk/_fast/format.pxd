# format: format strings as rules use them, written into a given place. Owns nothing.

from libc.stdint cimport int64_t, uint32_t

from haptk._fast.facts cimport Seen
from haptk._fast.program cimport FormatC

# The text of f into out; its length, or -1 when it does not fit. What expressions yield is made safe for a header line:
# control bytes other than the tab become %XX.
cdef int64_t format_put(Seen *x, FormatC *f, char *out, uint32_t size) noexcept nogil

# format: format strings as rules use them, written into a given place. Owns nothing.

from haptk._fast.bytes.span cimport Room
from haptk._fast.facts cimport Seen
from haptk._fast.program cimport FormatC

# Append the text of f to out: 0, or -1 when it does not fit. What expressions yield is made safe for a header line:
# control bytes other than the tab become %XX.
cdef int format_put(Seen *x, FormatC *f, Room *out) noexcept nogil

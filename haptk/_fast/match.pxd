# match: whether tests and conditions hold for what is seen. Owns nothing.

from haptk._fast.facts cimport Seen
from haptk._fast.program cimport ConditionC, Net, PatternC, TestC
from haptk._fast.facts cimport Sample
from libc.stdint cimport uint8_t

cdef bint in_network(Net *net, int family, const uint8_t *a) noexcept nogil
# Whether one converted sample matches one pattern.
cdef bint matches(Seen *x, TestC *t, PatternC *p, Sample *v) noexcept nogil
cdef bint test_holds(Seen *x, TestC *t) noexcept nogil
# NULL always holds.
cdef bint holds(Seen *x, ConditionC *c) noexcept nogil

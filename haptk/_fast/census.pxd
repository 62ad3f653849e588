# census: who is connected, for `show sess`, `show fd` and `shutdown session`. The control plane hangs a Census on the
# worker and wakes it; the worker writes one Glance for each session, some each turn so that no traffic waits, and
# says so when it is through. Sessions that begin meanwhile are not in it.
#
# A Census belongs to the worker from the moment it hangs there until `done` is set, and to the control plane
# otherwise. `cursor` is moved by session_free(), so that it never points to a session that has ended.

from haptk._fast.state cimport Census, Session, Worker

cdef enum CensusWish:
    CENSUS_LIST = 1         # every session
    CENSUS_END = 2          # end the session `wanted`, if it is there

# Ends a session by an administrator's word.
ctypedef void (*EndFn)(Worker *w, Session *s) noexcept nogil

# One step; called when the worker was woken. `end` is what CENSUS_END does.
cdef void census_step(Worker *w, EndFn end) noexcept nogil
# The control plane's side: hang up a wish; False while another one is under way.
cdef bint census_ask(Worker *w, int wish, size_t wanted, bint names)
# What was found, as tuples in the order of proxy/glance.py's Glance; None while the worker is not through.
cdef object census_take(Worker *w, int number)
cdef void census_close(Worker *w) noexcept nogil

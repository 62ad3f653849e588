# journal: what is noted when a transaction ends. The worker writes records into a ring of its own without a lock; the
# control plane reads them and makes log lines of them. A full ring drops records and counts them.

from haptk._fast.state cimport Session, Worker

# s.status, s.cause, s.at and the cookie letters are final.
cdef void note_end(Worker *w, Session *s) noexcept nogil

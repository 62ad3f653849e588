# deadlines: when a session's one timer is due, by its phase and what it waits for. HAProxy's rules; nothing is owned.

from haptk._fast.state cimport Session, Worker

cdef enum:
    PARTING_MS = 1000       # when we stop, a client that was told nothing of that has so long for its next request
    LINGER_MS = 2000        # how long input is discarded after an answer that ends the connection

# Set the timer anew; called after every step of a session that goes on.
cdef void arm(Worker *w, Session *s) noexcept nogil

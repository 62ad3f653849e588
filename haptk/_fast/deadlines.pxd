# deadlines: when a session's one timer is due. One table of rules, a pure function of the session: no clock is read here.
#
# Two stamps say when something last happened: Session.client_ms (bytes read from or written to the client) and
# Session.server_ms (the connection came up; bytes of the request written; an interim or the final head, or bytes of the
# body read). Part of a head is no progress on either side's part of an exchange: it renews client_ms, which
# `timeout http-request` bounds, and never server_ms. As in HAProxy:
#
# phase, and what is missing                  who   limit                        counted from
# ------------------------------------------  ----  ---------------------------  -----------------------------
# PROXY header                                c     client                       accepted
# head: nothing yet on a new connection,      c     http-request                 accepted, first byte
#   or part of it                             c     client                       client_ms
# head: waiting for another request           c     http-keep-alive              end of the last one
#                                             c     client                       client_ms
# queue                                       s     queue                        entered it
# retry: before the next attempt              -     1 s, or connect if shorter   the last one failed
# connection                                  s     connect                      asked for
# answer or a part of it, while nothing is    s     server                       server_ms
#   owed to the client; the request may be
#   incomplete
#   body that ends with the connection        s     tunnel, else server          server_ms
#   no `timeout server`, request incomplete   c     client                       client_ms
# client does not take what it is owed        c     client                       client_ms
# answered early, request incomplete          c     client                       client_ms
# tunnel: a side that is owed bytes, or has   c, s  tunnel, else client, server  client_ms, server_ms
#   not ended while the other is owed none
#   once it has ended, or our end was sent    c, s  client-fin, server-fin       client_ms, server_ms, that end
# answer of our own                           c     client, else 10 s            client_ms
# lingering                                   -     2 s                          began to
#
# The earliest counts, and of equal ones the client's; `who` becomes the first letter of the termination state.

from libc.stdint cimport int64_t

from haptk._fast.state cimport Session, Worker

cdef enum:
    PARTING_MS = 1000       # when we stop, a client that was told nothing of that has so long for its next request
    LINGER_MS = 2000        # how long input is discarded after an answer that ends the connection

# The deadline of the table (0 for none) and in `side` whose it is: c or s.
cdef int64_t deadline(Session *s, bint stopping, char *side) noexcept nogil
# Set the timer anew; called after every step of a session that goes on.
cdef void arm(Worker *w, Session *s) noexcept nogil

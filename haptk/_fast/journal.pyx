# The seam for log lines: nothing is recorded for a frontend that does not log.


cdef void note_end(Worker *w, Session *s) noexcept nogil:
    if s.frontend.log == 0:
        return

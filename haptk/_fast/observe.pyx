from haptk._fast.descriptors cimport FD_ALARM, fd_ring
from haptk._fast.scan cimport hk_add, hk_load, hk_store
from haptk._fast.state cimport LIVE_DOWN, LIVE_DRAIN, LIVE_UP


cdef void trip(ServerC *srv, int sight) noexcept nogil:
    cdef int state = hk_load(&srv.live.state)
    hk_store(&srv.live.observed, 0)
    hk_store(&srv.live.trip_cause, sight)
    hk_add(&srv.live.tripped, 1)
    if hk_load(&srv.live.fuse) > 0 and hk_add(&srv.live.fuse, -1) == 0 and (state == LIVE_UP or state == LIVE_DRAIN):
        hk_store(&srv.live.state, LIVE_DOWN)
    fd_ring(srv.alarm_fd, FD_ALARM)


cdef void observe_closely(ServerC *srv, int sight) noexcept nogil:
    # layer4 sees connections only; layer7 sees answers, and that a connection failed.
    if sight == SAW_CONNECT or sight == SAW_ANSWER:
        if (sight == SAW_CONNECT) == (srv.observe == 4) and hk_load(&srv.live.observed):
            hk_store(&srv.live.observed, 0)
        return
    if sight != SAW_NO_CONNECT and srv.observe == 4:
        return
    if hk_add(&srv.live.observed, 1) >= srv.error_limit:
        trip(srv, sight)


cdef int sight_of(int status) noexcept nogil:
    return SAW_ANSWER if status < 500 or status == 501 or status == 505 else SAW_BAD_STATUS

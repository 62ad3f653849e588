from haptk._fast.scan cimport hk_add, hk_load, hk_store


cdef void observe(ServerC *srv, int sight) noexcept nogil:
    # layer4 sees connections only; layer7 sees answers, and that a connection failed.
    if srv == NULL or srv.observe == 0:
        return
    if sight == SAW_CONNECT or sight == SAW_ANSWER:
        if (sight == SAW_CONNECT) == (srv.observe == 4) and hk_load(&srv.live.observed):
            hk_store(&srv.live.observed, 0)
        return
    if sight == SAW_BAD_ANSWER and srv.observe == 4:
        return
    if hk_add(&srv.live.observed, 1) >= srv.error_limit:
        hk_store(&srv.live.observed, 0)
        hk_add(&srv.live.tripped, 1)


cdef int sight_of(int status) noexcept nogil:
    return SAW_ANSWER if status < 500 or status == 501 or status == 505 else SAW_BAD_ANSWER

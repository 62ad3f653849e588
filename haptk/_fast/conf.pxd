# conf: the C image of ProxyTables. Built under the GIL, read without it, never changed afterwards; an Image owns all
# of its memory and lives as long as any worker that runs on it.

from haptk._fast.program cimport Arena
from haptk._fast.state cimport (AddHeaderC, BackendC, CaptureC, Conf, FrontendC, Limits, Live, Place, ServerC, StickC, StickRuleC,
                                StickTableC, Text)

cdef class Image:
    cdef Conf conf
    cdef Live *live             # one per server, shared by all workers
    cdef readonly object tables
    cdef readonly object stores     # name -> Table, kept alive
    cdef readonly list server_names     # "backend/server" by gid
    cdef Arena arena            # of the rules
    cdef readonly int alarm     # eventfd that workers ring when live traffic went wrong; -1 when no server is observed
    cdef list kept              # bytes objects that Texts point into
    cdef object blocks          # addresses to free, in an array: the collector of cycles empties lists before __dealloc__
    cdef int log_most           # bytes of the longest log line that any target takes
    cdef dict places            # (host, port, unix path, mapped) -> address of its Place
    cdef int spare              # servers that may be added at run time
    cdef dict cookies           # values of servers that have moved, kept alive

    # zeroed memory that lives as long as the image
    cdef void *block(self, size_t count, size_t size) except NULL
    # value: None, str or bytes; the bytes are kept alive
    cdef int text(self, Text *out, value) except -1
    cdef int add_header(self, AddHeaderC *out, rule) except -1
    # the structure of an address; ValueError for what is none
    cdef Place *place(self, str host, int port, str unix_path, bint mapped=*) except NULL
    cdef int fill_server(self, ServerC *out, int index, int gid, int be_index, be, server) except -1
    cdef int fill_source(self, ServerC *out, source) except -1
    cdef int fill_cookie(self, BackendC *out, rule) except -1
    cdef int fill_limits(self, Limits *out, t) except -1
    # how many servers a backend can have; those that are added need a balance that knows no map
    cdef int room_of(self, be)
    cdef BackendC *home(self, int gid) except NULL
    cdef int stick_with(self, BackendC *be, int index, bint with_it) except -1
    cdef int fill_stick_table(self, StickTableC *out, store, be) except -1
    cdef int fill_stick_rule(self, StickRuleC *out, rule, list names) except -1
    cdef int fill_stick(self, BackendC *out, be) except -1
    cdef int fill_backend(self, BackendC *out, int index, be, int gid) except -1
    cdef int fill_shared(self, BackendC *out, int servers) except -1
    # own error files
    cdef int fill_pages(self, Text *out, errorfiles) except -1
    cdef int fill_captures(self, FrontendC *out, fe) except -1
    cdef CaptureC *captures(self, slots) except NULL
    cdef list reached(self, fe)
    cdef int fill_rules(self, FrontendC *out, fe) except -1
    cdef int fill_log(self, FrontendC *out, int index, fe) except -1
    cdef int fill_process(self) except -1
    cdef int fill_frontend(self, FrontendC *out, int index, fe) except -1

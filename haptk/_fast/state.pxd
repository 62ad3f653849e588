# state: every structure of the data plane, who owns it and who may touch it. No code.
#
# Conf (and everything below it) is immutable once a worker runs on it, but for the limits and the pause that an
# administrator sets (maxconn of frontends and servers, FrontendC.paused: whole words, read anew at each use); only the
# Live structures, one per server, are shared between threads and are accessed through hk_load, hk_store and hk_add. A
# Worker and all that hangs from it (sessions, server connections, buffers) belong to one thread.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from haptk._fast.bytes.span cimport Room
from haptk._fast.http1 cimport Body, Buf, Head
from haptk._fast.inet cimport sockaddr_storage
from haptk._fast.logplan cimport LogPlanC
from haptk._fast.program cimport ConditionC, FormatC, Net, Program, Text
from haptk._fast.regex cimport RegexRoom
from haptk._fast.store cimport Store

# ------------------------------------------------------------------ configuration, immutable

# Index of an answer of our own in FrontendC.pages; proxy/pages.py has the statuses in this order.
cdef enum ErrorPage:
    PAGE_200 = 0, PAGE_400, PAGE_408, PAGE_500, PAGE_502, PAGE_503, PAGE_504
    PAGES_MAX = 24

cdef enum LiveState:
    LIVE_DOWN = 0, LIVE_UP = 1, LIVE_DRAIN = 2, LIVE_MAINT = 3

cdef enum:
    WEIGHT_SCALE = 16       # so that slowstart has steps to take even for a weight of 1

ctypedef struct Place:      # an address; never changed or freed while the image lives
    int family
    uint32_t addr_len
    sockaddr_storage addr
    int port_from_client    # no port: the client's destination port, plus port_offset, is used
    int port_offset
    int addr_from_client    # 0.0.0.0: the client's destination address is used

# Shared by all workers and the control plane.
ctypedef struct Live:
    int state               # LiveState, written by the control plane; a worker takes a server down whose `fuse` is out
    int weight              # effective weight times WEIGHT_SCALE, written by the control plane only
    int kills               # counts how often all its sessions were to be cut, written by the control plane only
    int sessions            # atomic: established or connecting requests
    int queued              # atomic
    int observed            # atomic: errors in a row, for `observe`
    int tripped             # atomic: how often `observed` reached the server's error_limit
    int fuse                # atomic: how many more times take it down at once; 0 when that alone never does
    int eased               # under slowstart: 1 + percent of its maxconn that holds now; written by the control plane only
    Place *place            # atomic: where it is now; written by the control plane only, NULL while unknown
    int cuts                # counts how often an administrator ended its sessions, written by the control plane only
    int idle                # atomic: connections of all workers that wait for use
    int trip_cause          # the Sight of the error that reached the limit last
    int pad[2]

ctypedef struct ServerC:
    int index               # inside its backend
    int id                  # HAProxy's number of it, from the file or by position; a stick table may name it so
    int backend             # index of that
    int gid                 # over all backends; index into Worker.servers
    int non_stick           # no table learns it
    Text name
    Text cookie             # p is NULL for a server without one
    int weight
    int maxconn
    int maxqueue
    int minconn             # the limit while the backend is empty; 0 when the limit is fixed
    Text redir              # prefix of where clients are sent instead; p is NULL without one
    Place *source           # address to connect from, NULL for the kernel's choice
    int source_low          # its ports, 0 for the kernel's choice
    int source_high
    int tcpka
    int tcpka_probes        # of TCP keep-alives; 0 is the system's own
    int tcpka_idle_s
    int tcpka_interval_s
    int nolinger
    int observe             # 4 or 7: the layer that is watched, 0 for none
    int error_limit
    int alarm_fd            # eventfd that is rung when the limit is reached; every worker carries it
    int backup
    int send_proxy          # version of the PROXY header to send, 0 for none
    int max_reuse           # how often a connection may be used again, -1 for ever
    int pool_max            # idle connections kept by all workers together, -1 for no limit
    int pool_purge_ms
    Live *live

cdef enum BalanceId:
    LB_ROUNDROBIN = 0, LB_STATIC_RR, LB_LEASTCONN, LB_FIRST, LB_SOURCE, LB_RANDOM, LB_URI, LB_URL_PARAM, LB_HDR

cdef enum CookieFlag:
    CK_RULE = 1, CK_INSERT = 2, CK_PREFIX = 4, CK_REWRITE = 8, CK_INDIRECT = 16, CK_NOCACHE = 32
    CK_POSTONLY = 64, CK_PRESERVE = 128

cdef enum ConnectionMode:
    MODE_KEEP = 0, MODE_SERVER_CLOSE = 1, MODE_CLOSE = 2

cdef enum ReuseMode:
    REUSE_NEVER = 0, REUSE_SAFE, REUSE_AGGRESSIVE, REUSE_ALWAYS

ctypedef struct AddHeaderC:
    Text name               # lower case; p is NULL when the option is off
    int if_none
    Net *except_nets
    int except_count

ctypedef struct Limits:     # milliseconds, 0 for none; fallbacks are already applied
    int connect
    int client
    int server
    int request
    int keep_alive
    int queue
    int tunnel
    int client_fin
    int server_fin

cdef enum StickFetch:
    FETCH_SRC = 0, FETCH_COOKIE, FETCH_HEADER, FETCH_LINE, FETCH_PARAM, FETCH_PATH, FETCH_URL

cdef enum StickAct:
    STICK_MATCH = 1, STICK_STORE = 2    # `on` is both

ctypedef struct StickTableC:    # a table as one backend sees it
    Store *store
    int *by_name            # number of a name in the table -> index of the server here, -1 for none
    int names               # length of by_name; later numbers are none of ours
    uint16_t *own           # index of a server -> number of its name

ctypedef struct StickRuleC:
    int act                 # StickAct
    int fetch               # StickFetch
    int table               # index into StickC.tables
    Text argument           # header names are lower case
    char delimiter
    ConditionC *condition   # what has to hold, NULL for always

ctypedef struct AppSessionC:
    Text name
    uint32_t length
    int prefix
    int query
    int request_learn
    int table               # index into StickC.tables

ctypedef struct StickC:
    StickTableC *tables
    int table_count
    StickRuleC *requests    # match, on, store-request in file order
    int request_count
    StickRuleC *responses   # store-response
    int response_count
    AppSessionC *app        # NULL for none

ctypedef struct RingPoint:
    uint32_t key
    uint32_t node           # its number among its server's points
    int server

ctypedef struct WaitLine:   # sessions of all workers that wait for a slot, oldest first
    Session *first
    Session *last
    int count               # atomic for those who only look

ctypedef struct ServerTurn:  # of one server in its backend's turns
    int64_t npos            # weighted round robin
    int64_t rweight
    int started
    uint64_t touched        # leastconn: SharedC.touches when its number of sessions changed last

ctypedef struct SharedC:    # what all workers share of a backend and change all the time
    int lock                # of the lines; held for a few instructions
    int waiting             # atomic: in all lines
    uint64_t tickets        # drawn so far
    WaitLine any            # for any server
    WaitLine *bound         # for one server, by index
    int pad[16]
    int turn_lock           # of everything below; taken only where there are several workers
    int next                # plain round robin; the last point of a ring
    int64_t pos             # weighted round robin
    ServerTurn *servers     # by index
    uint64_t touches        # atomic
    int *map                # of map-based balance: indices of the servers that were up when it was made
    int *gathered           # scratch, by server
    int map_room
    int map_len
    int map_at              # turns over it
    uint64_t map_of         # which servers those were

ctypedef struct BackendC:
    int index
    Text name
    int tcp
    ServerC *servers
    int room                # for that many servers; `count` grows when servers are added at run time
    int count
    int weight_unit         # greatest common divisor of its servers' weights
    int equal_weights
    int balance
    int by_hash             # the balance is a hash of something of the client or its request
    int hash_function       # HashId
    int hash_avalanche
    int uri_path_only
    int draws
    int uri_whole
    int uri_length
    int uri_depth
    Text balance_arg        # lower case for a header's name
    int domain_only         # balance hdr ... use_domain_only
    RingPoint *ring         # hash-type consistent, by key; NULL for map-based
    int ring_n
    int cookie              # CookieFlag
    Text cookie_name
    Text cookie_tail        # "; path=/; domain=...; HttpOnly; ..." as it is appended
    int maxidle_s
    int maxlife_s
    int connection
    int reuse
    int redispatch          # 0 off, -1 on the last retry, N every Nth
    int retries
    int retry_on            # RetryOn
    int persist
    int strict
    int abortonclose
    int lax                 # accept-invalid-http-response
    int allbackups
    int limited             # some server has a maxconn
    int fullconn            # sessions at which servers with a minconn have their full maxconn
    int head_room           # kept free in a rendered head, for a PROXY header
    int prefer_last         # stay with the server of a kept connection
    int max_ka_queue        # as long as its queue is no longer than this; 0 for no limit
    int pretend_ka          # the server is not told that its connection will be closed
    StickC *stick           # NULL: nothing is learned
    int sees_added          # a stick rule or the balance may look at a header that the proxy itself adds
    int *sessions           # atomic, shared by all workers
    SharedC *shared
    Text stats_uri          # prefix of the statistics page; p is NULL without one
    Limits limits
    AddHeaderC forwardfor
    AddHeaderC originalto
    Program *program        # its rules
    int ruled_response      # it has http-response rules
    Text pages[PAGES_MAX]   # own error files by ErrorPage; p is NULL where the frontend's page serves

ctypedef struct CaptureC:   # a slot for what is kept of a message
    Text name               # of the header that fills it, lower case; n is 0 when only rules do
    uint32_t length         # bytes kept

# Of one bind line. Each worker has an accept queue of its own there; where no place is left, they take turns.
ctypedef struct Turns:
    int waiting             # atomic: workers that hold a ticket
    int last                # atomic: the newest ticket
    int tickets[256]        # atomic: by worker, 0 for none

ctypedef struct FrontendC:
    int index
    Text name
    int tcp
    int nolinger            # option nolinger: its sockets end with a reset once all is sent
    BackendC *backend       # NULL: 503
    BackendC *own           # the back half of a `listen`, which has the same rules; NULL for a `frontend`
    int maxconn
    int *sessions           # atomic, shared by all workers
    int *admitted           # atomic: its clients, and places that are held while one is accepted
    int door                # option socket-stats: place of its first socket in Worker.fronts; 0 without
    int connection
    int lax
    LogPlanC *log           # what is written about transactions; NULL for nothing
    int noting              # something of a request is kept: its line, a capture, a number
    int dontlognull
    FormatC unique          # unique-id-format
    Text unique_header      # that carries it; p is NULL without one
    int ignore_probes       # connections that say nothing are no errors
    Limits limits
    AddHeaderC forwardfor
    AddHeaderC originalto
    int wants_local         # some header, rule or log needs the address that was connected to
    Text monitor_uri
    Text stats_uri          # prefix of the statistics page; p is NULL without one
    Text pages[PAGES_MAX]   # by error number (ErrorPage), own errorfile or the built-in page
    Program *program        # its rules
    int ruled               # it or a backend that it may choose has rules for requests, or statistics
    int ruled_response      # it has http-response rules
    int paused              # atomic: accepts nothing for now; written by the control plane
    int capturing           # headers or a cookie are
    CaptureC *request_captures
    int request_slots
    CaptureC *response_captures
    int response_slots
    Text cookie_capture     # what the cookie that is kept begins with; p is NULL without one
    uint32_t cookie_length
    Text *bind_names
    int *bind_ids
    int *bind_limits        # maxconn of each of its sockets, 0 for none; NULL where none has one
    int *bind_admitted      # atomic, shared by all workers: connections of each
    Turns *turns            # of each of its sockets

ctypedef struct Gate:       # at most `limit` events a second; shared by all workers
    int limit               # atomic: 0 for no limit
    int busy                # a lock, held for a few instructions, only while there is a limit
    int64_t start           # ms, of the current second
    int32_t current
    int32_t before

ctypedef struct Rate:       # events by the second
    int64_t start           # ms, of the current one
    uint32_t current
    uint32_t before
    uint32_t most           # in any one

ctypedef struct SharedRate:  # of all workers, where there are several
    int busy                # a lock, held for a few instructions
    Rate rate

ctypedef struct Conf:
    FrontendC *frontends
    int frontend_count
    int door_count          # sockets with counters of their own; their Tallies stand behind those of the frontends
    int *door_sessions      # atomic, of each of them
    BackendC *backends
    int backend_count
    ServerC **servers       # all of them, by gid
    int server_count        # atomic: grows when servers are added at run time
    int server_room         # that many at most
    int bufsize
    int maxrewrite
    int maxconn
    void **request_faults   # by frontend and backend; see faults, whose lock guards what they point to
    void **response_faults
    int *actives            # atomic: connections of all frontends, for %ac; NULL when no log asks
    int connection_seen     # some rule or capture looks at Connection
    int *numbers            # atomic: requests so far, for %rt; NULL when nobody asks
    int limit               # atomic: the most client connections of all frontends together, 0 for no limit
    Gate *connections       # how many a second, of all workers
    Gate *sessions
    int workers             # how many run on it; grows before they do
    SharedRate *front_rates     # of connections, by index
    SharedRate *request_rates
    SharedRate *back_rates
    SharedRate *serv_rates
    int *bells              # the wake_fd of each: every worker carries all of them

# ------------------------------------------------------------------ running, one thread each

cdef enum Kind:             # first field of everything that epoll points to
    KIND_LISTENER = 1, KIND_SESSION, KIND_SERVER, KIND_WAKE

cdef enum Phase:
    PH_HEAD = 0             # waiting for or reading a request head
    PH_QUEUE                # waiting for a server slot
    PH_RELAY                # a server connection is attached (connecting or established)
    PH_REPLY                # writing an answer of our own
    PH_LINGER               # answered and shut down; discarding input so that the answer is not reset away
    PH_RETRY                # waiting a second before the same server is tried again
    PH_PROXY                # waiting for the PROXY header of `accept-proxy`
    PH_SERVICE              # the control plane answers this request
    PH_DEAD

ctypedef struct Timer:      # a node of the wheel; due is lazy: it may move later without relinking
    Timer *prev
    Timer *next
    int64_t due             # ms, 0 for none
    int64_t placed          # ms of the slot it stands in, 0 when unlinked

ctypedef struct Listener:
    int kind
    int fd
    int owned               # the descriptor is ours to close
    int watched             # epoll looks at it; not while the frontend is full or descriptors ran out
    int announced           # accept-proxy: a PROXY header comes first
    FrontendC *frontend
    int bind                # index of its bind line in the frontend

cdef enum:
    LOG_SILENT = 9          # of Session.log_level

cdef enum LinkRest:
    REST_NOT = 0            # it serves a request, or is on its way to
    REST_SHARED             # in its server's idle list
    REST_KEPT               # waits for the next request of the one client it belongs to

ctypedef struct Link:       # one connection to a server; idle ones stand in their server's list
    int kind
    int fd
    uint8_t readable
    uint8_t writable
    uint8_t hup             # an end of stream or an error was announced
    uint8_t connected
    uint8_t reused          # it served a request before this one
    uint8_t idle            # LinkRest
    uint8_t prompt          # TCP_NODELAY is set
    uint8_t shut            # our end of stream was sent
    uint8_t broken          # reset, refused or closed both ways
    uint8_t early           # it answered before it had the whole request, and may take the rest for another one
    ServerC *server
    Place *place            # where it leads
    Session *session        # NULL while it stands in the server's idle list; the owner of a kept one
    uint32_t uses           # requests after the first
    Link *prev
    Link *next
    int64_t since           # ms, start of idling

ctypedef struct Peer:       # an address, with its text made once; text_len is 0 for unix sockets
    uint8_t text_len
    char text[46]
    uint16_t port
    int family
    uint8_t address[16]

# What every request touches comes first, in the order of use and 64 bytes apart where that is easy: see worker.look_ahead.
ctypedef struct Session:    # one client connection and its current transaction
    int kind
    int fd
    uint8_t readable
    uint8_t writable
    uint8_t hup
    uint8_t eof             # the client has sent its end of stream
    uint8_t phase
    uint8_t keep            # the client connection stays open after this transaction
    uint8_t first           # no transaction was finished on this connection yet
    uint8_t got_byte        # of the current request
    uint8_t parse_tries
    uint8_t minor           # of the request
    uint8_t method
    uint8_t upgrade_asked
    uint8_t shut_client
    uint8_t counted         # stands in server.live.sessions
    uint8_t broken
    uint8_t bulk_up         # a read filled the whole buffer: a larger one pays
    uint8_t bulk_down
    uint8_t watched         # epoll looks at the client's connection
    uint8_t announced       # length of the PROXY header in front of out_head
    uint8_t method_sent     # what the server was asked with; rules may change the method
    uint8_t open            # a transaction is open and will be counted when it ends
    uint8_t in_backend      # stands in backend.sessions
    uint8_t denied          # a rule refused this transaction
    uint8_t queued          # Waits, see queue.pxd
    # what a new transaction resets, side by side so that few stores do it
    uint8_t force_persist   # a force-persist rule holds
    uint8_t ignore_persist  # an ignore-persist rule holds
    uint8_t direct          # a valid cookie chose the server
    uint8_t head_done       # the final response head went through
    uint8_t response_any    # some response byte was received
    uint8_t server_eof
    uint8_t server_keep     # the server connection may be reused after this response
    uint8_t up_failed       # the server takes no more of the request; it may still have answered
    uint8_t keeping         # retry-on: the whole request stays in out_head until its answer is accepted
    uint8_t redispatched    # another server than the first one was tried
    uint8_t moving          # another one is to be chosen than `avoid`, where the balance has one
    uint8_t dead_retry      # the one retry after a dead reused connection was used
    uint8_t body_started    # a byte of the request body left rx, so the request cannot be repeated
    uint8_t want_fresh      # do not reuse an idle server connection
    uint8_t tunnel
    uint8_t service         # ServiceId that answers this transaction
    uint8_t unlogged        # an answer to monitor-uri, which no log mentions
    uint8_t log_level       # that a rule set, of syslog plus 1; LOG_SILENT for no line, 0 for the usual one
    uint8_t no_retry        # http-request disable-l7-retry
    uint8_t response_minor  # of HTTP/1 of the server's answer, plus 1; 0 before it is there
    uint8_t hashed          # `hash` was computed
    uint8_t rule_close      # a rule wrote `Connection: close` into the request
    uint8_t rule_keep       # or `keep-alive`, which outweighs what the file says
    uint8_t server_close    # the server connection serves this request only
    uint8_t ck_request      # log letter of the request cookie: N I D V E O U
    uint8_t ck_response     # N I U R P D
    uint8_t cause           # log: first letter of the termination state
    uint8_t at              # log: second letter
    int retries_left
    int status
    uint32_t head_in        # weight of the request head (see tally)
    uint64_t heads_out      # weight of the response heads, and of answers of our own
    FrontendC *frontend
    BackendC *backend
    ServerC *server
    Link *link
    Buf rx                  # from the client
    Buf out_head            # rendered request head (and a small body), kept while it may be repeated
    Buf sx                  # from the server
    Buf in_head             # rendered response head
    Body up                 # request body
    uint64_t bytes_down
    Body down               # response body
    Timer timer
    int64_t client_ms       # when something last happened on the client's side, see deadlines
    int64_t server_ms       # and on the server's
    int64_t since_ms        # start of the current wait with an absolute deadline
    int64_t ready_ms        # from when the transaction's time counts: accepted, or the end of the one before
    int64_t started_ms      # first byte of the request
    int64_t request_ms      # request head complete
    int64_t queue_ms
    int64_t connect_ms
    int64_t response_ms
    uint64_t told_in        # of the bytes of this transaction, what the tallies know already
    uint64_t told_out
    uint32_t tried_n        # rx.n at the last attempt to parse a head
    uint32_t last_date      # of the cookie, seconds
    uint32_t first_date
    uint32_t hash           # of the balance argument
    uint32_t handshake_ms   # that a PROXY header took
    uint32_t number         # of this request, for %rt
    int behind_server       # how many were before it in a queue, for %sq
    int behind_backend      # for %bq
    uint8_t logged          # this transaction's line is written
    ServerC *avoid          # the server that just failed
    Link *kept              # idle, and for this client only
    Buf stick               # keys to store once the server has answered, only between the two
    Buf line                # copy of the request line and what was captured, only where the frontend logs or captures
    uint32_t line_len       # of the request line; captures follow as slot (8 bits), length (16), bytes
    Peer peer               # the client
    # from here on rarely or once
    int64_t accepted_ms
    Errand *errand          # NULL unless a service answers
    int listener_index      # of the bind line in the frontend
    Session *qprev          # of the line it waits in
    Session *qnext
    Session *ready_next     # of Worker.ready
    Worker *home            # its worker, for others to wake
    ServerC *granted        # the server whose slot it was given while it waited
    int open_now            # how many sessions that server had then
    uint64_t ticket         # who came first
    Session *next           # free list
    Session *all_prev       # every session of the worker
    Session *all_next
    Peer local              # where it connected to; only for option originalto

ctypedef struct ServerW:    # a worker's own view of one server
    Link *idle              # newest first
    Link *idle_tail
    int idle_count
    int used                # connections that serve a session now
    int source_port         # the one that was used last
    int peak                # most of them in the last second or two
    int64_t peak_at
    int kills_seen
    int cuts_seen

ctypedef struct Tally:      # of one frontend, backend or server; see tally.pxd
    uint64_t sessions       # connections to a frontend, requests to a backend, attempts to use a server
    uint64_t requests
    uint64_t answers[6]     # by class, 0 for none
    uint64_t bytes_in
    uint64_t bytes_out
    uint64_t denied_requests
    uint64_t denied_responses
    uint64_t bad_requests
    uint64_t connect_errors
    uint64_t bad_responses
    uint64_t retries
    uint64_t redispatches
    uint64_t client_aborts
    uint64_t server_aborts
    uint64_t balanced
    uint64_t connects
    uint64_t reused
    uint64_t intercepted    # answered by a service
    uint64_t internal_errors
    uint64_t timed          # transactions in the sums below, ms
    uint64_t queue_sum
    uint64_t connect_sum
    uint64_t response_sum
    uint64_t total_sum
    uint32_t queue_most
    uint32_t connect_most
    uint32_t response_most
    uint32_t total_most
    uint32_t live_most      # sessions at once
    uint32_t queued_most
    int64_t last            # ms, of the last session
    Rate rate               # of sessions
    Rate request_rate

ctypedef struct Errand:     # see service.pxd
    Errand *next
    Session *session
    int kind                # ServiceId
    int stage               # of the worker: reading the body, waiting, writing
    int frontend            # indices
    int backend             # -1: the frontend's own statistics
    int keep                # the client's connection stays open
    int minor
    Peer peer
    Room ask                # the head and then the body
    uint32_t head_n
    Room out                # head and body of the answer
    uint64_t sent
    int status              # 0: no answer

ctypedef struct Glance:     # what one session is doing, see census.pxd
    size_t id
    int phase
    int frontend            # indices; -1 for none
    int bind
    int backend
    int server
    int fd
    int server_fd           # -1 for none
    uint8_t open
    uint8_t tunnel
    uint8_t connected
    uint8_t reused
    uint8_t head_done
    uint8_t request_done
    uint8_t response_done
    uint8_t eof
    uint8_t method
    int status
    int retries
    int64_t age_ms
    int64_t quiet_ms        # until its time-out, -1 for none
    uint64_t bytes_in
    uint64_t bytes_out
    uint32_t from_client    # bytes that wait in our buffers
    uint32_t from_server
    Peer peer
    Peer local              # where the client connected to
    Peer source             # where our connection to the server comes from

ctypedef struct Census:     # see census.pxd
    int wish                # CensusWish
    size_t wanted           # 0 for every session
    int names               # look up addresses that cost a system call
    int begun
    int done                # atomic
    Session *cursor         # the next one to look at
    Glance *found
    int count
    int room

ctypedef struct Counters:
    uint64_t connections
    uint64_t requests
    uint64_t responses[6]   # by class, 0 for answers of our own
    uint64_t bytes_up
    uint64_t bytes_down
    uint64_t bad_requests
    uint64_t bad_responses
    uint64_t connect_failures
    uint64_t retries
    uint64_t redispatches
    uint64_t reused
    uint64_t server_connections
    uint64_t timeouts
    uint64_t fd_exhausted
    uint64_t log_dropped
    uint64_t loops          # turns of the loop
    uint64_t events         # that epoll announced
    uint64_t expired        # timers that were due

ctypedef struct Second:     # a date as text, made once
    int64_t at              # Unix time
    char local[20]          # 26/Nov/2026:10:14:05
    char universal[20]
    char zone[5]            # +0100

cdef enum:
    SECONDS = 4             # remembered: transactions that end together began at different times

ctypedef struct Calendar:   # what a worker knows of dates, for every format that names one; zeroed before the first
    int64_t looked_ms       # when the clocks were compared
    int64_t offset_us       # wall clock minus monotonic clock
    Second seconds[SECONDS]

# One writer (its worker), one reader (the log writer's thread); see journal.pxd. Both indices stay below the size; the
# lane is empty when they are equal.
ctypedef struct LogLane:
    char *d
    uint32_t size
    int head                # atomic: where the next record is written
    int pad1[13]
    int tail                # atomic: where the next one is read
    int asleep              # atomic: the reader waits for `wake_fd`
    int pad2[14]
    int wake_fd

cdef enum:
    BUFS_KEPT = 4096        # 64 MB at most stay with an idle worker
    BULK_SIZE = 131072      # of a buffer for a transfer that fills its usual one
    BULK_MOST = 256         # of them in one worker
    BULK_KEPT = 8
    SLIM_SIZE = 1072        # of a buffer for a sent request that may have to be sent again
    SLIMS_KEPT = 4096

ctypedef struct Worker:
    int epfd
    int wake_fd             # eventfd of the control plane
    int wake_kind           # KIND_WAKE, what epoll points to
    int stopping            # atomic: 0 run, 1 finish what is open, 2 stop now
    int listening           # atomic: 1 while the listening sockets are in use
    int index
    int *carried            # descriptors of the process that this thread uses; everything else is closed in its own table
    int carried_count
    int carried_room
    int own_table           # this thread's descriptor table is not shared with the process
    int accept_paused       # descriptors ran out
    int64_t accept_resume
    int listener_full       # some listener is not watched because its frontend is full
    int queued              # its sessions that wait for a slot
    int64_t look_at         # ms: when to look at the queues again
    Session *ready          # atomic: those that were given one; other workers push
    int told                # atomic: the control plane changed something
    int64_t now             # ms, monotonic; read once per turn
    int64_t wall            # seconds; read when a cookie needs it
    int64_t wall_read       # ms of that reading
    Conf *conf
    Listener *listeners
    int listener_count
    ServerW *servers
    Tally *fronts           # by index
    Tally *backs
    Tally *servs            # by gid
    void *posted            # Errands for the control plane, newest first
    void *answered          # Errands from it
    Errand *arrived         # taken from `answered`, oldest first
    void *census            # atomic: a Census that the worker is to carry out, NULL mostly
    Census *asked           # the control plane's last one
    int clear_asked         # atomic: 1 the highest values of the tallies, 2 all of them are to be zeroed
    int service_fd          # eventfd that tells the control plane; -1 when nothing is served
    Head head               # scratch: valid within one call
    Room edits              # copy of a head that rules change, and what they add behind it
    Room drafts[3]          # what rules build: see edit.DraftId
    Room made               # what converters make of samples (see facts)
    RegexRoom regex
    Session *free_sessions
    Link *free_links
    int free_session_count
    int free_session_low    # the fewest since the last trim
    int free_link_count
    int free_link_low
    int64_t owed            # bytes given to malloc since it gave its own surplus to the system
    int64_t owed_ms         # when it did
    Session *dead_sessions  # freed at the end of the turn: epoll may still name them
    Link *dead_links
    Session *all
    int free_buf_count
    int free_buf_low        # the fewest since the last trim
    void *bulk_free[BULK_KEPT]
    int bulk_free_count
    int bulk_count          # of all
    int slim_count          # on the stack below
    int slim_low            # the fewest since the last trim
    int unwatched           # sessions that epoll does not look at yet
    int colour
    int session_count
    int link_count
    int idle_total
    uint32_t rng
    Counters counters
    # timing wheel
    void *free_bufs[BUFS_KEPT]  # a stack
    void *free_slims[SLIMS_KEPT]
    Timer slots[1024]
    uint64_t bits[16]
    int64_t wheel_at        # ms of the next slot to look at
    int timers
    Calendar calendar
    LogLane *lane           # log lines on their way out; NULL when nothing is logged

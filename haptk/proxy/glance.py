"""What one session is doing at one moment, as the data plane says it: for `show sess`, `show fd` and `shutdown session`.

The compiled workers make these in `_fast/census.pyx`, in this order; the reference makes them in `reference_census.py`.
"""

from __future__ import annotations

from typing import NamedTuple

# state.pxd's Phase
HEAD, QUEUE, RELAY, REPLY, LINGER, RETRY, PROXY, SERVICE = range(8)
METHODS = ("OTHER", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH")


class Glance(NamedTuple):
    """Indices are -1 for none; `quiet_ms` is the time until the session's time-out, -1 without one.

    `phase` is one of the numbers above; `open` is true while a transaction is under way. `frontend` is -1 for an idle
    connection to a server. `from_client` and `from_server` are bytes that wait in our buffers.
    """

    worker: int
    id: int
    phase: int
    frontend: int
    bind: int
    backend: int
    server: int
    host: str
    port: int
    local_host: str
    local_port: int
    source_host: str
    source_port: int
    fd: int
    server_fd: int
    open: bool
    tunnel: bool
    connected: bool
    reused: bool
    head_done: bool
    request_done: bool
    response_done: bool
    eof: bool
    method: int
    status: int
    retries: int
    age_ms: int
    quiet_ms: int
    bytes_in: int
    bytes_out: int
    from_client: int
    from_server: int

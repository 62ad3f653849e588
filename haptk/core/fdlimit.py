"""How many descriptors a proxy needs, how many connections its limit allows, and what to do about a limit that is too low.

The sums are HAProxy 2.6's, so that `maxconn` of a file without one, `Maxsock` and the sentences of a refusal are the
same for the same file: two descriptors for each connection, ten in reserve, three for each thread, and one for each
listener, check, peers connection and connection to the stats socket. A worker of haptk has a descriptor table of its
own, so the sums are more than it needs with several threads.
"""

from __future__ import annotations

from dataclasses import dataclass

RESERVE = 10
PER_THREAD = 3
LEAST_MAXCONN = 100  # HAProxy's DEFAULT_MAXCONN: below that it is better to be told


@dataclass(frozen=True)
class Limit:
    """One sentence about a limit that is too low, "" for none. `refuse` says that the start ends with it."""

    says: str = ""
    refuse: bool = False


def fixed(threads: int, listeners: int, checks: int, others: int = 0) -> int:
    """Descriptors that are needed whatever the number of connections."""
    return RESERVE + PER_THREAD * threads + listeners + checks + others


def ideal_maxconn(limit: int, fixed_fds: int, hard_limit: int = 0) -> int:
    """The maxconn of a file that names none."""
    if hard_limit:
        limit = min(limit, hard_limit)
    return max((limit - fixed_fds) // 2, LEAST_MAXCONN)


def wanted(soft: int, need: int, asked: int = 0) -> int:
    """What the soft limit has to be raised to (`asked` by ulimit-n); 0 when it is high enough."""
    target = asked or need
    return target if target > soft else 0


def cannot_raise(target: int, limit: int, *, strict: bool) -> Limit:
    """The limit could not be raised to `target`."""
    return Limit(says=f"Cannot raise FD limit to {target}, limit is {limit}.", refuse=strict)


def verdict(limit: int, maxconn: int, need: int, *, strict: bool) -> Limit:
    """Whether the limit that holds now is enough."""
    if limit >= need:
        return Limit()
    return Limit(
        says=f"FD limit ({limit}) too low for maxconn={maxconn}/maxsock={need}. "
        f"Please raise 'ulimit-n' to {need} or more to avoid any trouble.",
        refuse=strict,
    )

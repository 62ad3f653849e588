"""The limit of descriptors of this process: raised to what the file needs, refused when that cannot be had.

As in HAProxy a proxy does not start that could not carry its own maxconn: it would answer everybody with 503 on the day
when it matters. `no strict-limits` turns the refusal into a warning. See core/fdlimit.py for the sums.
"""

from __future__ import annotations

import contextlib
import logging
import resource
from dataclasses import replace

from haptk.core import fdlimit
from haptk.errors import LimitTooLow
from haptk.proxy.tables import Backend, Frontend, ProxyTables

log = logging.getLogger("haptk.proxy")


def fixed(tables: ProxyTables) -> int:
    """Descriptors that these tables need without a single client."""
    process = tables.process
    listeners = sum(len(frontend.binds) for frontend in tables.frontends) + len(process.stats_sockets)
    servers = [server for backend in tables.backends for server in backend.servers]
    checks = sum((one.check is not None) + (one.agent is not None) for one in servers)
    others = process.stats_maxconn if process.stats_sockets else 0
    others += sum(len(section.members) for section in tables.peers)
    return fdlimit.fixed(max(1, process.nbthread), listeners, checks, others)


def maxsock(tables: ProxyTables) -> int:
    """All descriptors that these tables may need."""
    return fixed(tables) + 2 * tables.process.maxconn


def fullconns(frontends: tuple[Frontend, ...], backends: tuple[Backend, ...], common: int) -> tuple[Backend, ...]:
    """Without `fullconn`: a tenth of the connections of all frontends that lead to a backend, as in HAProxy."""
    totals = [0] * len(backends)
    for frontend in frontends:
        targets = {frontend.default_backend, *(rule.target for rule in frontend.rules if rule.kind == "use_backend")}
        for target in targets - {-1}:
            totals[target] += frontend.maxconn or common
    return tuple(
        one
        if one.fullconn and not one.fullconn_automatic
        else replace(one, fullconn=-(-total // 10), fullconn_automatic=True)
        for one, total in zip(backends, totals, strict=True)
    )


def settle(tables: ProxyTables) -> ProxyTables:
    """`tables` with a maxconn: the one that the limit of descriptors allows where the file names none."""
    process = tables.process
    if process.maxconn:
        return tables
    most = max(resource.getrlimit(resource.RLIMIT_NOFILE))
    maxconn = fdlimit.ideal_maxconn(most, fixed(tables), process.fd_hard_limit)
    backends = fullconns(tables.frontends, tables.backends, maxconn)
    return replace(tables, process=replace(process, maxconn=maxconn), backends=backends)


def fit(tables: ProxyTables) -> ProxyTables:
    """`settle`, and the process's limit raised to what that needs; raises LimitTooLow."""
    tables = settle(tables)
    process = tables.process
    need = maxsock(tables)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = fdlimit.wanted(soft, need, process.ulimit_n)
    if target and not _raise(target, max(hard, target)):
        _say(fdlimit.cannot_raise(target, soft, strict=process.strict_limits))
        _raise(hard, hard)
    _say(
        fdlimit.verdict(
            resource.getrlimit(resource.RLIMIT_NOFILE)[0], process.maxconn, need, strict=process.strict_limits
        )
    )
    return tables


def _raise(soft: int, hard: int) -> bool:
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return True
    return False


def _say(limit: fdlimit.Limit) -> None:
    if limit.refuse:
        raise LimitTooLow(why=limit.says)
    if limit.says:
        log.warning("%s", limit.says)

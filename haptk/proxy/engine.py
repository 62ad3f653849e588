"""One running configuration: its C image, its workers and their threads, and the health checks that steer them.

An engine never changes its tables. A reload starts a second one on the same listening sockets and lets the first one
finish its connections.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

from haptk.io import clock
from haptk.proxy.health import HealthRunner
from haptk.proxy.listeners import Listeners
from haptk.proxy.tables import ProxyTables

log = logging.getLogger("haptk.proxy")


def data_plane() -> tuple[type[Any], type[Any]]:
    """The classes (Image, DataWorker) to run on: the compiled ones, or the reference under HAPTK_NO_FAST=1.

    Without the extensions the reference serves too, with a warning: slow is better than down.
    """
    if os.environ.get("HAPTK_NO_FAST") != "1":
        try:
            from haptk._fast.conf import Image
            from haptk._fast.worker import DataWorker
        except ImportError as error:
            log.warning("the compiled data path is missing (%s); the slow reference serves instead", error)
        else:
            return Image, DataWorker
    from haptk.proxy import reference

    return reference.Image, reference.DataWorker


class Engine:
    """`start` once; then `stop(now)` once; `wait` until the last connection is gone."""

    def __init__(self, tables: ProxyTables, listeners: Listeners, inherit: Engine | None = None) -> None:
        image_type, worker_type = data_plane()
        self.tables = tables
        self.image = image_type(tables)
        count = max(1, tables.process.nbthread)
        seed = clock.monotonic_usec() & 0xFFFFFFFF
        self.workers = [
            worker_type(self.image, listeners.for_worker(tables.frontends, index), index, (seed + index) or 1)
            for index in range(count)
        ]
        self.health: HealthRunner = HealthRunner(tables, self.image.set_state, inherit.health if inherit else None)
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Check states first, so that the first request sees them; then the workers."""
        self.health.start()
        for index, worker in enumerate(self.workers):
            thread = threading.Thread(target=worker.run, name=f"worker-{index}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self, *, now: bool = False) -> None:
        """Stop listening; `now` also cuts the open connections. May be called a second time to cut."""
        for worker in self.workers:
            worker.stop(now)
        self.health.stop()
        deadline = clock.monotonic() + 2.0
        while any(worker.listening for worker in self.workers) and clock.monotonic() < deadline:
            clock.sleep(0.001)

    def wait(self, timeout_s: float) -> bool:
        """True when all workers have ended within `timeout_s`."""
        deadline = clock.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(deadline - clock.monotonic(), 0.0))
        return not any(thread.is_alive() for thread in self._threads)

    def counters(self) -> dict[str, Any]:
        """Sums over the workers, and one dict per server."""
        total: dict[str, Any] = {}
        for worker in self.workers:
            for name, value in worker.counters().items():
                if isinstance(value, list):
                    total[name] = [a + b for a, b in zip(total.get(name, [0] * len(value)), value, strict=True)]
                else:
                    total[name] = total.get(name, 0) + value
        total["servers"] = [self.image.server(gid) for gid in range(len(self.image.server_names))]
        return total

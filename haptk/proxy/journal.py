"""The thread that sends the compiled workers' log lines (haptk/_fast/logwriter.pyx), and the rings that keep some."""

from __future__ import annotations

import threading
from typing import Any

from haptk.proxy.tables import ProxyTables

JOIN_S = 5.0


class Journal:
    """Sends what `workers` of `image` log. A worker never waits for it; what it cannot send is counted."""

    def __init__(self, tables: ProxyTables, image: Any, workers: list[Any]) -> None:
        from haptk._fast.logwriter import EventRing, LogWriter

        self.rings = {
            ring.name: EventRing(ring.name, ring.size, ring.maxlen, ring.format, ring.description)
            for ring in tables.rings
        }
        self.writer = LogWriter(image, workers, self.rings)
        self.logs = any(frontend.log.targets for frontend in tables.frontends)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, when some frontend logs at all."""
        if self.logs:
            self._thread = threading.Thread(target=self.writer.run, name="journal", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Send what is left; call after the workers have ended. A place that hangs is left behind after some seconds."""
        if self._thread is not None:
            self.writer.stop()
            self._thread.join(timeout=JOIN_S)
            self._thread = None

    @property
    def dropped(self) -> int:
        """Lines that no target took, so far."""
        return int(self.writer.counts()[1])

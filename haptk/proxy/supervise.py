"""Services of the control plane do not end because of one item: what goes wrong is said once, and the service goes on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from haptk.io import clock

PAUSES_S = (0.05, 5.0)  # after a failure, doubled each time that follows at once
CALM_S = 30.0  # without a failure; then the pauses begin anew
log = logging.getLogger("haptk.proxy")


class Patience:
    """How long a service rests after a failure, so that one that comes again and again costs little."""

    def __init__(self) -> None:
        self.pause_s = PAUSES_S[0]
        self.failed_at = float("-inf")

    def after_failure(self, now: float) -> float:
        """Seconds to rest now."""
        if now - self.failed_at > CALM_S:
            self.pause_s = PAUSES_S[0]
        found, self.pause_s, self.failed_at = self.pause_s, min(self.pause_s * 2, PAUSES_S[1]), now
        return found


def keep(
    what: str, turn: Callable[[], object], stopping: threading.Event, mend: Callable[[], object] | None = None
) -> None:
    """Call `turn` until `stopping`. An exception is logged, `mend` is called, and it goes on after a pause."""
    patience = Patience()
    while not stopping.is_set():
        try:
            turn()
        except Exception as error:
            pause_s = patience.after_failure(clock.monotonic())
            log.exception("%s failed (%s) and goes on in %.2f s", what, type(error).__name__, pause_s)
            stopping.wait(pause_s)
            if mend is not None and not stopping.is_set():
                mend()

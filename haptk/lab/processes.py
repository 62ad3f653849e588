"""The lab's processes: started with a mark, killed by pid, and found again by their mark when nobody remembers them.

Every process is a child of the supervisor and dies with it (PR_SET_PDEATHSIG); grandchildren carry the mark in their
environment. `sweep` is what makes `lab down` complete: it looks at /proc, so it needs no list that could be stale.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from haptk.io import clock
from haptk.io.process import die_with_parent
from haptk.lab.layout import MARK


@dataclass
class Child:
    """One process of the lab. `instance` is the machine it runs on, "" for the cloud and the network themselves."""

    name: str
    instance: str
    argv: list[str]
    env: Mapping[str, str]
    log: Path
    process: asyncio.subprocess.Process | None = None
    ended_at_s: float | None = None
    ended_how: str = ""
    _watch: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.returncode is None

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None and self.running else None

    async def start(self, on_end: Callable[[Child], None]) -> None:
        """Start the process; its output goes to its log. `on_end` is called once when it ends for any reason."""
        self.ended_at_s, self.ended_how = None, ""
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(self.env),
                preexec_fn=partial(die_with_parent, signal.SIGKILL),
                start_new_session=True,
            )
        self._watch = asyncio.create_task(self._wait(on_end))

    async def _wait(self, on_end: Callable[[Child], None]) -> None:
        if self.process is None:
            return
        code = await self.process.wait()
        self.ended_at_s = clock.monotonic()
        self.ended_how = signal.Signals(-code).name if code < 0 else f"exit {code}"
        on_end(self)

    async def kill(self, number: int = signal.SIGKILL) -> float:
        """Send a signal, wait until the process is gone; returns the CLOCK_MONOTONIC second of the signal."""
        at = clock.monotonic()
        if self.process is not None and self.running:
            self.process.send_signal(number)
            await self.process.wait()
        return at

    async def stop(self, patience_s: float) -> None:
        """SIGTERM, and SIGKILL after `patience_s`."""
        if self.process is None or not self.running:
            return
        self.process.terminate()
        try:
            await asyncio.wait_for(self.process.wait(), patience_s)
        except TimeoutError:
            await self.kill()

    def last_words(self) -> str:
        """The last line of the log, for an error message."""
        try:
            lines = self.log.read_text(errors="replace").strip().splitlines()
        except OSError:
            return "no log"
        return lines[-1] if lines else "it logged nothing"


def marked_pids(root: Path) -> list[int]:
    """The pids of this user's processes that carry the mark of the lab at `root`, without our own."""
    needle = f"{MARK}={root}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue  # gone, or somebody else's
        if needle in environment.split(b"\0"):
            found.append(int(entry.name))
    return found


def sweep(root: Path, patience_s: float = 5.0) -> int:
    """SIGKILL every marked process until none is left; returns how many were found."""
    killed: set[int] = set()
    deadline = clock.monotonic() + patience_s
    while pids := marked_pids(root):
        for pid in pids:
            killed.add(pid)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it ended between the look and the kill
        if clock.monotonic() > deadline:
            break
        clock.sleep(0.02)
    return len(killed)

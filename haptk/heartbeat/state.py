"""What a node must remember over a restart: its uuid, its generation, and the peers' generations.

The files are those of the original (hb_uuid: 16 raw bytes; hb_generation: a decimal number in 15 columns), so a node
that changes from heartbeat to haptk keeps its identity. The generation is raised and synced before the first packet,
because a peer takes a start with an old one for a replay. While the daemon runs, a thread writes: a disk that takes
seconds for a sync must not stop the heart.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
from collections.abc import Callable
from pathlib import Path

from haptk.core.heartbeat.model import Remember
from haptk.errors import ConfigError, HaptkError
from haptk.io import clock
from haptk.io.files import Lock, private_dir, write_atomic

RETRY_S = 2.0
"""When a disk refuses a write, it is tried again after this."""

CLOSE_S = 5.0


class StateDir:
    """The directory of one node's state; one daemon at a time may hold it."""

    def __init__(self, path: Path, *, inherit: Path | None = None) -> None:
        """`inherit` is the original's directory: at the first start its uuid and generation are taken over, so that
        the peer sees the same node come back and not a stranger with an older generation."""
        self.path = private_dir(path)
        self._inherit = inherit
        self._lock = Lock(path / "lock", "haptk heartbeat", f"it uses {path}; stop it with: haptk heartbeat stop")

    def acquire(self) -> None:
        """Take the directory; AlreadyRunning when another daemon has it."""
        self._lock.acquire()

    def release(self) -> None:
        self._lock.release()

    def _inherited(self, name: str) -> Path:
        """Our own file `name`, copied from the original's at the first start."""
        file = self.path / name
        if self._inherit is not None and not file.exists():
            with contextlib.suppress(OSError):
                write_atomic(file, (self._inherit / name).read_bytes(), 0o600)
        return file

    def uuid(self) -> bytes:
        """This node's 16 bytes, made at the first start."""
        file = self._inherited("hb_uuid")
        with contextlib.suppress(FileNotFoundError):
            found = file.read_bytes()
            if len(found) == 16:
                return found
            raise ConfigError(file=file, line=1, why="it is not 16 bytes long; remove it to get a new identity")
        made = secrets.token_bytes(16)
        write_atomic(file, made, 0o600)
        return made

    def next_generation(self) -> int:
        """Raise the generation by one, on disk before it is returned; the first one is the Unix time."""
        file = self._inherited("hb_generation")
        try:
            text = file.read_text().strip()
        except FileNotFoundError:
            number = int(clock.wall())
        else:
            if not text.isdigit():
                raise ConfigError(file=file, line=1, why="it holds no number; write the Unix time into it")
            number = int(text) + 1
        write_atomic(file, f"{number:>15d}\n".encode(), 0o600)
        return number

    def peers(self) -> Remember:
        """The last known generations and uuids of other nodes."""
        file = self.path / "peers.json"
        try:
            found = json.loads(file.read_text())
            generations = {str(name): int(peer["generation"]) for name, peer in found.items()}
            known = {str(name): bytes.fromhex(peer["uuid"]) for name, peer in found.items()}
        except FileNotFoundError:
            return Remember({}, {})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(file=file, line=1, why="it is damaged; remove it to learn the peers anew") from error
        return Remember(generations, known)

    def remember(self, known: Remember) -> None:
        """Write the peers' generations, whole and synced."""
        body = {
            name: {"generation": number, "uuid": known.uuids.get(name, b"").hex()}
            for name, number in sorted(known.generations.items())
        }
        write_atomic(self.path / "peers.json", json.dumps(body, indent=1).encode() + b"\n", 0o600)


class PeerMemory:
    """Writes what is to be remembered of the peers, the newest state only, in a thread that lives while it has work."""

    def __init__(self, state: StateDir, warn: Callable[[str], None]) -> None:
        self._state = state
        self._warn = warn
        self._changed = threading.Condition()
        self._wanted: Remember | None = None
        self._thread: threading.Thread | None = None
        self._closing = False

    def remember(self, known: Remember) -> None:
        """Have `known` on disk soon; never waits, never fails."""
        with self._changed:
            self._wanted = known
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="peer memory", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Wait for the last write, but not for a disk that hangs."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(CLOSE_S)

    def _work(self) -> None:
        failed = ""
        while (known := self._next(failed)) is not None:
            try:
                self._state.remember(known)
            except HaptkError as error:
                if not failed:
                    self._warn(
                        f"{error}: after a restart an older recording of the peer would be believed; trying again"
                    )
                failed = str(error)
                with self._changed:
                    self._wanted = self._wanted or known
            else:
                if failed:
                    self._warn(f"{self._state.path} can be written again")
                failed = ""

    def _next(self, failed: str) -> Remember | None:
        """The newest state to write; None ends the thread."""
        with self._changed:
            if failed and not self._closing:
                self._changed.wait(RETRY_S)
            if self._wanted is None or (failed and self._closing):
                self._thread = None
                return None
            known, self._wanted = self._wanted, None
            return known

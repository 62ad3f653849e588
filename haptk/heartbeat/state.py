"""What a node must remember over a restart: its uuid, its generation, and the peers' generations.

The files are those of the original (hb_uuid: 16 raw bytes; hb_generation: a decimal number in 15 columns), so a node
that changes from heartbeat to haptk keeps its identity. The generation is raised and synced before the first packet,
because a peer takes a start with an old one for a replay.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from pathlib import Path

from haptk.core.heartbeat.model import Remember
from haptk.errors import ConfigError
from haptk.io import clock
from haptk.io.files import Lock, private_dir, write_atomic


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

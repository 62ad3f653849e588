"""authkeys(5) of heartbeat: `auth N` and one `N METHOD [KEY]` line per key.

The key is the third word of its line and ends at the first blank, exactly as the original takes it; haptk refuses
a line with more words instead of cutting the key silently, because then the two nodes may differ without a trace.
"""

from __future__ import annotations

from dataclasses import dataclass

from haptk.core.heartbeat.auth import METHODS, Key
from haptk.errors import ConfigError

NUMBERS = range(1, 16)


@dataclass(frozen=True)
class AuthKeys:
    """The keys of a file and the number of the one that signs (the first `auth` number)."""

    keys: tuple[Key, ...]
    active: int

    @property
    def uses_crc(self) -> bool:
        return any(key.method == "crc" for key in self.keys)


def parse(text: str, file: str) -> AuthKeys:
    """The keys in `text`; raises ConfigError with file and line, never with a key in it."""
    keys: dict[int, Key] = {}
    active: tuple[int, int] | None = None
    for line, raw in enumerate(text.splitlines(), 1):
        words = raw.split("#", 1)[0].split() if raw.lstrip().startswith("#") else raw.split()
        if not words:
            continue
        if words[0] == "auth":
            active = (_number(words[1] if len(words) > 1 else "", file, line), line)
        else:
            key = _key(words, file, line)
            if key.number in keys:
                raise ConfigError(file=file, line=line, why=f"key {key.number} was given before")
            keys[key.number] = key
    if active is None:
        raise ConfigError(file=file, line=1, why="no 'auth NUMBER' line says which key signs")
    if active[0] not in keys:
        raise ConfigError(file=file, line=active[1], why=f"there is no line for key {active[0]}")
    return AuthKeys(tuple(keys.values()), active[0])


def _number(word: str, file: str, line: int) -> int:
    if not word.isdigit() or int(word) not in NUMBERS:
        raise ConfigError(file=file, line=line, why=f"{word!r} is not a key number: 1 to 15 are accepted")
    return int(word)


def _key(words: list[str], file: str, line: int) -> Key:
    number = _number(words[0], file, line)
    method = words[1] if len(words) > 1 else ""
    if method not in METHODS:
        raise ConfigError(file=file, line=line, why=f"{method!r} is not a method: {', '.join(METHODS)} are accepted")
    if method == "crc":
        return Key(number, method)
    if len(words) < 3:
        raise ConfigError(file=file, line=line, why=f"method {method} needs a key as the third word")
    if len(words) > 3:
        why = "the key has blanks; heartbeat would silently use only the part before the first one: write one word"
        raise ConfigError(file=file, line=line, why=why)
    return Key(number, method, words[2].encode())


def render(secret: str) -> str:
    """A new file with one sha1 key."""
    return f"auth 1\n1 sha1 {secret}\n"

"""One conversation on a stats socket: lines in, answers out. Pure; nothing here waits or knows a socket.

HAProxy's rules (management.txt, 9.3): a line holds commands separated by `;`, every answer ends with an empty line.
Without `prompt` the connection ends when everything that was received is answered; with it `> ` asks for more. A
backslash takes the meaning from a space, a `;` or a backslash.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from haptk.proxy.runtime.commands import Caller, run
from haptk.proxy.runtime.world import World

MAX_LINE_BYTES = 16384  # HAProxy's tune.bufsize


class Dialog:
    """Feed it with `receive`, then call `step` until it returns None. `over` says that the connection is to be closed."""

    def __init__(self, look: Callable[[], World], level: str, timeout_s: float = 10.0) -> None:
        self.look = look
        self.caller = Caller(level, timeout_s=timeout_s)
        self._rest = b""
        self._todo: deque[str] = deque()
        self._ended = False
        self._spoken = False

    def receive(self, data: bytes) -> None:
        """Bytes from the client; b"" for its end of stream. A line without an end is no command."""
        if not data:
            self._ended = True
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._todo.extend(commands_of(line.removesuffix(b"\r").decode("utf-8", "replace")))
        if len(self._rest) > MAX_LINE_BYTES:
            self._ended = True

    def step(self) -> bytes | None:
        """The answer to the next command; None when there is none waiting."""
        if self.caller.over or not self._todo:
            return None
        answer = run(self.look(), self.caller, words_of(self._todo.popleft()))
        self._spoken = True
        if self._left():
            return b""
        return f"{answer}\n{'> ' if self.caller.prompt else ''}".encode()

    def _left(self) -> bool:
        return self.caller.over

    @property
    def over(self) -> bool:
        """True when nothing more will be said."""
        if self.caller.over:
            return True
        if self._todo:
            return False
        return self._ended or (self._spoken and not self.caller.prompt and not self._rest)


def commands_of(line: str) -> list[str]:
    """The commands of one line: split at each `;` that has no backslash before it."""
    found, begin, index = [], 0, 0
    while index < len(line):
        if line[index] == "\\":
            index += 1
        elif line[index] == ";":
            found.append(line[begin:index])
            begin = index + 1
        index += 1
    return [*found, line[begin:]]


def words_of(command: str) -> list[str]:
    """The words of one command; a backslash keeps the character behind it."""
    found: list[str] = []
    word, inside, index = "", False, 0
    while index < len(command):
        char = command[index]
        if char == "\\" and index + 1 < len(command):
            index += 1
            word += command[index]
            inside = True
        elif char in " \t":
            if inside:
                found.append(word)
            word, inside = "", False
        else:
            word += char
            inside = True
        index += 1
    return [*found, word] if inside else found

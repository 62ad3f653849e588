"""One conversation on a stats socket: lines in, answers out. Pure; nothing here waits or knows a socket.

HAProxy's rules (management.txt, 9.3): a line holds commands separated by `;`, every answer ends with an empty line.
Without `prompt` the connection ends when everything that was received is answered; with it `> ` asks for more. A
backslash takes the meaning from a space, a `;` or a backslash. A line that ends with `<<` is carried out at the next
empty line; what stands between the two belongs to its last command. No command here takes such a payload, and as in
HAProxy those that do not simply leave it; with `prompt`, `+ ` asks for its lines.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from haptk.proxy.runtime.commands import Caller, run
from haptk.proxy.runtime.world import World

MAX_LINE_BYTES = 16384  # HAProxy's tune.bufsize
PAYLOAD = "<<"
MORE = "\0more"  # in the list of what is to be done: ask for the next line of a payload


class Dialog:
    """Feed it with `receive`, then call `step` until it returns None. `over` says that the connection is to be closed."""

    def __init__(self, look: Callable[[], World], level: str, timeout_s: float = 10.0, severity: str = "none") -> None:
        self.look = look
        self.caller = Caller(level, timeout_s=timeout_s, severity=severity)
        self._rest = b""
        self._todo: deque[str] = deque()
        self._ended = False
        self._spoken = False
        self._waiting: str | None = None  # a line whose payload has not ended
        self._payload = 0  # bytes of it

    def receive(self, data: bytes) -> None:
        """Bytes from the client; b"" for its end of stream. A line without an end is no command."""
        if self.caller.follow is not None:
            self.caller.follow = None  # whatever it says, and when it goes: it has seen enough
            self._ended = self._ended or not data or not self.caller.prompt
            return
        if not data:
            self._ended = True
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line.removesuffix(b"\r").decode("utf-8", "replace"))
        if len(self._rest) > MAX_LINE_BYTES or self._payload > MAX_LINE_BYTES:
            self._ended = True

    def _line(self, line: str) -> None:
        if self._waiting is None:
            if not line.rstrip(" \t").endswith(PAYLOAD):
                self._todo.extend(commands_of(line))
                return
            self._waiting, self._payload = line.rstrip(" \t").removesuffix(PAYLOAD), 0
        elif line:
            self._payload += len(line) + 1
        else:
            self._todo.extend(commands_of(self._waiting))
            self._waiting = None
            return
        self._todo.append(MORE)

    def step(self) -> bytes | None:
        """The answer to the next command, or what came since for who waits for events; None when there is nothing."""
        following = self.caller.follow
        if following is not None:
            return following.more() or None
        if self.caller.rest is not None:
            return self._more_of(self.caller.rest)
        if self.caller.over or not self._todo:
            return None
        command = self._todo.popleft()
        if command is MORE:
            return b"+ " if self.caller.prompt else b""
        answer = run(self.look(), self.caller, words_of(command))
        self._spoken = True
        if self._left():
            return b""
        if self.caller.follow is not None:
            return answer.encode("latin-1")
        if self._long():
            return answer.encode("utf-8", "surrogateescape")
        return f"{answer}\n{'> ' if self.caller.prompt else ''}".encode("utf-8", "surrogateescape")

    def _more_of(self, rest: Iterator[str]) -> bytes:
        """The next piece of a long answer, or its end."""
        piece = next(rest, None)
        if piece is not None:
            return piece.encode("utf-8", "surrogateescape")
        self.caller.rest = None
        return f"\n{'> ' if self.caller.prompt else ''}".encode()

    def _long(self) -> bool:
        return self.caller.rest is not None

    def _left(self) -> bool:
        return self.caller.over

    @property
    def over(self) -> bool:
        """True when nothing more will be said."""
        if self.caller.over:
            return True
        if self.caller.follow is not None or self.caller.rest is not None:
            return False
        if self._todo:
            return False
        open_yet = self._waiting is not None or bool(self._rest)
        return self._ended or (self._spoken and not self.caller.prompt and not open_yet)


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

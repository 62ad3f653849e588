"""What is kept of one exchange for its log line and for later rules: captured headers, samples and a cookie. Pure.

A header's value is captured as the peer sent it, before any rule; of several headers with one name the last counts. The
cookie is captured behind the rules, where its header is read for persistence: the first one whose `NAME=VALUE` begins
with the configured text. Everything ends at its configured length, and at a NUL.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from haptk.core.cookie import pieces

Slot = tuple[str, int]  # name of a header in lower case ("" when only rules fill it), bytes kept


@dataclass
class Captures:
    """The slots of one frontend and what was kept for one exchange; None where nothing was."""

    request_slots: Sequence[Slot] = ()
    response_slots: Sequence[Slot] = ()
    cookie: Slot | None = None
    request: list[str | None] = field(default_factory=list)
    response: list[str | None] = field(default_factory=list)
    client_cookie: str | None = None
    server_cookie: str | None = None

    def __post_init__(self) -> None:
        self.request = self.request or [None] * len(self.request_slots)
        self.response = self.response or [None] * len(self.response_slots)

    def headers(self, headers: Iterable[tuple[str, str]], *, response: bool) -> None:
        """Keep the headers of a head that was just received. Names are lower-case."""
        slots = self.response_slots if response else self.request_slots
        for name, value in headers:
            for index, (wanted, _) in enumerate(slots):
                if wanted and name == wanted and (name != "connection" or (value := _rest(value))):
                    self.put(index, value, response=response)

    def put(self, index: int, text: str, *, response: bool) -> None:
        """Keep a text in a slot; nothing happens for a slot that this frontend does not have."""
        slots, kept = (self.response_slots, self.response) if response else (self.request_slots, self.request)
        if 0 <= index < len(slots):
            kept[index] = text.partition("\0")[0][: slots[index][1]]

    def get(self, index: int, *, response: bool) -> str | None:
        """What a slot holds."""
        kept = self.response if response else self.request
        return kept[index] if 0 <= index < len(kept) else None

    def cookies(self, values: Iterable[str], *, response: bool) -> None:
        """Look through the Cookie headers, or the first pairs of the Set-Cookie headers."""
        if self.cookie is None:
            return
        begin, length = self.cookie
        found = (piece for value in values for piece in (pieces(value)[:1] if response else pieces(value)))
        texts = (f"{piece.name}={piece.value}" for piece in found if piece.pair)
        pair = next((text for text in texts if text.startswith(begin)), None)
        if pair is None:
            return
        if response:
            self.server_cookie = pair[:length]
        else:
            self.client_cookie = pair[:length]


def _rest(value: str) -> str:
    """A Connection line without `close` and `keep-alive`; behind the first of them the words stand closely, as in HAProxy."""
    words = value.split(",")
    ours = [word.strip(" \t").lower() in ("close", "keep-alive") for word in words]
    first = ours.index(True) if True in ours else len(words)
    out = ",".join(words[:first]).rstrip(" \t")
    for word, mine in zip(words[first:], ours[first:], strict=True):
        if not mine:
            out += "," * bool(out) + word.strip(" \t")
    return out

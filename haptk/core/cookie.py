"""What a persistence cookie means: the readable truth table of every mode and option, agreeing with HAProxy 2.6. Pure.

Reading a request (all modes). The Cookie headers are cut at `;` and `,` outside quotes. Each piece NAME=value with the
configured name is looked at in turn, over all headers; the first that names a usable server decides. Blanks around
`=` disappear, whoever the cookie belongs to. What the server then sees of our cookie:

    mode        id is what stands      server sees             the response gets
    passive     in the whole value     unchanged               nothing
    rewrite     in the whole value     unchanged               its own NAME cookie with the id as value
    insert      before the first `|`   unchanged, or nothing   `Set-Cookie: NAME=id; path=/...` unless the client
                                       with `indirect`         came with the right one; its own NAME cookie is removed
    prefix      before the first `~`   what follows the `~`    its own NAME cookie with `id~` before the value

Flags are HAProxy's: request N none, I invalid, D down, V valid, E idle too long, O too old, U not used; response
N none, I inserted, U updated, R rewritten, P passed, D deleted. A proxy without a mode logs none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

Headers = list[tuple[str, str]]
BLANKS = " \t"
_DAY_S = 86400
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


@dataclass(frozen=True, slots=True)
class CookieRule:
    """`cookie NAME ...` of HAProxy 2.6 with every option; `mode` "passive" is the line without a mode word.

    `maxidle_s` and `maxlife_s` are whole seconds, 0 when absent. `attrs` are copied verbatim, in order.
    `dynamic_key` is the proxy's dynamic-cookie-key (used when `dynamic`); server values are computed by the compiler.
    """

    name: str
    mode: str = "passive"
    indirect: bool = False
    nocache: bool = False
    postonly: bool = False
    preserve: bool = False
    httponly: bool = False
    secure: bool = False
    dynamic: bool = False
    dynamic_key: str = ""
    domains: tuple[str, ...] = ()
    attrs: tuple[str, ...] = ()
    maxidle_s: int = 0
    maxlife_s: int = 0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A server as cookies see it: its value, and whether checks (or an administrator) took it out of service."""

    cookie: str | None
    up: bool = True


@dataclass(frozen=True, slots=True)
class Asked:
    """What the request's cookies said. `server` is an index or None; `headers` are the Cookie headers to send on.

    A header of which nothing is left is None.
    """

    server: int | None
    headers: tuple[str | None, ...]
    flag: str
    last_s: int = 0
    first_s: int = 0


@dataclass(frozen=True, slots=True)
class Answered:
    """The response's headers after the rule, and the flag for the log."""

    headers: tuple[tuple[str, str], ...]
    flag: str


# -- pieces of a Cookie header ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of a Cookie header: the delimiter before it ("" for the first), its text, and its parts when it has a `=`."""

    delimiter: str
    text: str
    name: str = ""
    value: str = ""
    pair: bool = False

    @property
    def attribute(self) -> bool:
        """A `$Path`-like attribute, which belongs to the cookie before it."""
        return self.text.lstrip(BLANKS).startswith("$")


def _value_end(text: str, at: int) -> int:
    """Where the value that begins at `at` ends: at a `;` or `,` outside quotes, or at the end of the header."""
    quoted = False
    while at < len(text):
        char = text[at]
        if quoted:
            if char == "\\":
                at += 1
            elif char == '"':
                quoted = False
        elif char == '"':
            quoted = True
        elif char in ";,":
            return at
        at += 1
    return min(at, len(text))


def pieces(header: str) -> list[Piece]:
    """The pieces of one Cookie header, pairs without the blanks around their `=`."""
    found_pieces: list[Piece] = []
    at = 0
    delimiter = ""
    while at < len(header) or delimiter:
        begin = at
        found = re.compile(r"[ \t]*([^=,;]*)").match(header, at)
        assert found is not None  # noqa: S101 (the pattern matches the empty string)
        lead = header[begin : found.start(1)]
        name = found[1].rstrip(BLANKS)
        equal = found.end()
        if header[equal : equal + 1] == "=":
            end = _value_end(header, _skip_blanks(header, equal + 1))
            if name.startswith("$"):
                found_pieces.append(Piece(delimiter, header[begin:end]))
            else:
                raw = header[_skip_blanks(header, equal + 1) : end]
                value = raw.rstrip(BLANKS)
                found_pieces.append(Piece(delimiter, f"{lead}{name}={raw}", name, value, True))
        else:
            end = equal
            found_pieces.append(Piece(delimiter, header[begin:end]))
        delimiter = header[end : end + 1]
        at = end + 1
        if not delimiter:
            break
    return found_pieces


def _skip_blanks(text: str, at: int) -> int:
    while at < len(text) and text[at] in BLANKS:
        at += 1
    return at


def _without(pieces: Sequence[Piece], ours: Sequence[bool]) -> str:
    """The header after our cookies (and the attributes behind them) were removed; "" when nothing of value is left."""
    out = ""
    removing = False
    kept = False
    for piece, mine in zip(pieces, ours, strict=True):
        if piece.attribute:
            if not removing:
                out += piece.delimiter + piece.text
            continue
        if mine:
            removing = True
            continue
        kept = True
        if removing and not out:
            out = piece.text.lstrip(BLANKS)
        elif removing:
            out = f"{out.rstrip(BLANKS)}{piece.delimiter} {piece.text.lstrip(BLANKS)}"
        else:
            out += piece.delimiter + piece.text
        removing = False
    return out if kept else ""


# -- the request --------------------------------------------------------------------------------------------------


class _Search:
    """Goes through the cookies of one request and remembers what it found."""

    def __init__(self, rule: CookieRule, servers: Sequence[Candidate], now_s: int, persist: bool, ignore: bool) -> None:
        self.rule = rule
        self.servers = servers
        self.now_s = now_s
        self.persist = persist
        self.ignore = ignore
        self.server: int | None = None
        self.flag = "N"
        self.last_s = 0
        self.first_s = 0

    def look(self, value: str) -> None:
        """Take one value of our cookie into account."""
        if self.rule.mode == "prefix":
            self._find(value.partition("~")[0])
            return
        name, _, dates = value.partition("|")
        if "|" in value:
            self._read_dates(dates)
        if self._too_old():
            name = ""
        self._find(name)

    def _find(self, name: str) -> None:
        if name and not self.ignore and self.server is None:
            for index, server in enumerate(self.servers):
                if server.cookie != name:
                    continue
                if server.up or self.persist:
                    self.server, self.flag = index, "V" if server.up else "D"
                    return
                self.flag = "D"
        if self.flag == "N":
            self.flag = "U" if self.ignore else "I"

    def _read_dates(self, text: str) -> None:
        _, _, first = text.partition("|")
        if (when := decode_date(text)) > 0:
            self.last_s = _signed32(when << 2)
        if "|" in text and (when := decode_date(first)) > 0:
            self.first_s = _signed32(when << 2)

    def _too_old(self) -> bool:
        """Forget dates that are over the limits (or more than a day ahead of us) and say so."""
        rule = self.rule
        for date_s, limit_s, flag in ((self.first_s, rule.maxlife_s, "O"), (self.last_s, rule.maxidle_s, "E")):
            age_s = self.now_s - date_s
            if date_s and limit_s and (age_s > limit_s or -age_s > _DAY_S):
                self.flag = flag
                self.first_s = self.last_s = 0
                return True
        return False


def _signed32(value: int) -> int:
    return (value & 0xFFFFFFFF) - (1 << 32) if value & 0x80000000 else value & 0xFFFFFFFF


def decode_date(text: str) -> int:
    """The 30-bit number in the first five characters; -1 when they are fewer or others than A-Z a-z 0-9 + /."""
    value = 0
    for char in text[:5]:
        digit = _ALPHABET.find(char)
        if digit < 0:
            return -1
        value = value << 6 | digit
    return value if len(text) >= 5 else -1


def encode_date(value: int) -> str:
    """30 bits as five characters, most significant first."""
    return "".join(_ALPHABET[value >> shift & 63] for shift in (24, 18, 12, 6, 0))


def read_request(
    rule: CookieRule,
    headers: Sequence[str],
    servers: Sequence[Candidate],
    now_s: int,
    *,
    persist: bool = False,
    ignore: bool = False,
) -> Asked:
    """What the Cookie headers of a request mean.

    `headers` are the values of the Cookie headers in order, `servers` those of the backend. `persist`: `option
    persist` or a force-persist rule holds; `ignore`: an ignore-persist rule holds. `now_s` is Unix time.
    """
    search = _Search(rule, servers, now_s, persist, ignore)
    removes = rule.mode == "insert" and rule.indirect
    out: list[str | None] = []
    for header in headers:
        parts = pieces(header)
        ours = [piece.pair and piece.name == rule.name for piece in parts]
        seen: list[Piece] = []
        for piece, mine in zip(parts, ours, strict=True):
            if mine:
                search.look(piece.value)
                if rule.mode == "prefix" and "~" in piece.value:
                    lead, _, raw = piece.text.partition("=")
                    piece = replace(piece, text=f"{lead}={raw.partition('~')[2]}")
            seen.append(piece)
        text = _without(seen, ours) if removes and any(ours) else "".join(p.delimiter + p.text for p in seen)
        out.append(text if text or not header else None)
    return Asked(
        search.server, tuple(out), search.flag if rule.mode != "passive" else "-", search.last_s, search.first_s
    )


# -- the response -------------------------------------------------------------------------------------------------

_SET_COOKIE = re.compile(r"[ \t]*([^=,;]*?)[ \t]*=[ \t]*")


def write_response(
    rule: CookieRule,
    asked: Asked,
    server: Candidate,
    headers: Sequence[tuple[str, str]],
    *,
    method: str,
    status: int,
    now_s: int,
    direct: bool,
    ignore: bool = False,
) -> Answered:
    """The headers of a server's response after the rule. Header names are lower-case.

    `direct` is true while the answering server is the one that the cookie asked for (not after a redispatch).
    Interim (1xx) responses are not for this function.
    """
    flag = "N"
    out: Headers = []
    for name, value in headers:
        if name not in ("set-cookie", "set-cookie2"):
            out.append((name, value))
            continue
        edited, found = _edit(rule, server, value, direct=direct, ignore=ignore)
        flag = found or flag
        if edited is not None:
            out.append((name, edited))
    cacheable = is_cacheable(method, status, out)
    if _must_insert(rule, asked, method, now_s, found=flag != "N", direct=direct, ignore=ignore):
        out.append(("set-cookie", inserted(rule, server, asked, now_s)))
        flag = "U" if server.cookie and direct else "I"
        if rule.nocache and cacheable:
            out.append(("cache-control", "private"))
    return Answered(tuple(out), flag if rule.mode != "passive" else "-")


def _edit(
    rule: CookieRule, server: Candidate, value: str, *, direct: bool, ignore: bool
) -> tuple[str | None, str | None]:
    """One Set-Cookie header after the rule (None: removed) and the flag when it was ours. Only its first pair counts."""
    found = _SET_COOKIE.match(value)
    if not found:
        return value, None
    lead = value[: found.start(1)]
    rest = value[found.end() :]
    text = f"{lead}{found[1]}={rest}"
    if ignore or found[1] != rule.name:
        return text, None
    if rule.preserve:
        return text, "P"
    if rule.mode == "insert" or (rule.indirect and direct):
        return None, "D"
    if server.cookie and rule.mode == "rewrite":
        end = _value_end(rest, 0)
        stripped = rest[:end].rstrip(BLANKS)
        return f"{lead}{found[1]}={server.cookie}{rest[len(stripped) :]}", "R"
    if server.cookie and rule.mode == "prefix":
        return f"{lead}{found[1]}={server.cookie}~{rest}", "R"
    return text, "P"


def _must_insert(
    rule: CookieRule, asked: Asked, method: str, now_s: int, *, found: bool, direct: bool, ignore: bool
) -> bool:
    """Whether the client is to get our cookie with this response."""
    if rule.mode != "insert" or ignore or (found and rule.preserve) or (rule.postonly and method != "POST"):
        return False
    if not direct:
        return True
    stale = (rule.maxidle_s > 0 or asked.last_s != 0) and (asked.last_s == 0 or asked.last_s < now_s)
    return stale or (rule.maxlife_s > 0) is (asked.first_s == 0)


def inserted(rule: CookieRule, server: Candidate, asked: Asked, now_s: int) -> str:
    """The value of the Set-Cookie header that binds the client to `server`, or unbinds it from servers without a value."""
    if server.cookie:
        tick = now_s + 3 >> 2
        text = f"{rule.name}={server.cookie}"
        if rule.maxidle_s or rule.maxlife_s:
            text += "|" + encode_date(tick)
        if rule.maxlife_s:
            text += "|" + encode_date((asked.first_s & 0xFFFFFFFF) >> 2 if asked.first_s else tick)
        text += "; path=/"
    else:
        text = f"{rule.name}=; Expires=Thu, 01-Jan-1970 00:00:01 GMT; path=/"
    parts = [f"domain={domain}" for domain in rule.domains]
    parts += ["HttpOnly"] * rule.httponly + ["Secure"] * rule.secure + list(rule.attrs)
    return "; ".join([text, *parts])


_CACHEABLE_STATUSES = frozenset({200, 203, 204, 206, 300, 301, 404, 405, 410, 414, 501})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_AGAINST = frozenset({"no-cache", "no-store", "private", "max-age=0", "s-maxage=0"})


def is_cacheable(method: str, status: int, headers: Sequence[tuple[str, str]]) -> bool:
    """Whether a shared cache might keep this response, by HAProxy's rule for `nocache`.

    It has to be cacheable by its method and status or say `public`; the last of `public` and the words against
    caching counts, and `Pragma: no-cache` always does. It needs freshness (max-age, s-maxage, Expires) or a validator
    (ETag, Last-Modified) too.
    """
    if any(name == "pragma" and value.lower() == "no-cache" for name, value in headers):
        return False
    cacheable = method in _SAFE_METHODS and status in _CACHEABLE_STATUSES
    useful = any(name in ("expires", "etag", "last-modified") for name, _ in headers)
    for word in _directives(headers):
        if word == "public":
            cacheable = True
        elif word in _AGAINST:
            cacheable = False
        elif word.startswith(("max-age", "s-maxage")):
            useful = True
    return cacheable and useful


def _directives(headers: Sequence[tuple[str, str]]) -> list[str]:
    """The comma-separated words of all Cache-Control headers in order, lower-case; quotes hide commas."""
    lines = [value for name, value in headers if name == "cache-control"]
    return [word.strip(BLANKS).lower() for line in lines for word in re.findall(r'(?:"(?:\\.|[^"\\])*"?|[^,"])+', line)]

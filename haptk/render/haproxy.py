"""A haproxy.cfg section from a few words: what `haptk generate haproxy` prints. Pure; HAProxy and haptk both accept it.

Every value is checked against what the language allows before it is written, because a blank or a quote in a name
would become another directive.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

TEMPLATE = Path(__file__).parent / "templates" / "haproxy_listen.cfg.j2"
# The options that each mode needs to be right behind caches and for applications that must not see the cookie.
MODE_OPTIONS = {"prefix": "", "insert": "indirect nocache", "rewrite": ""}
_NAME = re.compile(r"[A-Za-z0-9_.:-]+")
_COOKIE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_URI = re.compile(r"[!-~]+")


@dataclass(frozen=True)
class ServerSpec:
    """One server: its name is also its cookie value."""

    name: str
    host: str
    port: int

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class ListenSpec:
    """What the section has to say; times in seconds."""

    servers: tuple[ServerSpec, ...]
    name: str = "webfarm"
    bind: str = "127.0.0.1:8080"
    cookie: str = "JSESSIONID"
    mode: str = "prefix"
    check_uri: str = ""
    check_method: str = "HEAD"
    timeouts_s: tuple[tuple[str, int], ...] = field(
        default=(("connect", 5), ("client", 60), ("server", 60), ("http-request", 10), ("check", 5))
    )


def parse_server(text: str) -> ServerSpec:
    """`NAME=HOST:PORT` as a ServerSpec. Raises ValueError saying what is wrong."""
    name, equals, place = text.partition("=")
    host, colon, port = place.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not equals or not colon or not host or not port.isdecimal():
        raise ValueError(f"{text!r} is not NAME=HOST:PORT")
    if not _NAME.fullmatch(name) or "~" in name:
        raise ValueError(f"the name {name!r} has a character that haproxy.cfg does not allow in names")
    if not re.fullmatch(r"[A-Za-z0-9_.:-]+", host) or not 1 <= int(port) <= 65535:
        raise ValueError(f"{place!r} is no HOST:PORT with a port from 1 to 65535")
    return ServerSpec(name, host, int(port))


def check(spec: ListenSpec) -> None:
    """Raise ValueError when a value cannot stand in a haproxy.cfg."""
    if not spec.servers:
        raise ValueError("at least one server is needed")
    names = [server.name for server in spec.servers]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two servers are called {name!r}; the name is the cookie value too")
    if not _NAME.fullmatch(spec.name):
        raise ValueError(f"the section's name {spec.name!r} has a character that haproxy.cfg does not allow")
    if not _COOKIE.fullmatch(spec.cookie) or "#" in spec.cookie or "'" in spec.cookie:
        raise ValueError(f"{spec.cookie!r} is no name for a cookie")
    if spec.mode not in MODE_OPTIONS:
        raise ValueError(f"the mode {spec.mode!r} is unknown; accepted are {', '.join(MODE_OPTIONS)}")
    if not re.fullmatch(r"[A-Za-z0-9_.:*\[\]-]*:\d{1,5}", spec.bind) or int(spec.bind.rpartition(":")[2]) not in range(
        1, 65536
    ):
        raise ValueError(f"{spec.bind!r} is no ADDRESS:PORT to listen on")
    if spec.check_uri and (not _URI.fullmatch(spec.check_uri) or set(spec.check_uri) & set("#'\"\\")):
        raise ValueError(f"{spec.check_uri!r} is no URI that can be written without quotes")


def listen_section(spec: ListenSpec) -> str:
    """The section as text, ending in a line feed. Raises ValueError as `check` does."""
    import jinja2

    check(spec)
    environment = jinja2.Environment(  # noqa: S701 (a configuration file is no HTML; values were checked above)
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    template = environment.from_string(TEMPLATE.read_text())
    width = max(len(server.name) for server in spec.servers)
    options = MODE_OPTIONS[spec.mode]
    return template.render(spec=spec, width=width, cookie_options=f"{spec.mode} {options}".strip())

"""Bring in what the running process may need later, while the file system can still be seen.

After `chroot` there are no modules, no codecs, no shared libraries and no time zone; after a change of user those that
are there may not be readable. So nothing may be opened on first use once the privileges are gone: whatever this package
imports inside a function is imported here, and what the C library loads on demand is loaded here. tests/proxy/test_stock.py
holds this against a trace of the system calls of a process under Debian's own haproxy.cfg.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import pkgutil
import socket
from collections.abc import Iterator
from types import ModuleType

import haptk._fast
import haptk.io
import haptk.proxy
from haptk.io import clock

LOCALTIME = "/etc/localtime"
# of the standard library and dnspython: what they import inside functions that a proxy can reach
LATER = (
    "_strptime", "bisect", "ctypes", "difflib", "dns.rdtypes.ANY", "dns.rdtypes.IN", "encodings.ascii", "encodings.hex_codec",
    "encodings.idna", "encodings.latin_1", "encodings.punycode", "encodings.raw_unicode_escape", "encodings.unicode_escape",
    "encodings.utf_8", "fcntl", "grp", "html.entities", "importlib.metadata", "ipaddress", "json.encoder", "linecache",
    "logging.handlers", "pwd", "queue", "random", "resource", "stringprep", "tokenize", "traceback", "unicodedata",
)  # fmt: skip
# shared libraries that are loaded on demand: by glibc when a thread is ended from outside, by name lookups
LIBRARIES = ("libgcc_s.so.1",)


def preload() -> None:
    """Import and load all of it. Takes about a quarter of a second; only for a process that gives its privileges up."""
    for package in (haptk._fast, haptk.io, haptk.proxy):
        for name in _modules(package):
            importlib.import_module(name)
    for name in LATER:
        importlib.import_module(name)
    import dns.rdata

    dns.rdata.load_all_types(disable_dynamic_load=True)  # type: ignore[no-untyped-call]
    for library in LIBRARIES:
        with contextlib.suppress(OSError):
            ctypes.CDLL(library)
    "localhost".encode("idna")
    with contextlib.suppress(OSError):
        socket.getaddrinfo("localhost", 80)
    keep_time_zone()


def _modules(package: ModuleType) -> Iterator[str]:
    """The names of a package and of all below it; the reference path only serves where it is asked for."""
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not found.name.rpartition(".")[2].startswith("reference"):
            yield found.name


def keep_time_zone() -> None:
    """Have the C library keep the zone of this machine: without TZ it looks at the file again, and finds UTC in a chroot."""
    if "TZ" not in os.environ:
        os.environ["TZ"] = f":{LOCALTIME}"
    clock.read_time_zone()

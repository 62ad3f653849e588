"""A configuration that was replaced gives its memory back, also where the collector of cycles ends it."""

from __future__ import annotations

import ctypes
import gc

import pytest

from haptk.formats.haproxy_cfg import Source, parse
from haptk.proxy.compile import compile_config
from haptk.proxy.engine import Engine
from haptk.proxy.listeners import Listeners
from tests.ports import free_ports

pytest.importorskip("haptk._fast.worker")
ROUNDS = 20
CONFIG = """global
 stats socket /nowhere level admin
defaults
 mode http
 timeout connect 1s
 timeout client 1s
 timeout server 1s
listen web
 bind 127.0.0.1:{port}
 http-request set-header X-A %[path,regsub(a,b,g)] if {{ path -m reg ^/x }}
 server s1 127.0.0.1:1
"""


class MallInfo(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    ]


def used_kb() -> int:
    """What malloc has given away."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallinfo2"):
        pytest.skip("this libc has no mallinfo2")
    library.mallinfo2.restype = MallInfo
    found = library.mallinfo2()
    return int(found.uordblks + found.hblkhd) >> 10


def test_an_engine_that_was_replaced_frees_its_blocks() -> None:
    tables = compile_config(parse([Source("x", CONFIG.format(port=free_ports(1)[0]))], {}), lambda _: None)
    listeners = Listeners()
    seen = []
    for _ in range(ROUNDS):
        Engine(tables, listeners)
        gc.collect()
        seen.append(used_kb())
    listeners.close()
    assert seen[-1] - seen[4] < 1000, seen  # 15 engines; each has some 350 kB for servers that may be added

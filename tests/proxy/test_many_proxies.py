"""Reading a file takes time in proportion to its proxies."""

from __future__ import annotations

import time

from haptk.proxy.compile import load_text

PROXY = """frontend f{n}
 bind 127.0.0.1:{port}
 log ring@r local0
 use_backend b{n} if {{ nbsrv(b{n}) gt 0 }}
 default_backend b{n}
backend b{n}
 log ring@r local0
 server s 127.0.0.1:9
"""
HEAD = "ring r\ndefaults\n mode http\n timeout client 1s\n timeout server 1s\n timeout connect 1s\n"


def seconds(count: int) -> float:
    text = HEAD + "".join(PROXY.format(n=n, port=2000 + n) for n in range(count))
    begin = time.process_time()
    load_text(text, "many.cfg")
    return time.process_time() - begin


def test_eight_times_the_proxies_take_no_more_than_twenty_times_as_long() -> None:
    few, many = min(seconds(300) for _ in range(3)), min(seconds(2400) for _ in range(2))
    assert many < 20 * few, (few, many)

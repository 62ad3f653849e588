"""Ports for programs that a test starts: free when asked for, and not taken by chance before the program binds them.

The kernel gives outgoing connections the ports above 32767 (ip_local_port_range), and on a busy machine it soon gives one
that was free a moment ago: a program that should listen there then fails. These are from below, and each call draws anew.
"""

from __future__ import annotations

import contextlib
import random
import socket

LOWEST, HIGHEST = 12000, 32000
# Not the tests' own generator: a test that seeds it must not draw the ports of another one.
_random = random.SystemRandom()


def free_port(*hosts: str) -> int:
    """A port that is free for UDP and TCP on all the hosts (127.0.0.1)."""
    while True:
        port = _random.randrange(LOWEST, HIGHEST)
        try:
            with contextlib.ExitStack() as stack:
                for host in hosts or ("127.0.0.1",):
                    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                        stack.enter_context(socket.socket(socket.AF_INET, kind)).bind((host, port))
        except OSError:
            continue
        return port


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """So many different ones."""
    found: dict[int, None] = {}
    while len(found) < count:
        found[free_port(host)] = None
    return list(found)


def free_base(count: int, host: str = "127.0.0.1") -> int:
    """The first of that many free ports in a row."""
    while True:
        base = _random.randrange(LOWEST, HIGHEST - count)
        try:
            with contextlib.ExitStack() as stack:
                for port in range(base, base + count):
                    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                        stack.enter_context(socket.socket(socket.AF_INET, kind)).bind((host, port))
        except OSError:
            continue
        return base

"""A cable with loss: forwards Ethernet frames between two devices and drops some. Run inside the switch's namespace.

usage: python lossy.py DEVICE DEVICE PERCENT SEED   (tc netem is not in every kernel)
"""

from __future__ import annotations

import random
import selectors
import socket
import sys

PACKET_OUTGOING = 4


def without_checksum(frame: bytes) -> bytes:
    """A veth leaves the UDP checksum to the (absent) hardware; zero means that there is none (RFC 768)."""
    if frame[12:14] != b"\x08\x00" or frame[23] != socket.IPPROTO_UDP:
        return frame
    at = 14 + (frame[14] & 0x0F) * 4 + 6
    return frame[:at] + b"\0\0" + frame[at + 2 :]


def main() -> None:
    devices, percent, rng = sys.argv[1:3], int(sys.argv[3]), random.Random(int(sys.argv[4]))
    ends = []
    for device in devices:
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        end.bind((device, 0))
        end.setblocking(False)
        ends.append(end)
    selector = selectors.DefaultSelector()
    for end, other in zip(ends, reversed(ends), strict=True):
        selector.register(end, selectors.EVENT_READ, other)
    print("forwarding", flush=True)
    while True:
        for key, _ in selector.select():
            end = key.fileobj
            assert isinstance(end, socket.socket)
            frame, where = end.recvfrom(65535)
            # ARP goes through: a lost ARP answer would be a cut, not a loss.
            keep = frame[12:14] == b"\x08\x06" or rng.randrange(100) >= percent
            if where[2] != PACKET_OUTGOING and keep:
                key.data.send(without_checksum(frame))


main()

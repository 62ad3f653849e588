"""The heartbeat's shells: links, the loop, signals, pings."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time

import pytest

from haptk.errors import CannotBind
from haptk.heartbeat.ping import Pinger, echo
from haptk.io.loop import Loop
from haptk.io.signals import SignalQueue
from haptk.io.udp import LinkSpec, UdpLink
from tests.ports import free_port


def test_two_links_talk_on_one_port() -> None:
    port = free_port("127.61.0.1")
    one = UdpLink(LinkSpec("x", "ucast", "127.61.0.2", port, bind="127.61.0.1"))
    assert one.send(b"nobody is there yet") == ""
    two = UdpLink(LinkSpec("x", "ucast", "127.61.0.1", port, bind="127.61.0.2"))
    try:
        for number in range(100):
            two.send(b"%d" % number)
        time.sleep(0.1)
        found = [*one.receive(), *one.receive()]
        assert [data for data, _ in found] == [b"%d" % number for number in range(100)]
        assert {sender for _, sender in found} == {"127.61.0.2"}
        assert one.receive() == []
    finally:
        one.close()
        two.close()


def test_a_taken_port_and_a_foreign_address_are_named() -> None:
    port = free_port("127.61.0.3")
    first = UdpLink(LinkSpec("x", "ucast", "127.61.0.4", port, bind="127.61.0.3"))
    with pytest.raises(CannotBind, match="is a heartbeat running already"):
        UdpLink(LinkSpec("x", "ucast", "127.61.0.4", port, bind="127.61.0.3"))
    first.close()
    with pytest.raises(CannotBind, match=r"198\.51\.100\.1 is not an address of this machine"):
        UdpLink(LinkSpec("x", "ucast", "127.61.0.4", port, bind="198.51.100.1"))


def test_a_send_error_is_told_once() -> None:
    link = UdpLink(LinkSpec("x", "ucast", "127.61.0.6", free_port("127.61.0.5"), bind="127.61.0.5"))
    link.target = ("255.255.255.255", 9)  # broadcast without permission
    assert link.send(b"x")
    assert link.send(b"x") == ""
    link.close()


def test_the_loop_reads_before_it_judges_time_and_takes_work_from_threads() -> None:
    order: list[str] = []
    left, right = socket.socketpair()
    due = time.monotonic() + 0.05

    def on_timer(_now: float) -> None:
        order.append("timer")
        loop.stop()

    loop = Loop(lambda: due, on_timer)
    loop.watch(left, lambda: order.append(left.recv(10).decode()))
    time.sleep(0.1)  # the timer is overdue, and data is there too
    right.send(b"data")
    thread = threading.Thread(target=lambda: loop.post(lambda: order.append("posted")))
    thread.start()
    thread.join()
    loop.run()
    loop.close()
    assert order[-1] == "timer"
    assert sorted(order[:-1]) == ["data", "posted"]
    left.close()
    right.close()


def test_signals_only_queue() -> None:
    signals = SignalQueue([signal.SIGUSR2])
    try:
        os.kill(os.getpid(), signal.SIGUSR2)
        deadline = time.monotonic() + 5
        found: list[signal.Signals] = []
        while not found and time.monotonic() < deadline:
            found = signals.read()
        assert found == [signal.SIGUSR2]
        assert signals.read() == []
    finally:
        signals.close()
    assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL


def test_the_checksum_of_an_echo() -> None:
    packet = echo(0x1234, 7)
    total = sum(int.from_bytes(packet[at : at + 2], "big") for at in range(0, len(packet), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF


@pytest.mark.root
def test_a_ping_node_that_answers_and_one_that_does_not() -> None:
    pinger = Pinger(("127.0.0.1", "198.51.100.77"), 1.0)
    pinger.ping(time.monotonic())
    deadline = time.monotonic() + 5
    found: list[str] = []
    while not found and time.monotonic() < deadline:
        found = pinger.receive()
        time.sleep(0.01)
    assert found == ["127.0.0.1"]
    pinger.close()

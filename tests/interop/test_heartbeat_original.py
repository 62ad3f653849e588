"""Where the original fails, shown on the original; haptk's side of each is beside it or named in the docs' table.

docs/explanation/heartbeat.md lists the pairs.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.interop.heartbeat_nodes import Machine, Pair, dump, settled, sh, wait_for

pytestmark = [pytest.mark.real("heartbeat"), pytest.mark.root, pytest.mark.timeout(240)]

RECORD = """
import socket, struct, sys
taps = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
taps.bind((sys.argv[1], 0))
out = open(sys.argv[2], "ab", buffering=0)
print("recording", flush=True)
while True:
    frame, where = taps.recvfrom(65535)
    # What the machine behind this port of the switch sends: UDP to 694.
    if where[2] != 4 and frame[12:14] == b"\\x08\\x00" and frame[23] == 17 and frame[36:38] == b"\\x02\\xb6":
        data = frame[42:]
        out.write(struct.pack("!H", len(data)) + data)
"""
PLAY = """
import socket, struct, sys
left = open(sys.argv[1], "rb").read()
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
packets = []
while left:
    size = struct.unpack("!H", left[:2])[0]
    packets.append(left[2:2 + size])
    left = left[2 + size:]
for data in packets[:40]:
    out.sendto(data, (sys.argv[2], 694))
print(len(packets))
"""


def status(machine: Machine, peer: str) -> str:
    return machine.run("cl_status", "nodestatus", peer).strip()


def kill_daemons(machine: Machine) -> None:
    """kill -9 of everything of the real heartbeat on one machine; the init of the machine lives on."""
    namespace = Path(f"/proc/{machine.init}/ns/pid").readlink()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            inside = (entry / "ns/pid").readlink() == namespace
            name = (entry / "comm").read_text()
        except OSError:
            continue
        if inside and name.startswith("heartbeat"):
            os.kill(int(entry.name), signal.SIGKILL)


class Recorder:
    """Writes down what b sends."""

    def __init__(self, two: Pair) -> None:
        self.file = two.dir / "recording"
        switch = two.prefix + "sw"
        argv = ["ip", "netns", "exec", switch, sys.executable, "-c", RECORD, "pb", str(self.file)]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"recording\n"

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def play(self, two: Pair, to: str) -> int:
        """From b's place in the network, while no b is there."""
        return int(sh("ip", "netns", "exec", two.b.netns, sys.executable, "-c", PLAY, str(self.file), to))


def test_a_recording_and_a_killed_daemon(pair: Callable[..., Pair]) -> None:
    """Real nodes: the resource of a killed daemon runs twice, and a recording of a dead node is believed."""
    two = pair().up()
    recorder = Recorder(two)
    two.a.start_real()
    two.b.start_real()
    settled(two)
    recorder.stop()
    # kill -9 of the daemon: its resource stays up, and the other node starts it too.
    kill_daemons(two.b)
    wait_for(lambda: two.holder("rscB") == "ab", 20, dump(two))
    # Both are gone; a returns, and a recording of b is played to it. It forgot b's generation at its restart.
    two.b.crash()
    two.a.crash()
    two.a.start_real()
    wait_for(lambda: "Local status now set to: 'up'" in two.a.log.rpartition("Starting")[2], 20, dump(two))
    played = recorder.play(two, "10.77.0.1")
    assert played >= 5
    wait_for(lambda: status(two.a, "b") == "active", 20, dump(two))
    two.a.crash()
    # The same recording and the same story for a haptk node: it knows from its disk that b was newer.
    two.a.start_haptk()
    two.b.start_haptk()
    settled(two)  # b's generation is newer than its recording by now
    two.b.crash()
    two.a.crash()
    two.a.start_haptk()
    wait_for(lambda: '"state": "up"' in two.a.ctl("status", "--json"), 20, dump(two))
    recorder.play(two, "10.77.0.1")
    wait_for(lambda: "attempted replay attack [b]?" in two.a.log, 20, dump(two))
    assert json.loads(two.a.ctl("status", "--json"))["peer"]["heard_s_ago"] is None


def test_a_healed_partition_of_two_real_nodes_leaves_nobody(pair: Callable[..., Pair]) -> None:
    """haptk's side: test_a_partition_of_two_haptk_nodes_leaves_nobody_without."""
    two = pair().up()
    two.a.start_real()
    two.b.start_real()
    settled(two)
    two.b.link("down")
    wait_for(lambda: two.holder("rscA") == "ab" and two.holder("rscB") == "ab", 20, dump(two))
    two.b.link("up")
    wait_for(lambda: two.holder("rscA") == "" and two.holder("rscB") == "", 40, dump(two))


def test_two_keys_during_a_rotation_split_two_real_nodes(pair: Callable[..., Pair]) -> None:
    """The documented order: both nodes know both keys, one signs with the new one already. haptk's side:
    test_key_rotation_without_a_gap. With a real peer both have to switch at once."""
    two = pair().up()
    for machine, active in ((two.a, 1), (two.b, 2)):
        keys = machine.dir / "ha.d" / "authkeys"
        keys.write_text(f"auth {active}\n1 sha1 secretkey\n2 sha1 another\n")
    two.a.start_real()
    two.b.start_real()
    wait_for(lambda: two.holder("rscA") == "ab" and two.holder("rscB") == "ab", 40, dump(two))
    assert "authtoken does not match" in two.a.log
    assert "authstr" in two.a.log  # and it tells the digest that would have been right


def test_a_failed_start_is_reported_as_held_by_two_real_nodes(pair: Callable[..., Pair]) -> None:
    """haptk's side: test_a_start_that_fails_is_never_reported_as_held, and below with a real peer."""
    two = pair().up()
    two.b.boot()
    (two.b.dir / "broken.rscB").touch()
    two.a.start_real()
    two.b.start_real()
    wait_for(lambda: two.holder("rscA") == "a", 40, dump(two))
    wait_for(lambda: two.b.run("cl_status", "rscstatus").strip() == "local", 40, dump(two))
    assert two.holder("rscB") == ""
    two.b.crash()
    two.b.start_haptk()  # and the same node with haptk: what does not start is handed to the real peer
    (two.b.dir / "broken.rscB").touch()
    wait_for(lambda: two.holder("rscB") == "a", 40, dump(two))


def test_anybody_commands_a_real_node_with_crc(pair: Callable[..., Pair]) -> None:
    """haptk does not even start with crc unless it is told to. A forged good-bye of b needs no secret."""
    two = pair()
    two.authkeys = "auth 1\n1 crc\n"
    two.up()
    two.a.start_real()
    two.b.start_haptk()
    assert two.b.haptk is not None
    assert two.b.haptk.wait(timeout=30) != 0
    assert "crc protects nothing" in (two.b.dir / "haptk.err").read_text()
    two.b.start_haptk("--allow-crc")
    settled(two)
    generation = int((two.b.dir / "state" / "hb_generation").read_text())
    forge(two, generation)
    wait_for(lambda: two.holder("rscB") == "ab", 20, dump(two))
    assert "Received shutdown notice from 'b'" in two.a.log


def forge(two: Pair, generation: int) -> None:
    """What anybody in the network can send: the fields are in the clear, and crc has no key."""
    from haptk.core.heartbeat.auth import Key, KeyRing

    ring = KeyRing([Key(1, "crc")], 1, allow_crc=True)
    words = {"t": "shutdone", "st": "dead", "src": "b", "seq": "c8", "hg": f"{generation:x}", "ts": "6b03dfd7"}
    packet = ring.sign({**words, "ld": "0 0 0 1/1 1", "ttl": "3"})
    send = "import socket, sys; socket.socket(2, 2).sendto(bytes.fromhex(sys.argv[1]), ('10.77.0.1', 694))"
    sh("ip", "netns", "exec", two.b.netns, sys.executable, "-c", send, packet.hex())


assert socket.AF_INET == 2  # what forge says in numbers

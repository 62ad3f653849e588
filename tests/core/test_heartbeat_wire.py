"""Every captured packet of heartbeat 3.0.6 decodes, verifies and encodes again byte for byte."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haptk.core.heartbeat import wire
from haptk.core.heartbeat.auth import AuthError, Key, KeyRing

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "data" / "heartbeat-vectors.json").read_text())


def ring_of(vector: dict[str, Any]) -> KeyRing:
    return KeyRing([Key(1, vector["alg"], vector["key"].encode())], 1, allow_crc=True)


def as_wire(fields: dict[str, str]) -> wire.Message:
    return {name: bytes.fromhex(value) if name.endswith("uuid") else value for name, value in fields.items()}


def name_of(vector: dict[str, Any]) -> str:
    return f"{vector['capture']}-{vector['fields']['t']}"


def test_there_are_74_packets() -> None:
    assert len(VECTORS) == 74


@pytest.mark.parametrize("vector", VECTORS, ids=name_of)
def test_packet_round_trip(vector: dict[str, Any]) -> None:
    packet = base64.b64decode(vector["packet_b64"])
    ring = ring_of(vector)
    sealed = wire.unseal(packet)
    assert len(sealed.signed) == vector["signed_len"]
    assert f"{sealed.number} {sealed.digest}" == vector["auth"]
    ring.verify(sealed)
    message = wire.parse(sealed)
    assert message == as_wire(vector["fields"])
    assert list(message) == list(vector["fields"])
    if vector["inner_auth"]:
        assert ring.sign(dict(message)) == packet
    else:
        body = wire.netstring_body(message)
        assert wire.seal_netstring(body, f"1 {ring.active.digest(body)}") == packet


@pytest.mark.parametrize("vector", VECTORS, ids=name_of)
def test_the_same_message_in_a_classic_frame(vector: dict[str, Any]) -> None:
    ring = ring_of(vector)
    message = as_wire(vector["fields"])
    message.pop("auth", None)
    packet = wire.seal_classic(message, f"1 {ring.active.digest(wire.classic_body(message))}")
    for data in (packet, packet[:-1]):  # the trailing NUL is optional
        sealed = wire.unseal(data)
        ring.verify(sealed)
        assert wire.parse(sealed) == message


@pytest.mark.parametrize("vector", VECTORS[::9], ids=name_of)
def test_any_flipped_bit_is_refused(vector: dict[str, Any]) -> None:
    packet = base64.b64decode(vector["packet_b64"])
    ring = ring_of(vector)
    for at in range(0, len(packet), 7):
        broken = packet[:at] + bytes([packet[at] ^ 1]) + packet[at + 1 :]
        with pytest.raises((wire.WireError, AuthError)):
            ring.verify(wire.unseal(broken))


@given(st.binary(max_size=400), st.sampled_from([b"###\n", b">>>\n", b""]))
def test_no_bytes_do_more_than_raise_wire_error(data: bytes, start: bytes) -> None:
    try:
        wire.parse(wire.unseal(start + data))
    except wire.WireError:
        pass


FIELD = st.dictionaries(
    st.from_regex(r"[A-Za-z0-9_]{1,12}", fullmatch=True).filter(lambda name: name != "auth"),
    st.one_of(
        st.binary(max_size=40), st.text(st.characters(max_codepoint=0x7F, exclude_characters="\x13"), max_size=40)
    ),
    min_size=1,
    max_size=8,
)


@given(FIELD)
def test_what_we_write_we_read(fields: wire.Message) -> None:
    ring = KeyRing([Key(3, "sha1", b"k" * 100)], 3)
    sealed = wire.unseal(ring.sign(dict(fields)))
    ring.verify(sealed)
    found = wire.parse(sealed)
    found.pop("auth")
    assert found == fields
    assert all(type(found[name]) is type(value) for name, value in fields.items())


@pytest.mark.parametrize(
    ("packet", "why"),
    [
        (b"GET / HTTP/1.0\r\n", "neither"),
        (b"###\n3:(0)a=b,", "cut off"),
        (b"###\n%%%\n4:1 ab,x", "follow"),
        (b"###\n%%%\n4:1;ab,", "signature"),
        (b"###\n%%%\n9:1 ab,", "does not end"),
        (b">>>\nt=a\nauth=1 ab\n", "cut off"),
        (b">>>\nt=a\n<<<\n", "0 auth lines"),
        (b"#" * 70000, "more than one datagram"),
    ],
)
def test_reasons(packet: bytes, why: str) -> None:
    with pytest.raises(wire.WireError, match=why):
        wire.unseal(packet)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"7:(0)t=aa,7:(0)t=bb,", "twice"),
        (b"5:(2)t=,", "type"),
        (b"6:(0)a b,", "no '='"),
        (b"7:(0)a b=,", "name"),
        (b"9:(0)a=,", "does not end"),
        (b"x:(0)a=,", "length"),
    ],
)
def test_reasons_inside(body: bytes, why: str) -> None:
    sealed = wire.Sealed(False, b"###\n" + body + b"%%%\n", 1, "ab")
    with pytest.raises(wire.WireError, match=why):
        wire.parse(sealed)


def test_crc_is_refused_unless_allowed_and_says_so() -> None:
    ring = KeyRing([Key(1, "crc")], 1)
    with pytest.raises(AuthError, match="not allowed"):
        ring.verify(wire.unseal(ring.sign({"t": "status"})))


def test_unknown_number_and_wrong_key_say_which_and_never_the_digest() -> None:
    packet = KeyRing([Key(2, "sha1", b"theirs")], 2).sign({"t": "status"})
    with pytest.raises(AuthError, match="signed with key 2, and our authkeys has only 1"):
        KeyRing([Key(1, "sha1", b"ours")], 1).verify(wire.unseal(packet))
    ours = Key(2, "sha1", b"ours")
    with pytest.raises(AuthError) as caught:
        KeyRing([ours], 2).verify(wire.unseal(packet))
    assert ours.digest(wire.unseal(packet).signed) not in str(caught.value)
    assert "ours" not in repr(ours)


def test_rotation_each_line_verifies_with_its_own_key() -> None:
    keys = [Key(1, "sha1", b"old"), Key(2, "md5", b"new")]
    before, after = KeyRing(keys, 1), KeyRing(keys, 2)
    after.verify(wire.unseal(before.sign({"t": "status"})))
    before.verify(wire.unseal(after.sign({"t": "status"})))


def test_numbers() -> None:
    message: wire.Message = {"seq": "1b58", "bad": "0x1", "neg": "-1", "long": "f" * 30, "bin": b"1"}
    assert wire.number(message, "seq") == 0x1B58
    for name in ("neg", "long", "bin", "absent", "bad"):
        assert wire.number(message, name) is None

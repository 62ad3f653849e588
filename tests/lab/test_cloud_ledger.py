"""The ledger: one entry for each change, a nested change is one change, and an error in it is published too."""

from __future__ import annotations

from typing import Any

import pytest

from haptk.lab.ledger import HISTORY_MAX, Ledger


def row(public_ip: str, holder: str | None) -> dict[str, Any]:
    names = ("allocation_id", "association_id", "network_interface_id", "instance_id", "private_ip")
    return {"region": "r", "public_ip": public_ip} | dict.fromkeys(names, holder)


def test_a_nested_change_is_one_change() -> None:
    state = [row("127.0.0.9", "a")]
    ledger = Ledger(lambda: [dict(one) for one in state])
    with ledger.changing():
        pass
    before = ledger.version
    with ledger.changing():
        with ledger.changing():
            state[0] = row("127.0.0.9", None)
        assert ledger.version == before, "nobody may see the middle of it"
        state[0] = row("127.0.0.9", "b")
    told = ledger.wait(before, 0)
    assert [(one["change"], one["instance_id"]) for one in told["history"]] == [("associated", "b")]


def test_what_happened_before_an_error_is_published() -> None:
    state: list[dict[str, Any]] = []
    ledger = Ledger(lambda: [dict(one) for one in state])
    with pytest.raises(ValueError, match="half way"), ledger.changing():
        state.append(row("127.0.0.9", "a"))
        raise ValueError("half way")
    assert [one["change"] for one in ledger.wait(0, 0)["history"]] == ["allocated"]


def test_nothing_changed_is_no_version() -> None:
    ledger = Ledger(lambda: [row("127.0.0.9", "a")])
    with ledger.changing():
        pass
    before = ledger.wait(0, 0)
    with ledger.changing():
        pass
    assert ledger.wait(0, 0) == before


def test_a_released_address_leaves_and_is_told() -> None:
    state = [row("127.0.0.9", "a")]
    ledger = Ledger(lambda: [dict(one) for one in state])
    with ledger.changing():
        pass
    version = ledger.version
    with ledger.changing():
        state.clear()
    told = ledger.wait(version, 0)
    assert told["addresses"] == []
    assert (told["history"][0]["change"], told["history"][0]["was"]["instance_id"]) == ("released", "a")


def test_a_reader_from_an_earlier_life_gets_everything_and_memory_is_bounded() -> None:
    state = [row("127.0.0.9", "a")]
    ledger = Ledger(lambda: [dict(one) for one in state])
    for number in range(HISTORY_MAX + 5):
        with ledger.changing():
            state[0] = row("127.0.0.9", f"i-{number}")
    assert len(ledger.wait(10**9, 0)["history"]) == HISTORY_MAX
    assert len(ledger.wait(ledger.version - 1, 0)["history"]) == 1

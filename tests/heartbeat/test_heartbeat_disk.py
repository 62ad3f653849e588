"""A disk whose syncs take seconds or fail: the heart goes on, and a start without a generation on disk says nothing."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.heartbeat.test_heartbeat_daemon import Daemons, wait_for


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The words of slow_disk.c; the processes started now obey them."""
    library = tmp_path / "slow_disk.so"
    source = Path(__file__).with_name("slow_disk.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    words = tmp_path / "disk"
    words.write_text("")
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("SLOW_DISK", str(words))
    return words


@pytest.fixture
def pair(tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemons]:
    """a has the sick disk, b a healthy one."""
    made = Daemons(tmp_path)
    made.start("a")
    monkeypatch.delenv("LD_PRELOAD")
    made.start("b")
    wait_for(lambda: made.said("a", "resource_started") and made.said("b", "peer_up"), made.logs())
    yield made
    made.close()


def remembered(pair: Daemons) -> int:
    file = pair.dir / "state.a" / "peers.json"
    return int(json.loads(file.read_text())["b"]["generation"]) if file.exists() else 0


def restart_b(pair: Daemons) -> int:
    """Something that a has to remember; returns what."""
    pair.kill("b")
    pair.start("b")
    wait_for(lambda: pair.status("b").get("phase") == "stable", pair.logs())
    return int(pair.status("b")["generation"])


def test_a_disk_that_takes_seconds_does_not_stop_the_heart(pair: Daemons, disk: Path) -> None:
    wait_for(lambda: remembered(pair) > 0, pair.logs())
    disk.write_text("3")  # three dead times for each sync, and a write has two
    generation = restart_b(pair)
    assert remembered(pair) < generation
    wait_for(lambda: remembered(pair) == generation, pair.logs(), 40)
    assert not pair.said("b", "peer_dead")
    assert not pair.said("a", "paused")
    assert pair.status("b")["peer"]["state"] == "active"


def test_a_write_that_fails_is_said_once_and_done_later(pair: Daemons, disk: Path) -> None:
    disk.write_text("EIO")
    generation = restart_b(pair)
    log = pair.dir / "a.log"
    wait_for(lambda: "older recording of the peer would be believed" in log.read_text(), pair.logs())
    disk.write_text("")
    wait_for(lambda: remembered(pair) == generation, pair.logs())
    wait_for(lambda: "can be written again" in log.read_text(), pair.logs())
    assert log.read_text().count("older recording") == 1
    assert not pair.said("b", "peer_dead")


def test_without_a_generation_on_disk_nothing_is_said(tmp_path: Path, disk: Path) -> None:
    """With an old generation on the wire a peer takes us for a replay, or for a node that returns from a partition."""
    made = Daemons(tmp_path)
    try:
        disk.write_text("EIO")
        made.start("a")
        assert made.running.pop("a").wait(timeout=30) == 73
        assert "hb_uuid" in made.logs()
        assert "Input/output error" in made.logs()
        assert not made.events("a")
    finally:
        made.close()

"""Every difference that the combinations have found, as small as it could be made: the real HAProxy is asked again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.combinations.__main__ import both, unknown
from tests.combinations.rig import Rig
from tests.ports import free_base

pytestmark = [pytest.mark.real("haproxy"), pytest.mark.timeout(300)]
FOUND = sorted(path for path in Path(__file__).with_name("found").iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    one = Rig(free_base(100))
    try:
        yield one
    finally:
        one.close()


@pytest.mark.parametrize("directory", FOUND, ids=lambda path: path.name)
def test_both_do_the_same(rig: Rig, directory: Path) -> None:
    case = json.loads((directory / "case.json").read_text()) | {"config": (directory / "haproxy.cfg.in").read_text()}
    for _ in range(3):  # a difference counts when it shows again and again: two machines' moments are not the same
        theirs, mine, found = both(rig, case)
        assert theirs["started"], theirs["stderr"]
        assert mine is not None and mine["started"], mine and mine["stderr"]
        found = unknown(found, case)
        if not found:
            return
    assert not found, "\n".join(f"{kind}: {detail}" for kind, detail in found)

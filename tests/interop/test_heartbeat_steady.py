"""Two minutes of a real node and haptk beside each other without a line in the real log that somebody has to look at."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tests.interop.heartbeat_nodes import Pair
from tests.interop.test_heartbeat_real import complaints, dump, settled

STEADY_S = float(os.environ.get("HAPTK_STEADY_S", "120" if os.environ.get("CI") == "true" else "8"))

pytestmark = [pytest.mark.real("heartbeat"), pytest.mark.root, pytest.mark.timeout(180 + STEADY_S)]


def test_steady_state_without_a_complaint(tmp_path: Path) -> None:
    # The real node writes a WARN for every status that is later than warntime: on a loaded machine that must be seconds.
    two = Pair(tmp_path / "pair", keepalive="500ms", deadtime="12", initdead="12")
    two.extra = ["warntime 6"]
    two.up()
    try:
        two.a.start_real()
        two.b.start_haptk()
        settled(two)
        before = json.loads(two.b.ctl("status", "--json"))
        time.sleep(STEADY_S)
        settled(two)
        assert not complaints(two.a.log), dump(two)
        assert not [line for line in two.b.log.splitlines() if " WARN" in line or " ERROR" in line], dump(two)
        assert two.a.run("cl_status", "nodestatus", "b").strip() == "active"
        assert two.a.run("cl_status", "rscstatus").strip() == "local"
        assert [len(two.a.calls("start")), len(two.b.calls("start"))] == [2, 1]
        assert not two.a.calls("stop")
        assert not two.b.calls("stop")
        after = json.loads(two.b.ctl("status", "--json"))
        assert (after["generation"], after["peer"]["generation"]) == (
            before["generation"],
            before["peer"]["generation"],
        )
    finally:
        two.close()

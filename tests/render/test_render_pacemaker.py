"""The commands for Pacemaker, run by crm and by pcs into an empty cluster, and what its own scheduler makes of them.

No cluster runs: both shells work on a file, crm_verify judges it, and crm_simulate (the scheduler of a real cluster) says
where the address starts and where it goes when the proxy or the node dies.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from haptk.cli.tier import site
from haptk.cluster.load import load
from haptk.render import catalogue

GOOD = Path(__file__).parents[1] / "cluster" / "good" / "standby-keepalived.toml"
NODES = '<nodes><node id="1" uname="lb1"/><node id="2" uname="lb2"/></nodes>'
ONLINE = (
    '<node_state id="{id}" uname="lb{id}" in_ccm="true" crmd="online" join="member" expected="member">'
    '<lrm id="{id}"><lrm_resources/></lrm></node_state>'
)
PROPERTIES = (
    '<cluster_property_set id="cib-bootstrap-options">'
    '<nvpair id="w" name="have-watchdog" value="false"/><nvpair id="v" name="dc-version" value="2.1.5"/>'
    '<nvpair id="i" name="cluster-infrastructure" value="corosync"/></cluster_property_set>'
)
# The agents of a machine of ours: the package's own and the generated one.
VIEW = """
set -e
mkdir agents
cp -a /usr/lib/ocf/resource.d/. agents
mkdir -p agents/haptk
cp usr/lib/ocf/resource.d/haptk/eip agents/haptk/eip
chmod 755 agents/haptk/eip
mount --bind agents /usr/lib/ocf/resource.d
export HOME="$PWD" PATH="$PWD/bin:$PATH"
"""
RUN = {
    "crm": 'CIB_file="$PWD/cib.xml" crm configure load update pacemaker/crm.txt',
    "pcs": "sh pacemaker/pcs.sh",
}


def run(root: Path, script: str, *view: str) -> str:
    argv = [*view, "sh", "-c", script]
    done = subprocess.run(
        argv, cwd=root, capture_output=True, text=True, timeout=100, env={**os.environ, "LC_ALL": "C"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def declared(root: Path, *, back: bool) -> None:
    """The generated files of lb1 below the root, in front of a cluster that has nodes and nothing else."""
    cluster = load(GOOD.read_text()).cluster
    cluster = msgspec.structs.replace(
        cluster,
        cluster=msgspec.structs.replace(cluster.cluster, contract="pacemaker"),
        timing=msgspec.structs.replace(cluster.timing, auto_failback=back),
    )
    for one in catalogue.OF_NODE["pacemaker"](cluster, "lb1", site("0" * 64)):
        path = root / one.path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        # Only a running systemd tells the metadata of its units: a Dummy stands in for haproxy's.
        path.write_text(one.text.replace("systemd:haproxy", "ocf:heartbeat:Dummy"))
    empty = run(root, "cibadmin --empty")
    empty = empty.replace("<nodes/>", NODES).replace("<crm_config/>", f"<crm_config>{PROPERTIES}</crm_config>")
    states = "".join(ONLINE.format(id=number) for number in (1, 2))
    empty = empty.replace("<status/>", f"<status>{states}</status>").replace(
        "<cib ", '<cib have-quorum="1" dc-uuid="1" '
    )
    (root / "cib.xml").write_text(empty)
    (root / "bin").mkdir()
    wrapper = root / "bin" / "pcs"
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("pcs", path="/usr/sbin")} -f "{root}/cib.xml" "$@"\n')
    wrapper.chmod(0o755)


def holder(said: str) -> str:
    """Where the scheduler has the address in the end."""
    (line,) = [line for line in said.split("Revised Cluster Status")[-1].splitlines() if "eip-web-a\t" in line]
    return line.split()[-1]


@pytest.mark.root
@pytest.mark.real("crm", "pcs", "crm_verify", "crm_simulate", "cibadmin", "unshare")
@pytest.mark.parametrize(("shell", "back"), [("crm", False), ("pcs", True)])
def test_a_cluster_takes_the_commands_and_moves_the_address(shell: str, back: bool, tmp_path: Path) -> None:
    declared(tmp_path, back=back)
    run(tmp_path, VIEW + RUN[shell], "unshare", "--mount")
    # A warning about fencing is what the template's comment is about; an error would mean that nothing starts.
    assert "error" not in run(tmp_path, "crm_verify -V -x cib.xml")
    assert holder(run(tmp_path, "crm_simulate -x cib.xml -S -O up.xml")) == "lb1"
    assert holder(run(tmp_path, "crm_simulate -x up.xml -S --node-down=lb1 -O down.xml")) == "lb2"
    assert holder(run(tmp_path, "crm_simulate -x up.xml -S --op-inject=proxy_monitor_6000@lb1=7")) == "lb2"
    again = run(tmp_path, "crm_simulate -x down.xml -S --node-up=lb1")
    assert holder(again) == ("lb1" if back else "lb2"), "auto_failback is what decides"

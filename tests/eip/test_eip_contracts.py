"""The installed contract files, run as a cluster manager runs them, against the corrected cloud over HTTP."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from haptk.eip.install import PLACES, Installer

Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def prefix() -> Iterator[Path]:
    """The installed files, in a directory that every user can read (meta-data is asked as `nobody`)."""
    root = Path(tempfile.mkdtemp(prefix="haptk-eip-"))
    root.chmod(0o755)
    Installer(root).install(list(PLACES))
    yield root
    shutil.rmtree(root)


def run(path: Path, *arguments: str, env: dict[str, str], **options: Any) -> Done:
    return subprocess.run([str(path), *arguments], env=env, capture_output=True, text=True, timeout=60, **options)


class Ocf:
    """The OCF file on a node."""

    def __init__(self, lab: Any, path: Path, node: str, **parameters: str) -> None:
        self.path = path
        self.env = lab.env(node, OCF_ROOT="/usr/lib/ocf", OCF_RESOURCE_INSTANCE="eip", HA_LOGFACILITY="none")
        parameters.setdefault("address", lab.ip())
        self.env.update({f"OCF_RESKEY_{name}": value for name, value in parameters.items()})

    def __call__(self, action: str, **env: str) -> Done:
        return run(self.path, action, env={**self.env, **env})


@pytest.fixture
def ocf(lab: Any, prefix: Path) -> Any:
    def make(node: str = "lb1", **parameters: str) -> Ocf:
        return Ocf(lab, prefix / PLACES["ocf"][0], node, **parameters)

    return make


def test_ocf_codes_of_a_whole_life(lab: Any, ocf: Any) -> None:
    agent = ocf()
    assert [agent(action).returncode for action in ("validate-all", "monitor", "stop", "monitor")] == [0, 7, 0, 7]
    assert [agent(action).returncode for action in ("start", "start", "monitor")] == [0, 0, 0]
    assert lab.holder() == "lb1"
    assert [agent(action).returncode for action in ("stop", "stop", "monitor")] == [0, 0, 7]
    assert lab.holder() is None


@pytest.mark.parametrize(
    "action", ["notify", "promote", "demote", "reload", "migrate_to", "migrate_from", "dance", "", "validate", "status"]
)
def test_ocf_actions_that_do_not_exist_say_three(ocf: Any, action: str) -> None:
    assert ocf()(action).returncode == 3


def test_ocf_meta_data_needs_no_environment(prefix: Path) -> None:
    path = prefix / PLACES["ocf"][0]
    done = run(path, "meta-data", env={})
    assert done.returncode == 0 and done.stderr == ""
    assert '<resource-agent name="eip" version="1.0">' in done.stdout
    assert run(path, "usage", env={}).returncode == 0


@pytest.mark.root
def test_ocf_meta_data_works_as_nobody(prefix: Path) -> None:
    done = run(prefix / PLACES["ocf"][0], "meta-data", env={}, user="nobody", cwd="/")
    assert done.returncode == 0 and done.stdout.endswith("</resource-agent>\n")


@pytest.mark.real("xmllint", "awseip")
def test_ocf_meta_data_is_valid_for_the_installed_dtd(prefix: Path) -> None:
    text = run(prefix / PLACES["ocf"][0], "meta-data", env={}).stdout
    lint = subprocess.run(
        ["xmllint", "--noout", "--valid", "-"], input=text, text=True, cwd="/usr/share/resource-agents", timeout=20
    )
    assert lint.returncode == 0


# OCF 1.1's schema of meta-data in a table: what an element must have, may have, and holds in this order.
OCF_11: dict[str, tuple[set[str], set[str], str]] = {
    "resource-agent": ({"name"}, {"version"}, "version (longdesc )*(shortdesc )*parameters actions (special )?"),
    "version": (set(), set(), ""),
    "longdesc": ({"lang"}, set(), ""),
    "shortdesc": ({"lang"}, set(), ""),
    "parameters": (set(), set(), "(parameter )+"),
    "parameter": (
        {"name"},
        {"unique-group", "unique", "required", "reloadable"},
        "(deprecated )?(longdesc )+(shortdesc )+content ",
    ),
    "content": ({"type"}, {"default"}, ""),
    "actions": (set(), set(), "(action )+"),
    "action": ({"name", "timeout"}, {"interval", "start-delay", "depth", "role"}, ""),
}


def faults_by_ocf_11(text: str) -> list[str]:
    """What the schema of OCF 1.1 does not allow."""
    found = []
    for one in ElementTree.fromstring(text).iter():
        required, allowed, children = OCF_11.get(one.tag, (set(), set(), "no such element"))
        if not required <= set(one.attrib) <= required | allowed:
            found.append(f"attributes of {one.tag}: {sorted(one.attrib)}")
        if not re.fullmatch(children, "".join(f"{child.tag} " for child in one)):
            found.append(f"children of {one.tag}")
        if any(one.get(name) not in (None, "0", "1") for name in ("unique", "required", "reloadable")):
            found.append(f"a truth value of {one.tag}")
        if one.tag == "content" and one.get("type") not in ("string", "integer", "boolean"):
            found.append(f"type {one.get('type')}")
    return found


def test_ocf_meta_data_is_valid_for_ocf_11(prefix: Path) -> None:
    text = run(prefix / PLACES["ocf"][0], "meta-data", env={}).stdout
    assert faults_by_ocf_11(text) == []
    for broken in (
        text.replace('type="string"', 'type="text"', 1),
        text.replace('required="1"', 'required="yes"', 1),
        text.replace(' timeout="30s"', "", 1),
        text.replace("<version>1.0</version>\n", "", 1),
        text.replace("<actions>", "<actions></actions><actions>", 1),
    ):
        assert broken != text and faults_by_ocf_11(broken)


@pytest.mark.real("ocf-tester")
@pytest.mark.root
def test_the_real_ocf_tester_finds_no_failure(lab: Any, ocf: Any) -> None:
    agent = ocf()
    done = subprocess.run(
        ["/usr/sbin/ocf-tester", "-n", "eip", "-o", f"address={lab.ip()}", str(agent.path)],
        env=agent.env,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed all tests" in done.stdout


def test_ocf_monitor_is_degraded_when_the_api_is_silent_and_it_was_ours(lab: Any, ocf: Any) -> None:
    lab.give("lb1")
    agent = ocf()
    assert agent("monitor").returncode == 0
    lab.power("lb1", False)
    lab.fault("hang")
    done = agent("monitor")
    assert done.returncode == 190
    assert done.stderr.startswith("ocf-exit-reason:") and "it was ours" in done.stderr
    lab.power("lb1", True)


def test_ocf_monitor_is_never_seven_when_nothing_can_be_seen(lab: Any, ocf: Any) -> None:
    lab.fault("reset")
    done = ocf()("monitor")
    assert done.returncode == 1
    assert "ocf-exit-reason:" in done.stderr and "unknown" in done.stderr
    lab.power("lb1", True)


def test_ocf_start_and_stop_fail_with_a_reason_when_the_api_is_down(lab: Any, ocf: Any) -> None:
    lab.give("lb2")
    lab.fault("error")
    agent = ocf()
    for action in ("start", "stop"):
        done = agent(action)
        assert done.returncode == 1, (action, done)
        assert done.stderr.startswith("ocf-exit-reason:") and "DescribeAddresses" in done.stderr
    assert lab.holder() == "lb2"


def test_ocf_honours_the_time_out_of_the_cluster(lab: Any, ocf: Any) -> None:
    from haptk.io import clock

    lab.fault("hang")
    begun = clock.monotonic()
    assert ocf()("start", OCF_RESKEY_CRM_meta_timeout="4000").returncode == 1
    assert clock.monotonic() - begun < 6


@pytest.mark.parametrize("parameters", [{"address": ""}, {"address": "203.0.113.1555"}, {"interface": "eth0"}])
def test_ocf_parameters_that_mean_nothing_are_refused(ocf: Any, parameters: dict[str, str]) -> None:
    agent = ocf(**parameters)
    assert [agent(action).returncode for action in ("validate-all", "monitor", "start")] == [6, 6, 6]
    assert agent("stop").returncode == 0  # nothing of that name can be running
    assert "ocf-exit-reason:" in agent("validate-all").stderr


def test_ocf_validates_that_the_interface_is_of_this_host(lab: Any, ocf: Any) -> None:
    assert ocf(interface=lab.eni("lb1"))("validate-all").returncode == 0
    done = ocf("lb1", interface=lab.eni("lb2"))("validate-all")
    assert done.returncode == 2 and lab.eni("lb2") in done.stderr


def test_ocf_start_of_an_address_that_does_not_exist_stops_everywhere(ocf: Any) -> None:
    done = ocf(address="203.0.113.77")("start")
    assert done.returncode == 6 and "does not exist" in done.stderr


def test_ocf_several_addresses_are_one_resource(lab: Any, ocf: Any) -> None:
    both = ocf(address=f"{lab.ip()} {lab.ip('third')}")
    assert both("start").returncode == 0
    assert (lab.holder(), lab.holder("third")) == ("lb1", "lb1")
    lab.settle()
    assert both("monitor").returncode == 0
    lab.give("lb2", "third")
    assert both("monitor").returncode == 7
    assert both("stop").returncode == 0
    assert (lab.holder(), lab.holder("third")) == (None, "lb2")


def test_ocf_says_not_installed_when_haptk_is_gone(lab: Any, ocf: Any, tmp_path: Path) -> None:
    agent = ocf()
    moved = tmp_path / "eip"
    moved.write_text(agent.path.read_text().replace("quick.py", "gone.py"))
    moved.chmod(0o755)
    agent.path = moved
    assert agent("monitor").returncode == 5
    assert agent("meta-data").returncode == 0


# Heartbeat version 1: only stdout of status counts.


@pytest.fixture
def heartbeat(lab: Any, prefix: Path) -> Any:
    def make(node: str = "lb1", **env: str) -> Any:
        def call(*arguments: str) -> Done:
            return run(prefix / PLACES["heartbeat"][0], *arguments, env=lab.env(node, HA_LOGFACILITY="none", **env))

        return call

    return make


def test_heartbeat_words_are_exact(lab: Any, heartbeat: Any) -> None:
    lb1 = heartbeat()
    assert lb1(lab.ip(), "status").stdout == "stopped\n"
    assert lb1(lab.ip(), lab.eni("lb1"), "start").returncode == 0
    lab.settle()
    assert lb1(lab.ip(), "status").stdout == "running\n"
    assert lb1(lab.ip(), "status").stdout == "running\n"  # the quick answer this time
    assert heartbeat("lb2")(lab.ip(), "status").stdout == "stopped\n"
    lab.power("lb1", False)
    lab.fault("reset")
    unknown = lb1(lab.ip(), "status")
    assert unknown.stdout == "" and "unknown" in unknown.stderr
    lab.power("lb1", True)


@pytest.mark.parametrize("arguments", [[], ["status"], ["203.0.113.1", "dance"], ["203.0.113.1", "bogus=1", "status"]])
def test_heartbeat_refuses_what_it_does_not_understand(heartbeat: Any, arguments: list[str]) -> None:
    done = heartbeat()(*arguments)
    assert done.returncode != 0 and done.stdout == "" and done.stderr


def matches_owned(stdout: str) -> bool:
    """How ResourceManager of heartbeat 3.0.6 reads a status."""
    import fnmatch

    if fnmatch.fnmatchcase(stdout, "*[Nn][Oo][Tt] *[Rr]unning*"):
        return False
    return fnmatch.fnmatchcase(stdout, "*[Rr]unning*") or fnmatch.fnmatchcase(stdout, "*OK*")


def test_no_word_of_ours_is_taken_for_running_by_accident(lab: Any, heartbeat: Any) -> None:
    lab.fault("throttle")
    for address in (lab.ip(), "203.0.113.99"):
        assert not matches_owned(heartbeat()(address, "status").stdout)


# LSB


def test_lsb_codes(lab: Any, prefix: Path, tmp_path: Path) -> None:
    settings = tmp_path / "eip.env"
    settings.write_text(f'# comment\nHAPTK_EIP="{lab.ip()}"\nPATH=/nowhere\n')
    settings.chmod(0o644)
    env = lab.env("lb1", HAPTK_EIP_ENV=str(settings), HA_LOGFACILITY="none")
    path = prefix / PLACES["lsb"][0]
    codes = [
        run(path, action, env=env).returncode for action in ("status", "start", "status", "restart", "stop", "status")
    ]
    assert codes == [3, 0, 0, 0, 0, 3]
    assert run(path, "dance", env=env).returncode == 2
    assert run(path, env=env).returncode == 2
    settings.write_text("")
    assert run(path, "status", env=env).returncode == 6
    settings.write_text(f"HAPTK_EIP={lab.ip()}\n")
    lab.power("lb1", False)
    lab.fault("reset")
    assert run(path, "status", env=env).returncode == 4
    assert run(path, "stop", env=env).returncode == 1
    lab.power("lb1", True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_log_on_a_full_disk_changes_no_answer(lab: Any, prefix: Path, tmp_path: Path) -> None:
    """A cluster manager goes by the code, and keeps what was printed in a log: losing that must not fail a start."""
    settings = tmp_path / "eip.env"
    settings.write_text(f"HAPTK_EIP={lab.ip()}\n")
    settings.chmod(0o644)
    env = lab.env("lb1", HAPTK_EIP_ENV=str(settings), HA_LOGFACILITY="none")

    def code(*argv: str) -> int:
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(argv, env=env, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
        assert "Traceback" not in done.stderr and "Exception" not in done.stderr
        said = "cannot write to standard output: No space left on device" in done.stderr
        assert said or argv[-1] == "stop", done.stderr
        return done.returncode

    lsb, heartbeat = (str(prefix / PLACES[name][0]) for name in ("lsb", "heartbeat"))
    codes = [code(lsb, "status"), code(lsb, "start")]
    lab.settle()
    codes += [code(lsb, "status"), code(heartbeat, lab.ip(), "status"), code(lsb, "stop")]
    assert codes == [3, 0, 0, 0, 0]
    assert lab.holder() is None


def test_a_settings_file_that_others_can_write_is_not_believed(lab: Any, prefix: Path, tmp_path: Path) -> None:
    settings = tmp_path / "eip.env"
    settings.write_text(f"HAPTK_EIP={lab.ip()}\n")
    settings.chmod(0o666)
    env = lab.env("lb1", HAPTK_EIP_ENV=str(settings))
    assert run(prefix / PLACES["lsb"][0], "status", env=env).returncode == 6


# Installing


def test_install_shows_a_plan_and_uninstall_removes_exactly_that(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc/ha.d/resource.d").mkdir(parents=True)
    (root / "etc/ha.d/resource.d/IPaddr").write_text("somebody else's")
    before = sorted(root.rglob("*"))
    installer = Installer(root)
    assert [change.what for change in installer.plan(list(PLACES))] == ["create"] * 4
    assert sorted(root.rglob("*")) == before  # a plan changes nothing
    installer.install(list(PLACES))
    assert [change.what for change in Installer(root).plan(list(PLACES))] == ["keep"] * 4
    assert all(os.access(installer.path(contract), os.X_OK) for contract in PLACES)
    Installer(root).uninstall(["ocf", "heartbeat"])
    Installer(root).uninstall(["lsb", "keepalived"])
    assert sorted(root.rglob("*")) == before


def test_install_overwrites_nothing_of_somebody_else(tmp_path: Path) -> None:
    from haptk.errors import OperatorError

    path = Installer(tmp_path).path("heartbeat")
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(OperatorError, match="--force"):
        Installer(tmp_path).install(["heartbeat"])
    assert path.read_text() == "mine"
    Installer(tmp_path).install(["heartbeat"], force=True)
    path.write_text("changed by hand")
    (change,) = Installer(tmp_path).uninstall(["heartbeat"])
    assert change.what == "leave" and path.exists()

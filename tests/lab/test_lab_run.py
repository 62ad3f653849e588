"""The lab as a person runs it: real processes, real failures, and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from haptk.lab.client import environment
from haptk.lab.processes import marked_pids, sweep

HAPTK = [sys.executable, "-m", "haptk"]
PROCESSES = ["cloud", "network", "app1.app", "app2.app", "lb1.proxy", "lb2.proxy", "lb1.heartbeat", "lb2.heartbeat"]


class Runner:
    """Runs haptk commands against a lab directory of this test alone."""

    def __init__(self, root: Path, state: Path) -> None:
        self.root = root
        # A network of its own, beside whatever lab a person runs on this machine.
        net = f"127.{128 + os.getpid() % 64}"
        self.env = {**os.environ, "HAPTK_LAB_DIR": str(root), "HAPTK_LAB_NET": net, "XDG_STATE_HOME": str(state)}

    def haptk(self, *argv: str, timeout_s: float = 110) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*HAPTK, *argv], env=self.env, capture_output=True, text=True, timeout=timeout_s, check=False
        )

    def popen(self, *argv: str) -> subprocess.Popen[str]:
        # A shell's background job, which this run may be, ignores SIGINT and so would its children.
        return subprocess.Popen(
            [*HAPTK, *argv],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 (no threads here)
        )

    def json(self, *argv: str) -> dict[str, Any]:
        done = self.haptk(*argv, "--json")
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    def status(self) -> dict[str, Any]:
        return self.json("lab", "status")

    def nothing_left(self) -> bool:
        return not self.root.exists() and not marked_pids(self.root)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Runner]:
    # Unix socket paths are short; pytest's tmp_path may not be.
    root = Path(f"/tmp/hl-{os.getpid()}-{time.monotonic_ns() % 10**6}")
    yield Runner(root, tmp_path)
    sweep(root)


def wait_for(what: Callable[[], Any], limit_s: float = 30) -> Any:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def check_passed(report: dict[str, Any], done: subprocess.CompletedProcess[str]) -> None:
    assert report["passed"], (report["faults"], report["timeline"], done.stderr)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("lb", "fail"),
    [
        ("haptk", "instance"),
        ("haptk", "proxy"),
        ("haptk", "app"),
        pytest.param("haproxy", "instance", marks=pytest.mark.real("haproxy")),
        pytest.param("haproxy", "proxy", marks=pytest.mark.real("haproxy")),
    ],
)
def test_a_drill_passes_and_leaves_nothing(lab: Runner, tmp_path: Path, lb: str, fail: str) -> None:
    html = tmp_path / "report.html"
    done = lab.haptk("lab", "drill", "--lb", lb, "--fail", fail, "--json", "--html", str(html), "--budget-s", "6")
    report = json.loads(done.stdout)
    check_passed(report, done)
    sessions = report["sessions"]
    assert sessions["total"] == 40
    if fail == "app":
        assert report["moves"] == 0
        assert 0 < sessions["stayed"] < 40
        assert sessions["stayed"] + sessions["lost_with_their_server"] == 40
    else:
        assert report["moves"] == 1
        assert sessions["stayed"] == 40
        assert report["requests"]["failed"], "a failure that no client noticed was no failure"
        what = [moment["what"] for moment in report["timeline"]]
        assert {"death detected", "address call sent", "address moved", "first good answer"} <= set(what)
    page = html.read_text()
    assert "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert lab.nothing_left()


def test_learned_sessions_outlive_the_balancer_that_learned_them(lab: Runner) -> None:
    done = lab.haptk("lab", "drill", "--design", "learn", "--fail", "instance", "--json", "--budget-s", "6")
    report = json.loads(done.stdout)
    check_passed(report, done)
    assert (report["moves"], report["sessions"]["total"], report["sessions"]["stayed"]) == (1, 40, 40)
    assert lab.nothing_left()


def test_the_judge_fails_a_drill_that_is_over_its_budget(lab: Runner) -> None:
    done = lab.haptk("lab", "--fail", "instance", "--json", "--budget-s", "0.01", "--sessions", "5")
    assert done.returncode == 1
    assert "over its budget" in json.loads(done.stdout)["faults"][0]
    assert lab.nothing_left()


def test_a_running_lab_answers_refuses_a_second_and_ends(lab: Runner) -> None:
    first = lab.haptk("lab", "up", "--detach", "--json")
    assert first.returncode == 0, first.stderr
    status = lab.status()
    assert status["settled"]
    assert status["holder"] == "lb1"
    second = lab.haptk("lab", "up", "--detach")
    assert (second.returncode, "is running already" in second.stderr) == (79, True)
    assert second.stderr.count("\n") == 1
    assert lab.status()["settled"], "the second start must not disturb the first lab"
    down = lab.haptk("lab", "down")
    assert down.returncode == 0
    assert lab.nothing_left()
    assert "nothing to do" in lab.haptk("lab", "down").stdout


def test_two_drills_in_a_row_on_one_lab(lab: Runner) -> None:
    """The second drill heals what the first one killed, and fails over in the other direction."""
    assert lab.haptk("lab", "up", "--detach").returncode == 0
    for victim in ("lb1", "lb2"):
        done = lab.haptk("lab", "drill", "--fail", "instance", "--json", "--budget-s", "6")
        report = json.loads(done.stdout)
        check_passed(report, done)
        assert report["victim"] == victim
    lab.haptk("lab", "down")
    assert lab.nothing_left()


def test_the_aws_cli_sees_the_owner_that_haptk_sees(lab: Runner) -> None:
    assert lab.haptk("lab", "up", "--detach").returncode == 0
    try:
        status = lab.status()
        variables = environment(status)
        argv = [Path(sys.executable).with_name("aws"), "ec2", "describe-addresses", "--public-ips", status["address"]]
        shown = subprocess.run(argv, env={**os.environ, **variables}, capture_output=True, text=True, check=True)
        owner = json.loads(shown.stdout)["Addresses"][0]
        instances = status["region"]["instances"]
        assert owner["InstanceId"] == instances[status["holder"]]["instance_id"]
        assert owner["NetworkInterfaceId"] == instances[status["holder"]]["interface_id"]
    finally:
        lab.haptk("lab", "down")


def test_nobody_without_the_token_steers_the_region(lab: Runner) -> None:
    """The API, the cloud behind it, what AWS does not have, and the credentials of instances."""
    assert lab.haptk("lab", "up", "--detach").returncode == 0
    try:
        status = lab.status()
        token = (lab.root / "token").read_text()
        assert len(token) >= 32
        assert stat.S_IMODE((lab.root / "token").stat().st_mode) == 0o600
        cloud = json.loads((lab.root / "network.json").read_text())["cloud"]
        move = b"Action=ReleaseAddress&AllocationId=eipalloc-0&Version=2016-11-15"
        form = {"content-type": "application/x-www-form-urlencoded"}
        scope = "/20260101/eu-west-1/ec2/aws4_request, SignedHeaders=host, Signature=0"
        for key in ("AKIALABOPERATOR00000", "AKIALABLB10000000000", token[:-1] + "0x"):
            signed = {**form, "authorization": f"AWS4-HMAC-SHA256 Credential={key}{scope}"}
            assert answer(status["endpoint"], move, signed) == 401
            assert answer(f"http://{cloud}", move, signed) == 401
        assert answer(status["endpoint"], move, form) == 401
        for target in ("/moto-api/reset", "/_lab/associations"):
            assert answer(f"http://{cloud}{target}", b"" if "reset" in target else None, {}) == 401
            assert answer(f"http://{cloud}{target}", None, {"x-haptk-lab-token": "0" * len(token)}) == 401
        assert answer(f"http://{cloud}/_lab/associations", None, {"x-haptk-lab-token": token}) == 200
        for place in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                assert token.encode() not in place.read_bytes()
        assert token not in lab.haptk("lab", "status").stdout
        if os.geteuid() == 0 and shutil.which("setpriv"):
            imds = json.loads((lab.root / "network.json").read_text())["imds"][0]["listen"]
            stranger = [
                "setpriv",
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "curl",
                "-s",
                "-m",
                "5",
                f"http://{imds}/",
            ]
            assert subprocess.run(stranger, capture_output=True).returncode != 0
    finally:
        lab.haptk("lab", "down")


def answer(url: str, body: bytes | None, headers: dict[str, str]) -> int:
    """The status of one request."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=20) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_lab_leaves_nothing(lab: Runner, number: int) -> None:
    process = lab.popen("lab", "up", "--json")
    wait_for(lambda: (lab.root / "control.sock").exists() and lab.status()["phase"] == "ready")
    process.send_signal(number)
    process.communicate(timeout=30)
    wait_for(lab.nothing_left, 15)


def test_kill_9_of_the_command_leaves_nothing(lab: Runner) -> None:
    process = lab.popen("lab", "--sessions", "5")
    wait_for((lab.root / "clients.jsonl").exists)
    process.kill()
    process.communicate()
    wait_for(lab.nothing_left, 15)


def test_kill_9_of_the_supervisor_leaves_nothing_after_down(lab: Runner) -> None:
    assert lab.haptk("lab", "up", "--detach").returncode == 0
    os.kill(lab.status()["pid"], signal.SIGKILL)
    down = lab.haptk("lab", "down")
    assert down.returncode == 0, down.stderr
    assert lab.nothing_left()


@pytest.mark.slow
@pytest.mark.parametrize("name", PROCESSES)
def test_kill_9_of_any_process_in_a_drill_never_gives_two_owners(lab: Runner, name: str) -> None:
    assert lab.haptk("lab", "up", "--detach").returncode == 0
    pid = {process["name"]: process["pid"] for process in lab.status()["processes"]}[name]
    drill = lab.popen("lab", "drill", "--fail", "proxy", "--json", "--sessions", "10")
    clients = lab.root / "clients.jsonl"
    wait_for(lambda: clients.exists() and clients.stat().st_size > 2000)
    time.sleep(1.2)  # into the failure, before the address has settled again
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # the drill itself chose this one
    out, err = drill.communicate(timeout=90)
    assert "Traceback" not in err
    if out:
        owners = json.loads(out)["owners"]
        assert sum(holds is True for holds in owners.values()) <= 1, owners
    else:
        assert err.count("\n") >= 1, "a drill that cannot be judged says why"
    assert lab.haptk("lab", "down").returncode == 0
    assert lab.nothing_left()


def test_a_hung_api_of_the_taker_fails_the_drill_and_is_healed_when_it_answers(lab: Runner) -> None:
    """The fault switch cuts one node off from the API: the judge must see it, and the node must go on when it can."""
    assert lab.haptk("lab", "up", "--detach").returncode == 0
    shown = lab.haptk("lab", "fault", "hang", "--node", "lb2")
    assert "mode=hang" in shown.stdout
    done = lab.haptk("lab", "drill", "--fail", "instance", "--json", "--sessions", "10")
    report = json.loads(done.stdout)
    assert done.returncode == 1
    assert report["outage_s"] > report["budget_s"]
    assert "still with lb1, which is dead" in report["faults"][0]
    assert report["owners"] == {"lb2": False}, "what was asked for is not held"
    assert "no API faults" in lab.haptk("lab", "fault", "clear").stdout
    wait_for(lambda: lab.status()["holder"] == "lb2", 30)
    lab.haptk("lab", "down")
    assert lab.nothing_left()


def test_a_report_that_cannot_be_written_does_not_cost_the_judgement(lab: Runner) -> None:
    done = lab.haptk("lab", "--json", "--sessions", "5", "--html", "/proc/nowhere/report.html", "--budget-s", "6")
    assert done.returncode == 73
    assert json.loads(done.stdout)["passed"]
    assert "cannot write /proc/nowhere/report.html" in done.stderr
    assert lab.nothing_left()

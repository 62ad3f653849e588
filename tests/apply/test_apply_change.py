"""diff and apply on a directory: plan, proof, backup, surprise, and an interruption after every single step."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from haptk.apply.change import Changer
from haptk.apply.plan import CREATE, MODE, REPLACE, SAME, Plan, make
from haptk.apply.prove import prove
from haptk.cli.app import haptk
from haptk.errors import AlreadyRunning, ConfigError, HaptkError, MissingProgram, OperatorError, PeerError
from haptk.render.artefact import Artefact

GOOD = Path(__file__).parents[1] / "cluster" / "good"
OWN = "# Written by haptk\n"


def tell_command(root: Path) -> tuple[str, ...]:
    """A reload that leaves a trace: one line for each time it ran."""
    return ("sh", "-c", f"echo told >> {root}/told")


def artefacts(root: Path, text: str = "new\n") -> list[Artefact]:
    return [
        Artefact(path="/etc/a/deep/one.conf", text=OWN + text, reload=tell_command(root)),
        Artefact(path="/etc/two.conf", text=OWN + text, mode=0o600),
        Artefact(path="/etc/three.conf", text=OWN + "same\n"),
    ]


def before(root: Path) -> None:
    """two.conf and three.conf are there already, from an earlier apply."""
    (root / "etc").mkdir(parents=True)
    (root / "etc/two.conf").write_text(OWN + "old\n")
    (root / "etc/three.conf").write_text(OWN + "same\n")


def tree(root: Path) -> dict[str, tuple[str, int]]:
    return {
        str(path.relative_to(root)): (path.read_text(), path.stat().st_mode & 0o777)
        for path in sorted((root / "etc").rglob("*"))
        if path.is_file()
    }


def kinds(plan: Plan) -> list[str]:
    return [change.kind for change in plan.files]


def test_a_plan_says_what_each_file_needs(tmp_path: Path) -> None:
    before(tmp_path)
    plan = make(artefacts(tmp_path), tmp_path)
    assert kinds(plan) == [CREATE, REPLACE, SAME]
    (tmp_path / "etc/three.conf").chmod(0o600)
    assert kinds(make(artefacts(tmp_path), tmp_path)) == [CREATE, REPLACE, MODE]
    assert "-old" in plan.files[1].diff() and "+new" in plan.files[1].diff()


def test_a_change_is_made_with_backup_mode_and_reload(tmp_path: Path) -> None:
    before(tmp_path)
    changer = Changer(tmp_path / "state")
    changed = changer.carry_out(make(artefacts(tmp_path), tmp_path))
    assert [path.name for path in changed] == ["one.conf", "two.conf"]
    assert tree(tmp_path) == {
        "etc/a/deep/one.conf": (OWN + "new\n", 0o644),
        "etc/three.conf": (OWN + "same\n", 0o644),
        "etc/two.conf": (OWN + "new\n", 0o600),
    }
    (backup,) = (path for path in (tmp_path / "state/backups").rglob("two.conf"))
    assert backup.read_text() == OWN + "old\n"
    assert (tmp_path / "told").read_text() == "told\n"
    assert make(artefacts(tmp_path), tmp_path).changes == ()
    assert changer.carry_out(make(artefacts(tmp_path), tmp_path)) == []


def interrupted(root: Path, at: int) -> bool:
    """Carry the plan out in a child that is killed after step `at`; False when it ended before."""
    child = os.fork()
    if child == 0:
        count = 0

        def step(_: str) -> None:
            nonlocal count
            count += 1
            if count == at:
                os._exit(9)

        code = 1
        try:
            Changer(root / "state", step=step).carry_out(make(artefacts(root), root))
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


def test_an_interruption_after_any_step_is_finished_or_undone(tmp_path: Path) -> None:
    """The state afterwards is whole in the old or in the new way, and one more apply ends in the new one."""
    seen = set()
    for at in range(1, 100):
        root = tmp_path / str(at)
        before(root)
        old = tree(root)
        if not interrupted(root, at):
            break
        changer = Changer(root / "state")
        said = changer.recover()
        found = tree(root)
        new = {
            "etc/a/deep/one.conf": (OWN + "new\n", 0o644),
            "etc/three.conf": (OWN + "same\n", 0o644),
            "etc/two.conf": (OWN + "new\n", 0o600),
        }
        assert found in (old, new), f"step {at}: {said}"
        assert ("undone" in said) == (found == old) or not said
        seen.add(said.rpartition(": ")[2])
        if found == new:
            assert "told" in (root / "told").read_text(), f"step {at}: the daemon was not told"
        assert not list(root.rglob(".*haptk-new*")), f"step {at} left a candidate"
        assert not (root / "state/journal.json").exists()
        changer.carry_out(make(artefacts(root), root))
        assert tree(root) == new and changer.recover() == ""
    else:
        pytest.fail("the child never ended by itself")
    assert at > 10 and {"undone", "finished"} <= seen


def test_an_interrupted_recovery_is_recovered(tmp_path: Path) -> None:
    """Killed while placing, and again after each step of the recovery."""
    for at in range(1, 20):
        root = tmp_path / str(at)
        before(root)
        names: list[str] = []

        def stop(name: str, names: list[str] = names) -> None:
            names.append(name)
            if name == "journal placing":
                raise InterruptedError

        with pytest.raises(InterruptedError):
            Changer(root / "state", step=stop).carry_out(make(artefacts(root), root))
        count = 0

        def again(_: str, at: int = at) -> None:
            nonlocal count
            count += 1
            if count == at:
                raise InterruptedError

        try:
            Changer(root / "state", step=again).recover()
        except InterruptedError:
            Changer(root / "state").recover()
        else:
            assert at > 3
            return
        assert make(artefacts(root), root).changes == ()
        assert not (root / "state/journal.json").exists()


def test_a_file_that_somebody_changed_meanwhile_is_left(tmp_path: Path) -> None:
    before(tmp_path)

    def meddle(name: str) -> None:
        if name == "journal placing":
            (tmp_path / "etc/two.conf").write_text("by hand\n")

    with pytest.raises(OperatorError, match="changed by somebody else"):
        Changer(tmp_path / "state", step=meddle).carry_out(make(artefacts(tmp_path), tmp_path))
    assert (tmp_path / "etc/two.conf").read_text() == "by hand\n"


def test_a_daemon_that_could_not_be_told_is_told_by_the_next_apply(tmp_path: Path) -> None:
    before(tmp_path)
    gate = tmp_path / "gate"
    one = Artefact(
        path="/etc/two.conf", text=OWN, reload=("sh", "-c", f"test -e {gate} && echo told >> {tmp_path}/told")
    )
    with pytest.raises(PeerError, match="run haptk apply again"):
        Changer(tmp_path / "state").carry_out(make([one], tmp_path))
    gate.touch()
    assert Changer(tmp_path / "state").recover().endswith("finished")
    assert (tmp_path / "told").read_text() == "told\n"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("server a\nserver b\nserver c\n", "server a\n", "2 of 3 servers would go: b, c"),
        ("server a\nserver b\nserver c\n", "server a\nserver b\nserver d\n", ""),
        ("vrrp_instance a {\n", "vrrp_instance b {\n", "1 of 1 VRRP instances would go: a"),
        ("lb1 eip::1\nlb2 eip::2\n", "lb1 eip::1\n", "1 of 2 resources would go: eip::2"),
    ],
)
def test_losing_more_than_a_third_is_a_surprise(old: str, new: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_text(OWN + old)
    plan = make([Artefact(path="/x", text=OWN + new)], tmp_path)
    assert [surprise.partition(": ")[2] for surprise in plan.surprises] == ([words] if words else [])


def test_a_file_of_somebody_else_is_a_surprise(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("mine\n")
    plan = make([Artefact(path="/x", text=OWN)], tmp_path)
    assert "did not write" in plan.surprises[0]


def test_links_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to("/dev/null")
    with pytest.raises(OperatorError, match="not a plain file"):
        make([Artefact(path="/x", text=OWN)], tmp_path)


def test_an_existing_key_is_kept_and_its_mode_is_mended(tmp_path: Path) -> None:
    key = Artefact(path="/keys", text="fresh\n", mode=0o600, secret=True, keep=True)
    fresh = make([key], tmp_path)
    assert "fresh" not in fresh.files[0].diff().replace("a fresh key", "")
    (tmp_path / "keys").write_text("of the pair\n")
    plan = make([key], tmp_path)
    assert kinds(plan) == [MODE] and "of the pair" not in plan.files[0].diff()
    Changer(tmp_path / "state").carry_out(plan)
    assert (tmp_path / "keys").read_text() == "of the pair\n"
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o600


def judged(text: str, tmp_path: Path, **options: object) -> Callable[[], object]:
    helper = Artefact(path="/etc/helper", text="#!/bin/sh\nexit 0\n", mode=0o755)
    config = Artefact(path="/etc/config", text=text, validate=("sh", "{}"), **options)  # type: ignore[arg-type]
    plan = make([helper, config], tmp_path)
    return lambda: prove(plan, tmp_path / "scratch", strict=True)


def test_candidates_are_judged_beside_each_other_before_anything_is_there(tmp_path: Path) -> None:
    assert judged("/etc/helper\n", tmp_path)()
    assert not (tmp_path / "etc").exists() and not (tmp_path / "scratch").exists()


def test_a_refusal_names_file_line_and_words_and_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        judged("echo broken at line 7 >&2; exit 1\n", tmp_path)()
    assert str(caught.value) == "/etc/config:7: sh refuses it, nothing was changed: broken at line 7"
    assert not (tmp_path / "etc").exists()


def test_a_missing_program_stops_a_machine_and_not_an_image(tmp_path: Path) -> None:
    with pytest.raises(MissingProgram, match="no-such-program"):
        judged("true\n", tmp_path, needs=("no-such-program",))()


def invoke(root: Path, tier: str, command: str, *argv: str) -> Result:
    options = ["--config", str(GOOD / f"{tier}.toml"), command, "--root", str(root), "--node", "lb1", *argv]
    return CliRunner().invoke(haptk, options, standalone_mode=False)


@pytest.mark.parametrize("tier", ["round-robin", "standby-heartbeat"])
@pytest.mark.real("haproxy")
def test_diff_apply_and_nothing_to_do(tier: str, tmp_path: Path) -> None:
    first = invoke(tmp_path, tier, "diff")
    assert first.return_value == 2 and "+global" in first.stdout
    dry = invoke(tmp_path, tier, "apply", "--dry-run")
    assert dry.return_value == 2 and not (tmp_path / "etc").exists()
    asked = invoke(tmp_path, tier, "apply")
    assert isinstance(asked.exception, OperatorError) and "--yes" in str(asked.exception)
    assert not (tmp_path / "etc").exists()
    done = invoke(tmp_path, tier, "apply", "--yes")
    assert done.return_value == 0 and "files written" in done.stdout, done.output
    assert (tmp_path / "etc/haproxy/haproxy.cfg").exists()
    second = invoke(tmp_path, tier, "apply", "--yes")
    assert second.return_value == 0 and second.stdout.strip() == "nothing to do"
    assert invoke(tmp_path, tier, "diff").return_value == 0
    (tmp_path / "etc/haproxy/haproxy.cfg").write_text("by hand\n")
    refused = invoke(tmp_path, tier, "apply", "--yes")
    assert isinstance(refused.exception, OperatorError) and "--force" in str(refused.exception)
    assert (tmp_path / "etc/haproxy/haproxy.cfg").read_text() == "by hand\n"
    assert invoke(tmp_path, tier, "apply", "--yes", "--force").return_value == 0
    shown = json.loads(invoke(tmp_path, tier, "diff", "--json").stdout)
    assert shown["changes"] == [] and shown["summary"] == "nothing to do"


def test_keys_reach_no_screen_and_come_from_the_other_node(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    first = invoke(one, "standby-heartbeat", "apply", "--yes")
    key = (one / "etc/ha.d/authkeys").read_text().split()[-1]
    second = invoke(two, "standby-heartbeat", "apply", "--yes", "--key-file", str(one / "etc/ha.d/authkeys"))
    assert (two / "etc/ha.d/authkeys").read_text().split()[-1] == key
    assert len(key) == 64 and key not in first.output + second.output


def test_two_applies_at_once_are_one(tmp_path: Path) -> None:
    changer = Changer(tmp_path / "var/lib/haptk/apply")
    changer.lock.acquire()
    result = invoke(tmp_path, "round-robin", "apply", "--yes")
    assert isinstance(result.exception, AlreadyRunning)
    changer.lock.release()


def test_a_machine_that_is_no_balancer_is_told(tmp_path: Path) -> None:
    result = CliRunner().invoke(haptk, ["--config", str(GOOD / "round-robin.toml"), "diff", "--root", str(tmp_path)])
    assert isinstance(result.exception, HaptkError) and "say --node" in str(result.exception)


def test_what_only_the_machine_can_judge_is_not_judged_for_an_image(tmp_path: Path) -> None:
    """keepalived -t wants the interfaces to exist: for an image its no would be about the wrong machine."""
    one = Artefact(path="/x", text=OWN, validate=("false",), judged_here=True)
    plan = make([one], tmp_path)
    (verdict,) = prove(plan, tmp_path / "scratch", strict=False)
    assert "only on the machine itself" in verdict.skipped
    with pytest.raises(ConfigError, match="false refuses it"):
        prove(plan, tmp_path / "scratch", strict=True)


def test_systemd_reads_its_units_before_a_daemon_is_told(tmp_path: Path) -> None:
    unit = Artefact(path="/etc/systemd/system/x.service", text=OWN, reload=("systemctl", "restart", "x"))
    drop_in = Artefact(path="/etc/systemd/system/y.service.d/haptk.conf", text=OWN)
    config = Artefact(path="/etc/x", text=OWN, reload=("systemctl", "restart", "x"))
    assert make([config, unit, drop_in], tmp_path).reloads() == (
        ("systemctl", "daemon-reload"),
        ("systemctl", "enable", "x.service"),
        ("systemctl", "restart", "x"),
    )

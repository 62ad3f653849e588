"""`haptk init`: by flags, by questions, and from files whose copied faults it names."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from haptk.cli.app import haptk
from haptk.cluster import faults
from haptk.cluster.discover import discover, kind_of
from haptk.cluster.draft import Draft
from haptk.cluster.load import load
from haptk.errors import CannotWrite, ConfigError, HaptkError, OperatorError
from haptk.formats import ha_cf, haresources, keepalived_conf
from haptk.render import catalogue
from haptk.render.artefact import Site

FOUND = Path(__file__).parent / "found"
NODES = ["--balancer", "lb1=10.0.1.10@eu-west-1a,i-0123456789abcdef1,eni-0123456789abcdef1"]
NODES += ["--balancer", "lb2=10.0.2.10@eu-west-1b"]
FLAGS = [*NODES, "--address", "web-a=203.0.113.10:lb1,lb2", "--server", "app1=10.0.1.20:8080@eu-west-1a"]
FLAGS += ["--server", "app2=10.0.2.20", "--cookie", "JSESSIONID", "--contract", "keepalived"]
SITE = Site("0" * 64, (("heartbeat", "#!/bin/sh\n"), ("keepalived", "#!/bin/sh\n"), ("ocf", "#!/bin/sh\n")))


def invoke(*argv: str, **options: object) -> Result:
    return CliRunner().invoke(haptk, ["init", *argv], standalone_mode=False, **options)  # type: ignore[arg-type]


def found(*names: str) -> list[tuple[str, str]]:
    return [(name, (FOUND / name).read_text()) for name in names]


def test_flags_make_a_file_that_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "etc" / "cluster.toml"
    result = invoke(str(path), *FLAGS)
    assert result.exception is None, result.output
    cluster = load(path.read_text()).cluster
    assert (cluster.cluster.pattern, cluster.cluster.contract) == ("standby", "keepalived")
    assert cluster.balancers[0].interface == "eni-0123456789abcdef1"
    assert cluster.servers[1].port == 8080 and cluster.session.design == "prefix"
    again = invoke(str(path), *FLAGS)
    assert isinstance(again.exception, CannotWrite) and "--force" in str(again.exception)
    assert invoke(str(path), *FLAGS, "--force").exception is None


@pytest.mark.parametrize(
    ("pattern", "more"),
    [
        ("standby", []),
        (
            "elb",
            [
                "--elb",
                "application",
                "--vpc",
                "vpc-0123456789abcdef0",
                "--subnet",
                "eu-west-1a=subnet-0123456789abcdef1",
                "--subnet",
                "eu-west-1b=subnet-0123456789abcdef2",
            ],
        ),
        ("round-robin", ["--dns-name", "www.example.com", "--zone-id", "Z0123456789ABCDEFGHIJ"]),
    ],
)
def test_what_init_writes_every_generator_takes(pattern: str, more: list[str]) -> None:
    flags = list(FLAGS)
    if pattern == "round-robin":
        flags = [
            *NODES,
            "--address",
            "a=203.0.113.10:lb1",
            "--address",
            "b=203.0.113.11:lb2",
            "--server",
            "s=10.0.1.20",
        ]
    if pattern == "elb":
        flags = ["--server", "s=10.0.1.20@eu-west-1a", "--cookie", "JSESSIONID"]
    result = invoke("-", "--pattern", pattern, *flags, *more)
    assert result.exception is None, result.output
    cluster = load(result.stdout).cluster
    for balancer in cluster.balancers:
        assert catalogue.files_of_node(cluster, balancer.name, SITE)
    assert catalogue.kinds_of_tier(cluster)
    for kind in catalogue.kinds_of_tier(cluster):
        assert catalogue.OF_TIER[kind](cluster)


def test_a_pair_of_keepalived_files_becomes_a_tier() -> None:
    result = invoke("-", "--from", ",".join(str(FOUND / name) for name in ("lb1.keepalived.conf", "lb2.keepalived.conf")),
                    "--from", str(FOUND / "haproxy.cfg"), *NODES)  # fmt: skip
    assert result.exception is None, result.output
    cluster = load(result.stdout).cluster
    (address,) = cluster.addresses
    assert (address.active, address.standby, address.public_ip) == ("lb1", ("lb2",), "203.0.113.10")
    assert [server.id for server in cluster.servers] == ["A", "B", None]
    assert cluster.session.design == "prefix" and cluster.frontend.style == "classic" and cluster.check.interval == 5
    assert "[F101]" in result.stderr and "ipriority" in result.stderr


def test_heartbeats_files_become_a_tier_and_what_is_wrong_in_them_is_refused() -> None:
    draft = discover(found("haresources", "ha.cf", "haproxy.cfg")).draft
    assert draft.tables["timing"]["initdead"] == "2m"
    assert draft.arrays["addresses"]["address-1"]["standby"] == ["lb2"]
    names = ",".join(str(FOUND / name) for name in ("haresources", "ha.cf", "haproxy.cfg"))
    result = invoke("-", "--from", names, *NODES)
    assert isinstance(result.exception, ConfigError)
    assert "deadtime 3s has to be more than twice keepalive 2s" in str(result.exception)


@pytest.mark.parametrize(
    ("name", "line", "code"),
    [
        ("lb1.keepalived.conf", 1, "F107"), ("lb1.keepalived.conf", 7, "F101"), ("lb1.keepalived.conf", 14, "F102"),
        ("lb1.keepalived.conf", 8, "F103"), ("lb1.keepalived.conf", 16, "F104"), ("lb1.keepalived.conf", 11, "F105"),
        ("lb2.keepalived.conf", 9, "F106"), ("lb2.keepalived.conf", 19, "F108"), ("lb1.keepalived.conf", 6, "F109"),
        ("ha.cf", 5, "F111"), ("ha.cf", 1, "F112"), ("ha.cf", 1, "F113"), ("ha.cf", 3, "F114"),
        ("haproxy.cfg", 13, "F123"), ("haproxy.cfg", 16, "F122"), ("haproxy.cfg", 11, "F124"),
    ],
)  # fmt: skip
def test_a_copied_fault_is_named_where_it_stands(name: str, line: int, code: str) -> None:
    names = ["lb1.keepalived.conf", "lb2.keepalived.conf"] if "keepalived" in name else [name]
    assert (name, line, code) in {(one.file, one.line, one.code) for one in discover(found(*names)).problems}


def test_appsession_is_named_and_becomes_learning() -> None:
    text = (
        (FOUND / "haproxy.cfg")
        .read_text()
        .replace("cookie JSESSIONID prefix", "appsession PHPSESSID len 32 timeout 3h")
    )
    result = discover([("old.cfg", text)])
    assert "F121" in {problem.code for problem in result.problems}
    assert result.draft.tables["session"] == {"design": "learn", "cookie": "PHPSESSID"}


def test_every_fault_is_tested() -> None:
    text = Path(__file__).read_text()
    assert all(f'"{code}"' in text for code in faults.FAULTS)


@pytest.mark.parametrize(
    "tier", sorted((FOUND.parents[1] / "cluster" / "good").glob("standby-*.toml")), ids=lambda p: p.stem
)
def test_what_haptk_generates_has_none_of_the_faults(tier: Path) -> None:
    """Read back by the same eyes: nothing but the reminder of the security group."""
    cluster = load(tier.read_text()).cluster
    for node in ("lb1", "lb2"):
        files = {Path(one.path).name: one.text for one in catalogue.files_of_node(cluster, node, SITE)}
        chosen = [(name, text) for name, text in files.items() if kind_of(text)]
        assert len(chosen) >= 2
        codes = {problem.code for problem in discover(chosen).problems}
        assert codes <= ({"F112", "F124"} if cluster.frontend.style == "classic" else {"F112"})
        if "ha.cf" in files:
            # respawn is for the real heartbeat: haptk's own checks by itself and refuses it.
            text = "".join(line for line in files["ha.cf"].splitlines(True) if not line.startswith("respawn"))
            parsed = ha_cf.parse(text, "ha.cf")
            assert parsed.nodes == ["lb1", "lb2"] and parsed.auto_failback == "off"
            assert haresources.parse(files["haresources"], "haresources", parsed.nodes)


def test_what_is_missing_is_said_and_what_is_known_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    result = invoke(str(path), "--from", str(FOUND / "haproxy.cfg"))
    assert isinstance(result.exception, ConfigError)
    assert "pattern is missing" in str(result.exception) and "[[regions]] is missing" in str(result.exception)
    assert not path.exists()
    assert tomllib.loads((tmp_path / "cluster.toml.draft").read_text())["servers"][0]["name"] == "webA"


@pytest.mark.parametrize(
    ("argv", "kind", "words"),
    [
        ([], OperatorError, "nothing is said"),
        (["--balancer", "lb1"], OperatorError, "NAME=PRIVATE_IP@ZONE"),
        (["--server", "a=b"], OperatorError, "NAME=IP"),
        (["--from", "/no/such"], HaptkError, "No such file"),
        (["--from", "/etc/hostname"], ConfigError, "neither a haproxy.cfg"),
    ],
)
def test_what_makes_no_sense_is_refused(argv: list[str], kind: type[HaptkError], words: str) -> None:
    result = invoke("-", *argv)
    assert isinstance(result.exception, kind) and words in str(result.exception)


def test_questions_are_asked_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("haptk.cli.init._somebody_there", lambda: True)
    answers = [
        "shop",
        "standby",
        "pacemaker",
        NODES[1],
        NODES[3],
        "",
        "web-a=203.0.113.10:lb1,lb2",
        "",
        "app=10.0.1.20",
        "",
        "",
    ]
    said = iter(answers)
    monkeypatch.setattr("click.prompt", lambda *_args, **_options: next(said))
    result = invoke("-")
    assert result.exception is None, result.output
    cluster = load(result.stdout).cluster
    assert (cluster.cluster.name, cluster.cluster.contract) == ("shop", "pacemaker")
    assert cluster.session.design == "stateless"


@pytest.mark.parametrize(
    ("pattern", "answers"),
    [
        ("round-robin", [NODES[1], NODES[3], "", "a=203.0.113.10:lb1", "b=203.0.113.11:lb2", "", "app=10.0.1.20", "",
                         "JSESSIONID", "www.example.com", "Z0123456789ABCDEFGHIJ"]),
        ("elb", ["application", "vpc-0123456789abcdef0", "eu-west-1a=subnet-0123456789abcdef1",
                 "eu-west-1b=subnet-0123456789abcdef2", "", "app=10.0.1.20", "", "JSESSIONID"]),
        ("elb", ["network", "vpc-0123456789abcdef0", "eu-west-1a=subnet-0123456789abcdef1", "",
                 "a=203.0.113.10:eu-west-1a,eipalloc-0123456789abcdef1", "", "app=10.0.1.20:81,i-0123456789abcdef1", ""]),
    ],
    ids=["round-robin", "application", "network"],
)  # fmt: skip
def test_the_questions_of_the_other_patterns_make_a_whole_declaration(
    pattern: str, answers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("haptk.cli.init._somebody_there", lambda: True)
    said = iter(["shop", pattern, *answers])
    monkeypatch.setattr("click.prompt", lambda *_args, **_options: next(said))
    result = invoke("-")
    assert result.exception is None, result.output
    cluster = load(result.stdout).cluster
    assert cluster.cluster.pattern == pattern and list(said) == []
    if answers[0] == "network":
        assert cluster.addresses[0].allocation == "eipalloc-0123456789abcdef1"
        assert (cluster.servers[0].instance, cluster.servers[0].port) == ("i-0123456789abcdef1", 81)


def test_json_carries_the_text_and_the_faults() -> None:
    result = invoke("-", "--json", "--from", str(FOUND / "haproxy.cfg"), *FLAGS[:6], "--contract", "keepalived")
    assert result.exception is None, result.output
    body = json.loads(result.stdout)
    assert load(body["cluster_toml"]) and any("[F122]" in fault for fault in body["faults"])


def tag(client: object, *ids: str, **tags: str) -> None:
    pairs = [{"Key": key.replace("__", ":"), "Value": value} for key, value in tags.items()]
    client.create_tags(Resources=list(ids), Tags=pairs)  # type: ignore[attr-defined]


def test_a_tier_is_read_from_its_tags(fresh_cloud: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from haptk.lab.plan import AddressPlan, InstancePlan, Plan, SubnetPlan
    from haptk.lab.seed import ec2_client, seed

    machines = [InstancePlan(name, "ab"[n % 2], f"127.91.{n % 2 + 1}.{10 + n}", f"AKIA{n}") for n, name in
                enumerate(["lb1", "lb2", "app1", "app2", "other"])]  # fmt: skip
    subnets = (SubnetPlan("a", "127.91.1.0/24", "a"), SubnetPlan("b", "127.91.2.0/24", "b"))
    addresses = (AddressPlan("web-a", "127.91.200.10", "lb1"), AddressPlan("strange", "127.91.200.11"))
    region = seed(fresh_cloud, Plan("eu-west-1", "127.91.0.0/16", subnets, tuple(machines), addresses))
    client = ec2_client(fresh_cloud, "eu-west-1")
    of = {one.name: one.instance_id for one in region.instances}
    tag(client, of["lb1"], of["lb2"], haptk__cluster="shop", haptk__role="balancer")
    tag(client, of["app1"], of["app2"], haptk__cluster="shop", haptk__role="server")
    tag(client, region.addresses[0].allocation_id, haptk__cluster="shop")
    for name, value in (("ENDPOINT_URL", fresh_cloud), ("ACCESS_KEY_ID", "test"), ("SECRET_ACCESS_KEY", "test")):
        monkeypatch.setenv(f"AWS_{name}", value)
    result = invoke("-", "--from-aws", "shop", "--region", "eu-west-1", "--contract", "keepalived", "--cookie", "S")
    assert result.exception is None, result.output
    cluster = load(result.stdout).cluster
    assert cluster.cluster.name == "shop"
    assert [(node.name, node.instance) for node in cluster.balancers] == [("lb1", of["lb1"]), ("lb2", of["lb2"])]
    assert [server.name for server in cluster.servers] == ["app1", "app2"]
    (address,) = cluster.addresses
    assert (address.active, address.standby, address.public_ip) == ("lb1", ("lb2",), "127.91.200.10")
    nobody = invoke("-", "--from-aws", "nobody", "--region", "eu-west-1")
    assert isinstance(nobody.exception, HaptkError) and "haptk:cluster=nobody" in str(nobody.exception)


_WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\x7f", min_codepoint=32), max_size=20)


@given(_WORDS, _WORDS)
def test_a_draft_is_toml_whatever_was_said(name: str, comment: str) -> None:
    draft = Draft()
    draft.put("addresses", name, standby=[comment], private_ips={comment: name})
    (element,) = tomllib.loads(draft.text())["addresses"]
    assert element == {"name": name, "standby": [comment], "private_ips": {comment: name}}


@given(st.text(alphabet="{}#! \n\"'abc1", max_size=60))
def test_no_text_breaks_the_reader_of_keepalived(text: str) -> None:
    try:
        root = keepalived_conf.parse(text, "x")
    except ConfigError:
        return
    assert all(block.words for block in root.walk())

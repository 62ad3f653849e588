"""Everything that a declared tier generates: golden files for review, and the verdict of each file's real program."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from haptk.cluster import units
from haptk.cluster.load import load
from haptk.cluster.schema import Cluster
from haptk.formats import authkeys
from haptk.render import catalogue, elb, iam, network, route53
from haptk.render.artefact import Artefact, Site
from haptk.render.keepalived import startup_delay

HERE = Path(__file__).parent
GOOD = sorted((HERE.parent / "cluster" / "good").glob("*.toml"))
GOLDEN = HERE / "golden"
SCRIPT = "#!/bin/sh\n# The contract's script stands here.\n"
SITE = Site("0" * 64, (("heartbeat", SCRIPT), ("keepalived", SCRIPT), ("ocf", SCRIPT)))
DESIGNS = ("stateless", "prefix", "insert", "rewrite", "learn")


def tier(name: str, **changes: object) -> Cluster:
    cluster = load((HERE.parent / "cluster" / "good" / f"{name}.toml").read_text()).cluster
    return msgspec.structs.replace(cluster, **changes)


def everything(cluster: Cluster) -> Iterator[Artefact]:
    """What `generate all` makes, and cloud-init for each node."""
    kinds = catalogue.kinds_of_node(cluster)
    for balancer in cluster.balancers:
        for kind in [*kinds, "cloud-init"]:
            yield from catalogue.OF_NODE[kind](cluster, balancer.name, SITE)
    for kind in catalogue.kinds_of_tier(cluster):
        yield from catalogue.OF_TIER[kind](cluster)


def with_pacemaker(cluster: Cluster) -> Cluster:
    return msgspec.structs.replace(cluster, cluster=msgspec.structs.replace(cluster.cluster, contract="pacemaker"))


TIERS = {path.stem: load(path.read_text()).cluster for path in GOOD}
TIERS["standby-pacemaker"] = with_pacemaker(TIERS["standby-keepalived"])
pair = TIERS["standby-keepalived"]
spare = msgspec.structs.replace(pair.balancers[1], name="lb3", private_ip="10.0.2.11", interface=None)
TIERS["standby-pool"] = msgspec.structs.replace(
    pair,
    cluster=msgspec.structs.replace(pair.cluster, contract="pool"),
    balancers=(*pair.balancers, spare),
    addresses=(msgspec.structs.replace(pair.addresses[0], standby=()),),
)
haptk_tier = TIERS["standby-heartbeat"]
TIERS["standby-haptk"] = msgspec.structs.replace(
    haptk_tier, cluster=msgspec.structs.replace(haptk_tier.cluster, proxy="haptk", heartbeat="haptk")
)

with_lease = TIERS["standby-haptk"]
TIERS["standby-haptk-lease"] = msgspec.structs.replace(
    with_lease,
    timing=msgspec.structs.replace(with_lease.timing, lease="haptk-leases", lease_ttl=units.Seconds.parse("12s")),
)
round_robin = TIERS["round-robin"]
assert round_robin.dns is not None
own_dns = {"provider": "rfc2136", "server": "10.0.0.53", "policy": "simple", "zone_id": None, "health_checks": False}
TIERS["round-robin-own-dns"] = msgspec.structs.replace(
    round_robin, dns=msgspec.structs.replace(round_robin.dns, **own_dns)
)


@pytest.mark.parametrize("name", sorted(TIERS))
def test_golden_files(name: str, request: pytest.FixtureRequest) -> None:
    """A change of a template shows in review; `--regenerate` rewrites them."""
    root = GOLDEN / name
    made = {f"{one.node}/{one.path.lstrip('/')}".lstrip("/"): one.text for one in everything(TIERS[name])}
    if request.config.getoption("--regenerate"):
        shutil.rmtree(root, ignore_errors=True)
        for path, text in made.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
    found = {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}
    assert found == made, "run scripts/test tests/render --regenerate"


@pytest.mark.parametrize("name", sorted(TIERS))
def test_text_files_end_in_a_line_and_have_no_loose_ends(name: str) -> None:
    for one in everything(TIERS[name]):
        assert one.text.endswith("\n") and not one.text.endswith("\n\n"), one.path
        assert "{{" not in one.text and "None" not in one.text.split(), one.path
        assert not re.search(r"[ \t]+$", one.text, re.M), one.path
        assert one.mode in (0o644, 0o755, 0o600), one.path
        assert one.secret == (one.mode == 0o600)


def run(argv: list[str], **options: object) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}{done.stderr}"
    return str(done.stdout + done.stderr)


CONFIGS = [(design, style) for design in DESIGNS for style in ("modern", "classic")]


def designed(design: str, style: str) -> Cluster:
    cluster = TIERS["round-robin"]
    cookie = {"stateless": None, "insert": "SRV"}.get(design, "JSESSIONID")
    session = msgspec.structs.replace(cluster.session, design=design, cookie=cookie, secure=True)
    frontend = msgspec.structs.replace(cluster.frontend, style=style)
    return msgspec.structs.replace(cluster, session=session, frontend=frontend)


@pytest.mark.real("haproxy")
@pytest.mark.parametrize(("design", "style"), CONFIGS)
def test_haproxy_accepts_every_design_without_a_warning(design: str, style: str, tmp_path: Path) -> None:
    for one in catalogue.OF_NODE["haproxy"](designed(design, style), "lb2", SITE):
        path = tmp_path / "haproxy.cfg"
        path.write_text(one.text)
        argv = [word.replace("{}", str(path)) for word in one.validate if word != "-q"]
        said = run(argv)
        assert "Configuration file is valid" in said and "WARNING" not in said.upper().replace("NO WARNING", ""), said


@pytest.mark.parametrize(("design", "style"), CONFIGS)
def test_haptk_reads_what_it_writes(design: str, style: str) -> None:
    from haptk.formats.haproxy_cfg import Source, parse

    cluster = designed(design, style)
    chosen = msgspec.structs.replace(cluster, cluster=msgspec.structs.replace(cluster.cluster, proxy="haptk"))
    (one,) = catalogue.OF_NODE["haproxy"](chosen, "lb1", SITE)
    assert [str(problem) for problem in parse([Source("haproxy.cfg", one.text)]).errors] == []


@pytest.fixture
def namespace() -> Iterator[str]:
    """A network namespace with an interface ens5, which keepalived -t demands."""
    name = f"haptk-t{os.getpid()}"
    run(["ip", "netns", "add", name])
    try:
        run(["ip", "-n", name, "link", "add", "ens5", "type", "veth", "peer", "name", "eth0"])
        for device in ("lo", "ens5", "eth0"):
            run(["ip", "-n", name, "link", "set", device, "up"])
        yield name
    finally:
        run(["ip", "netns", "del", name])


def placed(found: tuple[Artefact, ...], root: Path) -> None:
    """Write files below a root, whose name stands in their texts in place of `/`."""
    for one in found:
        path = root / one.path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            one.text.replace("/etc/keepalived/", f"{root}/etc/keepalived/").replace(
                "/usr/libexec", f"{root}/usr/libexec"
            )
        )
        path.chmod(one.mode)


@pytest.mark.real("keepalived")
@pytest.mark.root
@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("name", ["standby-keepalived", "standby-heartbeat"])
def test_keepalived_accepts_its_file(name: str, back: bool, namespace: str, tmp_path: Path) -> None:
    cluster = tier(name)
    cluster = msgspec.structs.replace(
        cluster,
        cluster=msgspec.structs.replace(cluster.cluster, contract="keepalived"),
        timing=msgspec.structs.replace(cluster.timing, auto_failback=back),
    )
    for node in ("lb1", "lb2"):
        found = catalogue.OF_NODE["keepalived"](cluster, node, SITE)
        placed(found, tmp_path)
        # The script security of keepalived wants every directory above to be root's.
        argv = [
            "ip",
            "netns",
            "exec",
            namespace,
            "keepalived",
            "-t",
            "-f",
            str(tmp_path / "etc/keepalived/keepalived.conf"),
        ]
        said = run(argv)
        assert not said.strip(), said


@pytest.mark.parametrize("name", sorted(TIERS))
def test_shell_files_parse(name: str, tmp_path: Path) -> None:
    scripts = [one for one in everything(TIERS[name]) if one.text.startswith("#!/bin/sh")]
    for one in scripts:
        (tmp_path / "script").write_text(one.text)
        run(["sh", "-n", str(tmp_path / "script")])
        assert one.mode == 0o755 or not one.on_disk


def test_haptk_accepts_the_files_of_its_own_heartbeat(tmp_path: Path) -> None:
    """By the command that each of them names; a file with an unknown word is refused."""
    haptk = str(Path(sys.executable).parent / "haptk")
    tier = TIERS["standby-haptk"]
    tier = msgspec.structs.replace(tier, cluster=msgspec.structs.replace(tier.cluster, haptk=haptk))
    found = catalogue.OF_NODE["heartbeat"](tier, "lb1", SITE)
    assert [Path(one.path).name for one in found] == ["ha.cf", "haresources", "authkeys"]
    for one in found:
        path = tmp_path / Path(one.path).name
        path.write_text(one.text)
        path.chmod(one.mode)
        run([word.replace("{}", str(path)) for word in one.validate])
    (tmp_path / "ha.cf").write_text(found[0].text.replace("keepalive", "kepalive"))
    argv = [word.replace("{}", str(tmp_path / "ha.cf")) for word in found[0].validate]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "kepalive" in done.stdout


@pytest.mark.real("systemd-analyze")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    haptk = str(Path(sys.executable).parent / "haptk")
    cluster = TIERS["standby-haptk"]
    cluster = msgspec.structs.replace(cluster, cluster=msgspec.structs.replace(cluster.cluster, haptk=haptk))
    units = catalogue.OF_NODE["systemd"](cluster, "lb1", SITE)
    assert [Path(one.path).name for one in units] == ["haptk-proxy.service", "haptk-heartbeat.service"]
    pool = TIERS["standby-pool"]
    pool = msgspec.structs.replace(pool, cluster=msgspec.structs.replace(pool.cluster, haptk=haptk))
    units += catalogue.OF_NODE["pool"](pool, "lb3", SITE)[1:]
    for one in units:
        (tmp_path / Path(one.path).name).write_text(one.text)
    for one in units:
        run(["systemd-analyze", "verify", "--man=no", str(tmp_path / Path(one.path).name)])


@pytest.mark.real("cfn-lint")
def test_cloudformation_accepts_the_stacks(tmp_path: Path) -> None:
    paths = []
    for name, cluster in TIERS.items():
        for one in everything(cluster):
            if one.validate[:1] == ("cfn-lint",):
                paths.append(tmp_path / f"{name}-{Path(one.path).name}")
                paths[-1].write_text(one.text)
    assert len(paths) >= 6
    argv = [str(Path(sys.executable).parent / "cfn-lint")]
    run([argv[0], "--regions", "eu-west-1", "--", *map(str, paths)])


def shape_problems(service: str, operation: str, parameters: dict[str, object]) -> str:
    """What botocore's own model says about the parameters of a call."""
    import botocore.session
    from botocore.validate import ParamValidator

    model = botocore.session.get_session().get_service_model(service).operation_model(operation)
    return ParamValidator().validate(parameters, model.input_shape).generate_report()


def test_route53_takes_the_batch_and_the_health_checks() -> None:
    documents = {one.path: json.loads(one.text) for one in route53.route53(TIERS["round-robin"])}
    batch = documents["aws/route53-change-batch.json"]
    zone = "Z0123456789ABCDEFGHIJ"
    assert shape_problems("route53", "ChangeResourceRecordSets", {"HostedZoneId": zone, "ChangeBatch": batch}) == ""
    weights = [change["ResourceRecordSet"]["Weight"] for change in batch["Changes"]]
    assert weights == [10, 10, 5]
    for call in documents["aws/route53-health-checks.json"]:
        assert shape_problems("route53", "CreateHealthCheck", call) == ""
        assert call["HealthCheckConfig"]["FullyQualifiedDomainName"] == "www.example.com"


def test_health_check_ids_of_the_caller_get_into_the_records() -> None:
    records = route53.record_sets(TIERS["round-robin"], {"web-2": "abc"})
    assert [one.get("HealthCheckId") for one in records] == [None, "abc", None]


@pytest.mark.parametrize("kind", ["network", "application"])
@pytest.mark.parametrize("design", ["stateless", "insert", "prefix"])
def test_elb_takes_the_calls(kind: str, design: str) -> None:
    cluster = TIERS["elb-network"]
    assert cluster.elb is not None
    cluster = msgspec.structs.replace(
        cluster,
        addresses=cluster.addresses if kind == "network" else (),
        elb=msgspec.structs.replace(cluster.elb, type=kind),
        session=msgspec.structs.replace(cluster.session, design=design, cookie=None if design == "stateless" else "JSESSIONID"),
    )  # fmt: skip
    calls = json.loads(elb.elb(cluster)[1].text)
    first = "CreateLoadBalancer" if kind == "network" else "CreateSecurityGroup"
    assert calls[0]["Operation"] == first, "the default group of a VPC lets no client in"
    for call in calls:
        assert shape_problems(call["Service"], call["Operation"], call["Parameters"]) == "", call["Operation"]
    (changed,) = [one for one in calls if one["Operation"] == "ModifyTargetGroupAttributes"]
    attributes = {one["Key"]: one["Value"] for one in changed["Parameters"]["Attributes"]}
    expected = {"stateless": None, "insert": "lb_cookie", "prefix": "app_cookie"}[design]
    assert attributes.get("stickiness.type") == (expected if kind == "application" else None)


def test_a_client_stays_by_its_address_where_no_cookie_is_seen() -> None:
    cluster = TIERS["elb-network"]
    assert cluster.elb is not None and elb.stickiness(cluster) == {"stickiness.enabled": "false"}
    kept = msgspec.structs.replace(cluster, elb=msgspec.structs.replace(cluster.elb, source_ip=True))
    assert elb.stickiness(kept) == {"stickiness.enabled": "true", "stickiness.type": "source_ip"}


def test_https_has_a_listener_of_its_own_and_http_leads_there() -> None:
    secure, plain = elb.wanted(TIERS["elb-application"]).listeners
    assert (secure["Port"], secure["Protocol"]) == (443, "HTTPS") and secure["Certificates"]
    assert plain["Port"] == 80 and plain["DefaultActions"][0]["RedirectConfig"]["Port"] == "443"
    ports = [rule["FromPort"] for rule in elb.wanted(TIERS["elb-application"]).ingress]
    assert ports == [443, 80]


def test_balancers_of_ones_own_are_the_targets_and_keep_the_sessions() -> None:
    made = elb.wanted(TIERS["elb-balancers"])
    assert made.targets == [{"Id": "i-0123456789abcdef1", "Port": 80}, {"Id": "i-0123456789abcdef2", "Port": 80}]
    assert (
        made.group["Name"] == "web-balancers"
        and {"Key": "stickiness.enabled", "Value": "false"} in made.group_attributes
    )


def test_health_checks_stay_inside_the_limits_of_elb() -> None:
    cluster = TIERS["elb-network"]
    check = msgspec.structs.replace(cluster.check, rise=1, fall=50)
    found = elb.health(msgspec.structs.replace(cluster, check=check))
    assert found["HealthCheckIntervalSeconds"] == 5 and found["HealthCheckTimeoutSeconds"] < 5
    assert (found["HealthyThresholdCount"], found["UnhealthyThresholdCount"]) == (2, 10)


def test_the_security_group_knows_what_is_forgotten() -> None:
    ports = {
        name: {(one["protocol"], one["port"], one["from"]) for one in network.ingress(TIERS[name])} for name in TIERS
    }
    assert ("udp", 694, "group") in ports["standby-heartbeat"]
    assert ("112", None, "group") in ports["standby-keepalived"], "VRRP is a protocol of IP and no TCP port"
    assert ("tcp", 10000, "group") in ports["round-robin"]
    assert not any(where == "world" and port != 80 for one in ports.values() for _, port, where in one)


def test_the_policy_narrows_what_it_can() -> None:
    (one,) = iam.iam_policy(TIERS["standby-heartbeat"])
    statements = {statement["Sid"]: statement for statement in json.loads(one.text)["Statement"]}
    named = statements["MoveNamed"]
    assert "arn:aws:ec2:eu-west-1:*:network-interface/eni-0123456789abcdef1" in named["Resource"]
    assert named["Action"] == ["ec2:AssociateAddress", "ec2:DisassociateAddress"]
    tagged = statements["MoveTagged"]
    assert tagged["Resource"] == ["arn:aws:ec2:eu-west-1:*:elastic-ip/*"]
    assert tagged["Condition"] == {"StringEquals": {"aws:ResourceTag/haptk:cluster": "web"}}
    assert [sid for sid, one in statements.items() if one["Resource"] == ["*"]] == ["See"]


def test_a_member_of_a_pool_is_started_with_arguments_that_haptk_takes() -> None:
    """The words of the unit through the command's own parser."""
    from haptk.cli.lease import pool as command

    unit = catalogue.OF_NODE["pool"](TIERS["standby-pool"], "lb1", SITE)[1].text
    (line,) = re.findall(r"^ExecStart=(.*)$", unit, re.M)
    words = line.split()
    assert words[:3] == ["/usr/bin/haptk", "lease", "pool"]
    words[words.index("--check") + 1] = sys.executable  # the command wants a program that exists
    parsed = command.make_context("pool", words[3:]).params
    assert parsed["addresses"] == ("203.0.113.10",) and parsed["node"] == "lb1"


def test_the_lease_of_a_pair_is_what_the_daemon_takes() -> None:
    """The words of the unit through the daemon's own parser, and the permissions that its requests need."""
    from haptk.cli.heartbeat import heartbeat as command
    from haptk.heartbeat.start import lease_of

    cluster = TIERS["standby-haptk-lease"]
    found = set()
    for node in ("lb1", "lb2"):
        unit = catalogue.OF_NODE["systemd"](cluster, node, SITE)[1].text
        assert "Environment=AWS_REGION=eu-west-1\n" in unit
        (line,) = re.findall(r"^ExecStart=/usr/bin/haptk heartbeat (.*)$", unit, re.M)
        options = command.make_context("heartbeat", line.split()).params
        found.add(lease_of(options, cluster.timing.deadtime))
    (spec,) = found
    assert spec is not None and (spec.table, spec.name, spec.ttl_s) == ("haptk-leases", "web", 12.0)
    (policy,) = iam.iam_policy(cluster)
    statements = {statement["Sid"]: statement for statement in json.loads(policy.text)["Statement"]}
    assert statements["Lease"]["Action"] == ["dynamodb:GetItem", "dynamodb:UpdateItem"]
    assert statements["Lease"]["Resource"] == ["arn:aws:dynamodb:eu-west-1:*:table/haptk-leases"]
    plain = TIERS["standby-haptk"]
    assert "--lease" not in catalogue.OF_NODE["systemd"](plain, "lb1", SITE)[1].text
    assert "dynamodb" not in iam.iam_policy(plain)[0].text


def test_a_standby_waits_at_its_start_and_an_active_node_does_not() -> None:
    cluster = TIERS["standby-keepalived"]
    assert startup_delay(cluster, "lb1") == 0
    assert startup_delay(cluster, "lb2") == 5


def test_the_key_is_what_the_caller_gave_and_in_no_other_file() -> None:
    site = replace(SITE, secret="f" * 64)
    cluster = TIERS["standby-heartbeat"]
    found = {one.path: one for one in catalogue.files_of_node(cluster, "lb1", site)}
    keys = found.pop("/etc/ha.d/authkeys")
    assert keys.secret and keys.keep and keys.mode == 0o600
    assert authkeys.parse(keys.text, "authkeys").keys[0].secret == b"f" * 64
    assert not any("f" * 64 in one.text for one in found.values())
    for one in catalogue.OF_NODE["cloud-init"](cluster, "lb1", site):
        assert "f" * 64 not in one.text


@pytest.mark.parametrize("name", ["standby-heartbeat", "standby-haptk"])
def test_both_nodes_of_a_heartbeat_have_the_same_files(name: str) -> None:
    one, two = (
        {file.path: file.text for file in catalogue.OF_NODE["heartbeat"](TIERS[name], node, SITE)}
        for node in ("lb1", "lb2")
    )
    assert one == two


@pytest.mark.parametrize("name", [name for name in sorted(TIERS) if TIERS[name].balancers])
def test_cloud_init_writes_the_same_files(name: str) -> None:
    import yaml

    cluster = TIERS[name]
    (one,) = catalogue.OF_NODE["cloud-init"](cluster, "lb1", SITE)
    assert one.text.startswith("#cloud-config\n")
    data = yaml.safe_load(one.text)
    files = {file["path"]: file["content"] for file in data["write_files"]}
    expected = catalogue.files_of_node(cluster, "lb1", SITE)
    assert files == {file.path: file.text for file in expected if not file.secret and not file.local}
    assert all(isinstance(word, str) for command in data["runcmd"] for word in command)


@pytest.mark.parametrize("name", ["round-robin", "standby-heartbeat"])
def test_octodns_reads_its_zone(name: str, tmp_path: Path) -> None:
    from octodns.provider.yaml import YamlProvider
    from octodns.zone import Zone

    found = catalogue.OF_TIER["octodns"](TIERS[name])
    for one in found:
        path = tmp_path / one.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(one.text)
    zone = Zone("example.com.", [])
    YamlProvider("zones", str(tmp_path / "octodns" / "zones"), enforce_order=True, escaped_semicolons=False).populate(
        zone
    )
    (record,) = zone.records
    assert (record.fqdn, record._type) == ("www.example.com.", "A")
    assert sorted(record.values) == sorted(address.public_ip for address in TIERS[name].addresses)
    if name == "round-robin":
        pool = record.dynamic.pools["web"].data["values"]
        assert [value["weight"] for value in pool] == [10, 10, 5]


@pytest.mark.parametrize(
    ("content", "code"),
    [(None, 1), ("", 1), (f"{os.getpid()}\n", 0), (f"{os.getpid()}", 0), ("999999999\n", 1), ("x\n", 1)],
    ids=["none", "empty", "line", "no line end", "stale", "junk"],
)
def test_the_check_of_the_process_reads_any_pid_file(content: str | None, code: int, tmp_path: Path) -> None:
    """With or without a line end; a missing, empty or stale one means that nothing runs."""
    script = catalogue.OF_NODE["keepalived"](TIERS["standby-keepalived"], "lb1", SITE)[0].text
    pidfile = tmp_path / "haproxy.pid"
    if content is not None:
        pidfile.write_text(content)
    text = script.replace("/run/haproxy.pid", str(pidfile))
    done = subprocess.run(["sh", "-c", text, "check", "process"], capture_output=True, timeout=20)
    assert bool(done.returncode) == bool(code)


def test_why_not_says_why() -> None:
    assert catalogue.why_not(TIERS["standby-heartbeat"], "keepalived") == '[cluster] contract is "heartbeat"'
    assert catalogue.why_not(TIERS["elb-network"], "haproxy").startswith("the tier has no balancers")
    assert catalogue.why_not(TIERS["standby-keepalived"], "route53") == "the declaration has no table [dns]"
    assert catalogue.why_not(TIERS["standby-keepalived"], "elb") == "the declaration has no table [elb]"
    assert catalogue.why_not(TIERS["round-robin"], "route53") == ""
    alias = msgspec.structs.replace(TIERS["elb-application"], dns=TIERS["round-robin"].dns)
    assert "becomes an alias" in catalogue.why_not(alias, "route53")


@pytest.mark.real("cloud-init")
def test_cloud_init_accepts_its_user_data(tmp_path: Path) -> None:
    """By cloud-init's own schema; one with a wrong key is refused, so the verdict means something."""
    for name in sorted(TIERS):
        for balancer in TIERS[name].balancers[:1]:
            (one,) = catalogue.OF_NODE["cloud-init"](TIERS[name], balancer.name, SITE)
            path = tmp_path / f"{name}.yaml"
            path.write_text(one.text)
            run(["cloud-init", "schema", "--config-file", str(path)])
    path.write_text(one.text.replace("    owner: root:root", "    ownr: root:root"))
    done = subprocess.run(
        ["cloud-init", "schema", "--config-file", str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0 and "ownr" in done.stdout + done.stderr


@pytest.mark.real("octodns-validate")
def test_octodns_validates_the_whole_configuration(tmp_path: Path) -> None:
    """Its own command on both generated files; a wrong address is refused."""
    command = str(Path(sys.executable).parent / "octodns-validate")
    for one in catalogue.OF_TIER["octodns"](TIERS["round-robin"]):
        path = tmp_path / one.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(one.text)
    argv = [command, "--config-file", "octodns.yaml"]
    run(argv, cwd=tmp_path / "octodns")
    zone = tmp_path / "octodns" / "zones" / "example.com.yaml"
    zone.write_text(zone.read_text().replace("203.0.113.10", "203.0.113.999"))
    done = subprocess.run(argv, cwd=tmp_path / "octodns", capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "203.0.113.999" in done.stderr


@pytest.mark.real("named-checkzone")
def test_named_checkzone_accepts_the_records(tmp_path: Path) -> None:
    (one,) = catalogue.OF_TIER["zone"](TIERS["round-robin-own-dns"])
    name = Path(one.path).name
    (tmp_path / name).write_text(one.text)
    head = "$TTL 300\n@ IN SOA ns1 admin ( 1 3600 600 86400 60 )\n@ IN NS ns1\nns1 IN A 192.0.2.1\n"
    (tmp_path / "zone").write_text(f'{head}$INCLUDE "{name}"\n')
    argv = ["named-checkzone", "-D", "-o", "-", "example.com", "zone"]
    said = run(argv, cwd=tmp_path)
    found = re.findall(r"^www\.example\.com\.\s+30\s+IN\s+A\s+(\S+)$", said, re.M)
    assert found == [address.public_ip for address in TIERS["round-robin"].addresses]
    (tmp_path / name).write_text(one.text.replace("203.0.113.10", "203.0.113.999"))
    assert subprocess.run(argv, cwd=tmp_path, capture_output=True, timeout=60).returncode != 0

"""ha.cf, haresources and authkeys of heartbeat: what is understood, and the one line that says what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from haptk.errors import ConfigError
from haptk.formats import authkeys, durations, ha_cf, haresources

SAMPLE = """\
# a usual pair
logfacility local0
udpport 694
keepalive 2
deadtime 30
warntime 10
initdead 120
ucast eth0 10.0.1.4
ucast eth0 10.0.1.5   # the same file on both nodes
bcast eth1 eth2
mcast eth3 225.0.0.1 694 1 0
auto_failback off
node a
node B
ping 10.0.1.1
ping_group routers 10.0.1.2 10.0.1.3
apiauth ipfail gid=haclient uid=hacluster
crm no
"""


def test_a_usual_file() -> None:
    found = ha_cf.parse(SAMPLE, "ha.cf")
    assert (found.keepalive_s, found.deadtime_s, found.warntime, found.initdead) == (2.0, 30.0, 10.0, 120.0)
    assert found.nodes == ["a", "b"]
    assert found.auto_failback == "off"
    assert [(media.kind, media.device, media.target) for media in found.media] == [
        ("ucast", "eth0", "10.0.1.4"),
        ("ucast", "eth0", "10.0.1.5"),
        ("bcast", "eth1", ""),
        ("bcast", "eth2", ""),
        ("mcast", "eth3", "225.0.0.1"),
    ]
    assert found.pings == ["10.0.1.1", "10.0.1.2", "10.0.1.3"]
    assert found.notes == [
        "ha.cf:17: apiauth has nothing to act on here: there is no client API; the control socket's file mode decides "
        "who may ask"
    ]


@pytest.mark.parametrize(("deadtime", "initdead"), [(5, 12), (8, 16), (30, 30)])
def test_initdead_follows_the_original(deadtime: int, initdead: float) -> None:
    text = f"deadtime {deadtime}\nucast eth0 10.0.0.2\nnode a b\n"
    assert ha_cf.parse(text, "ha.cf").initdead == initdead


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("keepalive two", "not a duration"),
        ("keepalive", "one value is expected"),
        ("keepalive 1 2", "one value is expected"),
        ("auto_failback maybe", "on or off"),
        ("node a b c", "two nodes"),
        ("node a a", "given before"),
        ("node a/b", "not a node name"),
        ("ucast eth0", "DEVICE and ADDRESS"),
        ("ucast eth0 lb1.example.com", "not an IPv4 address"),
        ("ucast eth0 fe80::1", "not an IPv4 address"),
        ("ucast e/th0 10.0.0.1", "not a device"),
        ("mcast eth0 10.0.0.1 694 1 0", "not a multicast group"),
        ("mcast eth0 225.0.0.1 x 1 0", "the port is"),
        ("udpport 0", "1 to 65535"),
        ("crm yes", "haresources only"),
        ("autojoin any", "only 'none'"),
        ("serial /dev/ttyS0", "serial links are not supported"),
        ("stonith_host * null a b", "does not switch machines off"),
        ("respawn hacluster /usr/lib/heartbeat/ipfail", "systemd"),
        ("watchdog /dev/watchdog", "WatchdogSec"),
        ("nice_failback on", "obsolete"),
        ("keepalife 2", "did you mean keepalive"),
        ("xyzzy", "known are apiauth"),
    ],
)
def test_a_line_that_is_refused(line: str, why: str) -> None:
    with pytest.raises(ConfigError, match=f"^ha.cf:2: .*{why}"):
        ha_cf.parse(f"debug 0\n{line}\n", "ha.cf")


def test_every_directive_has_a_fate() -> None:
    for name, directive in ha_cf.DIRECTIVES.items():
        assert directive.fate in ("works", "idle", "refused"), name
        if directive.fate == "refused":
            with pytest.raises(ConfigError, match=f"ha.cf:1: {name}: "):
                ha_cf.parse(f"{name} x\n", "ha.cf")


@pytest.mark.parametrize(("text", "why"), [("node a b\n", "media"), ("ucast eth0 10.0.0.1\n", "no node line")])
def test_what_is_missing(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        ha_cf.parse(text, "ha.cf")


def test_haresources() -> None:
    text = "# groups\na 10.0.0.9/24 Filesystem::/dev/sdb1::/data \\\n  httpd\nB eip::203.0.113.10\n\n"
    found = haresources.parse(text, "haresources", ["a", "b"])
    assert [(line.node, line.resources, line.line) for line in found] == [
        ("a", ("10.0.0.9/24", "Filesystem::/dev/sdb1::/data", "httpd"), 2),
        ("b", ("eip::203.0.113.10",), 4),
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("c web\n", "haresources:1: c is not a node of ha.cf: a, b are"),
        ("a\n", "haresources:1: a is given no resource"),
        ("a web\n\nb web\n", "haresources:3: web is the first resource of line 1 already"),
    ],
)
def test_haresources_that_are_refused(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        haresources.parse(text, "haresources", ["a", "b"])


def test_authkeys() -> None:
    found = authkeys.parse("# keys\nauth 2\n1 md5 old\n2 sha1 new\n3 crc\n", "authkeys")
    assert found.active == 2
    assert [(key.number, key.method, key.secret) for key in found.keys] == [
        (1, "md5", b"old"),
        (2, "sha1", b"new"),
        (3, "crc", b""),
    ]
    assert found.uses_crc


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1 sha1 secret\n", "no 'auth NUMBER' line"),
        ("auth 2\n1 sha1 secret\n", "authkeys:1: there is no line for key 2"),
        ("auth 1\n1 sha256 secret\n", "authkeys:2: 'sha256' is not a method"),
        ("auth 1\n1 sha1\n", "needs a key"),
        ("auth 1\n1 sha1 my secret words\n", "the key has blanks"),
        ("auth 1\n16 sha1 x\n", "'16' is not a key number"),
        ("auth 1\n1 sha1 x\n1 sha1 y\n", "given before"),
    ],
)
def test_authkeys_that_are_refused(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        authkeys.parse(text, "authkeys")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2", 2.0), ("200ms", 0.2), ("1.5", 1.5), ("500us", 0.0005), ("2m", 120.0), ("1h", 3600.0), ("3 s", 3.0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert durations.parse(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "x", "-1", "1d", "1 2"])
def test_durations_that_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is accepted"):
        durations.parse(text)


def test_the_reference_page_lists_every_directive(request: pytest.FixtureRequest) -> None:
    """docs/reference/ha.cf.md is made from the table."""
    page = Path(__file__).parents[2] / "docs" / "reference" / "ha.cf.md"
    words = {"works": "works", "idle": "nothing to act on", "refused": "refused"}
    rows = [f"| `{name}` | {words[row.fate]} | {row.text} |" for name, row in sorted(ha_cf.DIRECTIVES.items())]
    head = (
        "# ha.cf\n\nWhat `haptk heartbeat -f DIR` does with each directive of heartbeat 3.0.6. A refused one is "
        "reported with file,\nline and reason; one with nothing to act on is reported once in the log.\n\n"
        "| directive | fate | |\n|---|---|---|\n"
    )
    wanted = head + "\n".join(rows) + "\n"
    if request.config.getoption("--regenerate"):
        page.write_text(wanted)
    assert page.read_text() == wanted

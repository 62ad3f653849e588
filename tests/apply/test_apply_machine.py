"""`haptk apply` on the machine itself: the real programs judge in a namespace that has the declared interface."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

GOOD = Path(__file__).parents[1] / "cluster" / "good" / "standby-keepalived.toml"
# Everything that is written lies on file systems of this mount namespace alone.
VIEW = """
set -e
for place in /etc/keepalived /etc/haproxy /etc/systemd/system /usr/libexec /var/lib; do mount -t tmpfs tmpfs $place; done
run() { "$1" -m haptk --config "$2" apply --node lb1 --yes --no-reload; }
run "$1" "$2"
echo "second: $(run "$1" "$2")"
keepalived -t -f /etc/keepalived/keepalived.conf && echo "keepalived agrees"
sed -i 's/^deadtime.*/deadtime = "3s"/; s/^port.*//' "$2"
sed 's/priority 100/priority 999/' -i /etc/keepalived/keepalived.conf
echo "changed: $(run "$1" "$2" | tail -1)"
grep -c 'down_timer_adverts' /etc/keepalived/keepalived.conf || true
ls /var/lib/haptk/apply/backups/*/etc/keepalived/keepalived.conf
"""


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"haptk-a{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        ends = ["ens5", "type", "veth", "peer", "name", "other"]
        subprocess.run(["ip", "-n", name, "link", "add", *ends], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def applied(namespace: str, config: Path, script: str) -> subprocess.CompletedProcess[str]:
    argv = [
        "ip",
        "netns",
        "exec",
        namespace,
        "unshare",
        "--mount",
        "sh",
        "-c",
        script,
        "sh",
        sys.executable,
        str(config),
    ]
    return subprocess.run(argv, capture_output=True, text=True, timeout=100)


@pytest.mark.root
@pytest.mark.real("keepalived", "haproxy", "curl", "ip", "unshare")
def test_the_real_programs_judge_before_anything_is_replaced(namespace: str, tmp_path: Path) -> None:
    config = tmp_path / "cluster.toml"
    config.write_text(GOOD.read_text())
    done = applied(namespace, config, VIEW)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "second: nothing to do" in done.stdout and "keepalived agrees" in done.stdout
    assert "changed: 1 files written" in done.stdout
    assert "/etc/keepalived/keepalived.conf" in done.stdout.splitlines()[-1]


@pytest.mark.root
@pytest.mark.real("keepalived", "haproxy", "curl", "ip", "unshare")
def test_an_interface_that_does_not_exist_is_found_before_the_change(namespace: str, tmp_path: Path) -> None:
    config = tmp_path / "cluster.toml"
    config.write_text(GOOD.read_text().replace('private_ip = "10.0.1.10"', 'private_ip = "10.0.1.10"\ndevice = "ens6"'))
    done = applied(namespace, config, VIEW.partition("echo")[0] + "ls /etc/keepalived")
    assert done.returncode == 78, done.stdout + done.stderr
    assert "keepalived refuses it, nothing was changed" in done.stderr and "ens6" in done.stderr
    assert not done.stdout

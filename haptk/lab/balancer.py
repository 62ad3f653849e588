"""What runs on a balancer of the lab: its haproxy.cfg, its proxy, and its heartbeat with the Elastic IP as resource."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from haptk.lab.layout import (
    APP_PORT,
    HEARTBEAT_PORT,
    IMDS_PORT,
    PEERS_PORT,
    PROXY_PORT,
    REGION,
    Instance,
    Layout,
    Timing,
)

CONFIG = """\
# Written by haptk lab for {name}; the real haproxy runs the same file with --lb haproxy.
defaults
    mode http
    timeout connect 500ms
    timeout client 10s
    timeout server 10s
    timeout check 500ms
    retries 2
    option redispatch 1

listen webfarm
    bind {bind}
    mode http
    balance roundrobin
{sticky}    option forwardfor
    option httpchk HEAD /index.html HTTP/1.0
"""
PREFIX = "    cookie JSESSIONID prefix\n"
LEARN = """\
    stick-table type string len 64 size 100k expire 1h peers tier
    stick match req.cook(JSESSIONID)
    stick store-response res.cook(JSESSIONID)
"""
DESIGNS = ("prefix", "learn")


def haproxy_cfg(layout: Layout, instance: Instance, timing: Timing, design: str = "prefix") -> str:
    """The balancer's configuration: the farm of every application server, checked as fast as the timing says.

    With the design `learn` the cookie stays as it is; the balancers learn it and tell each other over the peers protocol.
    """
    inter_ms = round(timing.check_inter_s * 1000)
    sticky = LEARN if design == "learn" else PREFIX
    lines = [CONFIG.format(name=instance.name, bind=f"{instance.private_ip}:{PROXY_PORT}", sticky=sticky)]
    for app in layout.applications:
        where = f"{app.private_ip}:{APP_PORT}"
        cookie = "" if design == "learn" else f" cookie {app.label}"
        lines.append(f"    server {app.label} {where}{cookie} check inter {inter_ms}ms fall 2 rise 2\n")
    if design == "learn":
        lines.append("\npeers tier\n")
        lines += [f"    peer {one.name} {one.private_ip}:{PEERS_PORT}\n" for one in layout.balancers]
    return "".join(lines)


def python(*argv: str) -> list[str]:
    """The command line of a haptk module or command with this very interpreter."""
    return [sys.executable, "-P", "-m", *argv]


def proxy_argv(config: Path, lb: str, haproxy: str, name: str) -> list[str]:
    """The command that runs the proxy: haptk's own, or the real haproxy in the foreground."""
    if lb == "haproxy":
        return [haproxy, "-db", "-f", str(config), "-L", name]
    return python("haptk", "proxy", "-f", str(config), "-L", name)


@dataclass(frozen=True)
class HeartbeatPlan:
    """The files and the interface that one balancer's heartbeat needs."""

    home: Path
    key: Path
    interface_id: str

    @property
    def control(self) -> Path:
        return self.home / "heartbeat.sock"


def heartbeat_argv(layout: Layout, instance: Instance, timing: Timing, plan: HeartbeatPlan) -> list[str]:
    """The command that runs the heartbeat: lb1 is the preferred holder at the first start, nothing fails back."""
    peer = next(other for other in layout.balancers if other.name != instance.name)
    return python(
        "haptk",
        "heartbeat",
        *("--node", instance.name, "--bind", instance.private_ip),
        *("--peer", peer.private_ip, "--peer-name", peer.name),
        *("--udpport", str(HEARTBEAT_PORT)),
        *("--keepalive", f"{round(timing.keepalive_s * 1000)}ms", "--deadtime", f"{round(timing.deadtime_s * 1000)}ms"),
        *("--initdead", f"{round(timing.initdead_s * 1000)}ms", "--auto-failback", "off"),
        *("--key-file", str(plan.key), "--state-dir", str(plan.home), "--control", str(plan.control)),
        *("--resource", f"eip::{layout.address}::{plan.interface_id}"),
        *("--check", f"http://{instance.private_ip}:{PROXY_PORT}/index.html"),
        *("--check-inter", f"{round(timing.check_inter_s * 1000)}ms", "--check-fall", str(timing.check_fall)),
        *("--log-format", "json"),
    )


def instance_env(base: dict[str, str], layout: Layout, instance: Instance) -> dict[str, str]:
    """The environment of a process on an instance: AWS is the lab, and credentials come from its metadata service."""
    return base | {
        "AWS_ENDPOINT_URL": f"http://{layout.endpoint}",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://{instance.private_ip}:{IMDS_PORT}",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
    }

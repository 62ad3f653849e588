"""Where everything of a lab is: the directory with its files, the timings, and the loopback addresses.

One lab runs per user. Its directory is `$HAPTK_LAB_DIR`, else `$XDG_RUNTIME_DIR/haptk-lab`, else
`/tmp/haptk-lab-UID`; every process of the lab carries HAPTK_LAB=<directory> in its environment, which is how
`haptk lab down` finds all of them even when the supervisor was killed.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

MARK = "HAPTK_LAB"
REGION = "eu-west-1"
PROXY_PORT = 8080
PEERS_PORT = 1024
APP_PORT = 8000
HEARTBEAT_PORT = 6940
IMDS_PORT = 8169
API_PORT = 5000


def lab_dir() -> Path:
    """The directory of this user's lab; it exists only while a lab does."""
    chosen = os.environ.get("HAPTK_LAB_DIR")
    if chosen:
        return Path(chosen).absolute()
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_dir() and os.access(runtime, os.W_OK):
        return Path(runtime) / "haptk-lab"
    return Path(tempfile.gettempdir()) / f"haptk-lab-{os.getuid()}"


@dataclass(frozen=True)
class Timing:
    """How fast the lab's heartbeat, checks and clients are; everything in seconds."""

    name: str
    keepalive_s: float
    deadtime_s: float
    initdead_s: float
    check_inter_s: float
    check_fall: int
    budget_s: float
    client_timeout_s: float
    settle_s: float


QUICK = Timing("quick", 0.2, 1.0, 2.0, 0.2, 3, 3.0, 0.5, 2.0)
# The values of the people who run this by hand: a balancer's death costs them half a minute.
SEED = Timing("seed", 2.0, 30.0, 120.0, 2.0, 3, 35.0, 2.0, 5.0)
TIMINGS = {timing.name: timing for timing in (QUICK, SEED)}


@dataclass(frozen=True)
class Instance:
    """A machine of the lab: its name, what runs on it, its private address and its zone (0 or 1)."""

    name: str
    role: str
    private_ip: str
    zone: int
    label: str = ""


@dataclass(frozen=True)
class Layout:
    """The addresses of a lab below one loopback /16, for instance 127.77."""

    net: str = "127.77"

    @property
    def cloud(self) -> str:
        """HOST:PORT of moto itself; only the lab's own network talks to it."""
        return f"{self.net}.0.2:{API_PORT}"

    @property
    def endpoint(self) -> str:
        """HOST:PORT that everybody uses as AWS: the fault switch in front of the cloud."""
        return f"{self.net}.0.3:{API_PORT}"

    @property
    def address(self) -> str:
        """The Elastic IP."""
        return f"{self.net}.200.10"

    @property
    def instances(self) -> tuple[Instance, ...]:
        return (
            Instance("lb1", "balancer", f"{self.net}.1.11", 0),
            Instance("lb2", "balancer", f"{self.net}.2.11", 1),
            Instance("app1", "application", f"{self.net}.1.21", 0, "A"),
            Instance("app2", "application", f"{self.net}.2.21", 1, "B"),
        )

    @property
    def balancers(self) -> tuple[Instance, ...]:
        return tuple(instance for instance in self.instances if instance.role == "balancer")

    @property
    def applications(self) -> tuple[Instance, ...]:
        return tuple(instance for instance in self.instances if instance.role == "application")

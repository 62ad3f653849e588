"""The text of the files that are put into other programs' directories. Pure: words in, text out.

Each is a small /bin/sh file: it answers what needs no AWS itself (meta-data in two milliseconds, as any user, with no
environment) and hands the rest to `quick.py` of the haptk that installed it. No value from outside is ever expanded
unquoted, and none is evaluated.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

PARAMETERS = (
    # name, required, unique, short, long
    (
        "address",
        True,
        True,
        "Elastic IP",
        "The address to hold: an Elastic IP (203.0.113.10), its allocation id (eipalloc-...), a tag that exactly one "
        "address has (tag:Name=web), a secondary private address (private:10.0.0.50) or a route "
        "(route:rtb-.../10.9.9.9/32). Several, separated by blanks, are held together.",
    ),
    (
        "interface",
        False,
        False,
        "Network interface",
        "The interface (eni-...) of this node that counts. Without it every interface of the instance does, and a "
        "start uses the primary one.",
    ),
    (
        "private_ip",
        False,
        False,
        "Private address",
        "The private address of the interface to which the Elastic IP belongs; default is the primary one.",
    ),
    ("region", False, False, "AWS region", "Default: environment, profile, instance metadata."),
    ("profile", False, False, "AWS profile", "Profile of the AWS configuration files."),
    ("role_arn", False, False, "Role to assume", "ARN of a role to assume for the calls."),
    ("endpoint_url", False, False, "EC2 endpoint", "URL of an EC2 interface endpoint."),
)
ACTIONS = (
    ("start", 30, None),
    ("stop", 30, None),
    ("monitor", 10, 10),
    ("validate-all", 10, None),
    ("meta-data", 5, None),
    ("usage", 5, None),
)


@dataclass(frozen=True)
class Program:
    """Where haptk is: the interpreter, `quick.py`, and the directory of its dependencies."""

    python: str
    quick: str
    site: str


def meta_data() -> str:
    """The OCF meta-data: valid for ra-api-1.dtd and for the OCF 1.1 schema."""
    parameters = "\n".join(_parameter(*row) for row in PARAMETERS)
    actions = "\n".join(
        f'<action name="{name}" timeout="{timeout_s}s"'
        + (f' interval="{interval_s}s" depth="0"' if interval_s else "")
        + " />"
        for name, timeout_s, interval_s in ACTIONS
    )
    return f"""<?xml version="1.0"?>
<!DOCTYPE resource-agent SYSTEM "ra-api-1.dtd">
<resource-agent name="eip" version="1.0">
<version>1.0</version>
<longdesc lang="en">
Holds AWS Elastic IPs on this node. Takes an address in one call from whoever has it, lets it go only while it is ours,
asks the instance metadata first, and never calls a silent API "stopped".
</longdesc>
<shortdesc lang="en">Holds AWS Elastic IPs</shortdesc>
<parameters>
{parameters}
</parameters>
<actions>
{actions}
</actions>
</resource-agent>
"""


def _parameter(name: str, required: bool, unique: bool, short: str, long: str) -> str:
    default = "" if required else ' default=""'
    return (
        f'<parameter name="{name}" unique="{int(unique)}" required="{int(required)}">\n'
        f'<longdesc lang="en">{long}</longdesc>\n<shortdesc lang="en">{short}</shortdesc>\n'
        f'<content type="string"{default} />\n</parameter>'
    )


def _hand_on(program: Program, contract: str, missing_code: int, prefix: str = "") -> str:
    python, quick, site = (shlex.quote(word) for word in (program.python, program.quick, program.site))
    return f"""python={python}
quick={quick}
if [ ! -x "$python" ] || [ ! -r "$quick" ]; then
  echo "{prefix}haptk is not where it was when this file was installed ($python); run haptk eip install again" >&2
  exit {missing_code}
fi
exec "$python" -I -S "$quick" {site} {contract} "$@"
"""


def ocf(program: Program) -> str:
    """The resource agent ocf:haptk:eip."""
    text = meta_data()
    if "'" in text:
        raise ValueError("the meta-data stand between single quotes")
    return f"""#!/bin/sh
# OCF resource agent of haptk: meta-data and usage are answered here, everything else by haptk itself.
# Installed by `haptk eip install --contract ocf`; do not edit, install again.
case $1 in
meta-data)
  printf %s '{text}'
  exit 0 ;;
usage|help)
  echo "usage: $0 {{start|stop|monitor|validate-all|meta-data|usage}}"
  exit 0 ;;
start|stop|monitor|validate-all) ;;
*)
  echo "usage: $0 {{start|stop|monitor|validate-all|meta-data|usage}}" >&2
  exit 3 ;;
esac
{_hand_on(program, "ocf", 5, "${OCF_EXIT_REASON_PREFIX:-ocf-exit-reason:}")}"""


def heartbeat(program: Program) -> str:
    """The Heartbeat v1 resource script; `haptk-eip::ADDRESS[::ENI]` in haresources."""
    return f"""#!/bin/sh
# Heartbeat v1 resource of haptk: haptk-eip::ADDRESS[::eni-...] in /etc/ha.d/haresources.
# Installed by `haptk eip install --contract heartbeat`; do not edit, install again.
{_hand_on(program, "heartbeat", 1)}"""


def lsb(program: Program) -> str:
    """The init script; its addresses stand in /etc/haptk/eip.env as HAPTK_EIP=ADDRESS."""
    return f"""#!/bin/sh
### BEGIN INIT INFO
# Provides:          haptk-eip
# Required-Start:    $network $remote_fs
# Required-Stop:     $network $remote_fs
# Default-Start:
# Default-Stop:
# Short-Description: Holds AWS Elastic IPs on this node
# Description:       The addresses stand in /etc/haptk/eip.env as HAPTK_EIP="ADDRESS [eni-...]".
### END INIT INFO
# Installed by `haptk eip install --contract lsb`; do not edit, install again.
{_hand_on(program, "lsb", 5)}"""


def keepalived(program: Program) -> str:
    """The script for keepalived: `check` for track_script, `notify` for notify*, `fifo` for vrrp_notify_fifo_script."""
    return f"""#!/bin/sh
# keepalived script of haptk: haptk-eip-keepalived check|notify|fifo ADDRESS [eni-...] [NAME=VALUE...]
# Installed by `haptk eip install --contract keepalived`; do not edit, install again.
{_hand_on(program, "keepalived", 1)}"""

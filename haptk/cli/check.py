"""`haptk check`: the table of kinds. A kind's options are only imported when that kind is asked for."""

from __future__ import annotations

import click

from haptk.cli.base import LazyGroup, settings
from haptk.cli.checks.contract import Judging, plugin_option

KINDS: dict[str, tuple[str, str]] = {
    "all": ("haptk.cli.checks.all:all_checks", "Run every check of this node side by side inside one deadline."),
    "config": ("haptk.cli.checks.config:config", "Have the configuration files of this node read by their programs."),
    "dns": ("haptk.cli.checks.dns:dns", "Ask a DNS server for a name."),
    "eip": ("haptk.cli.checks.eip:eip", "See whether this node holds an address."),
    "exec": ("haptk.cli.checks.execute:execute", "Run a program or a monitoring plugin under a time-out."),
    "haproxy": ("haptk.cli.checks.haproxy:haproxy", "Ask a running haproxy for its servers, queues and sessions."),
    "heartbeat": ("haptk.cli.checks.heartbeat:heartbeat", "Ask this node's heartbeat for its peer and resources."),
    "http": ("haptk.cli.checks.http:http", "Send one HTTP request and judge the answer."),
    "keepalived": ("haptk.cli.checks.keepalived:keepalived", "See whether keepalived runs, and in which state."),
    "memcached": ("haptk.cli.checks.memcached:memcached", "Store a value in memcached, read it back, delete it."),
    "process": ("haptk.cli.checks.process:process", "See whether a process is alive."),
    "proxy": ("haptk.cli.checks.proxy:proxy", "Ask a running haptk proxy for its servers and sessions."),
    "redis": ("haptk.cli.checks.redis:redis", "Store a value in redis, read it back, delete it."),
    "tcp": ("haptk.cli.checks.tcp:tcp", "Connect, send and expect."),
}


class CheckGroup(Judging, LazyGroup):
    """The group of kinds; its own usage errors are UNKNOWN, too."""


@click.group(cls=CheckGroup, table=KINDS, params=[plugin_option()])
def check() -> None:
    """Judge a service, a daemon or this node as a monitoring plugin does.

    The first line is SERVICE STATUS: text | figures. Exit codes: 0 OK, 1 WARNING, 2 CRITICAL (also when the time is
    over), 3 UNKNOWN (also for wrong arguments). --contract script and --contract condition change them for programs
    that know only good and bad.
    """
    # Also because a look that was left behind at its time-out may still hold what the interpreter's end would wait for.
    settings().leaves_at_once = True

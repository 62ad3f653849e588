"""ha.cf(5) of heartbeat 3.0.6: every directive of it either works here, has nothing to act on here, or is refused.

`DIRECTIVES` is the whole list; docs/reference/ha.cf.md is made from it. A directive that has nothing to act on (a
compression that no packet needs) is taken and reported once; one that would change what the cluster does is refused
with file, line and reason, because a configuration that is silently half understood is worse than none.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from haptk.errors import ConfigError
from haptk.formats import durations

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DEVICE = re.compile(r"[A-Za-z0-9_.@-]{1,15}")


@dataclass(frozen=True)
class Media:
    """One network line: `kind` is ucast, bcast or mcast."""

    kind: str
    device: str
    target: str
    line: int
    port: int | None = None
    ttl: int = 1
    loopback: bool = False


@dataclass
class HaCf:
    """What a ha.cf says; times in seconds, None where it says nothing."""

    file: str
    keepalive_s: float = 1.0
    deadtime_s: float = 30.0
    warntime_s: float | None = None
    initdead_s: float | None = None
    deadping_s: float | None = None
    udpport: int = 694
    auto_failback: str = "legacy"
    nodes: list[str] = field(default_factory=list)
    media: list[Media] = field(default_factory=list)
    pings: list[str] = field(default_factory=list)
    hopfudge: int = 1
    realtime: bool = True
    rtprio: int = 1
    logfacility: str | None = None
    logfile: str | None = None
    debug: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def warntime(self) -> float:
        return self.deadtime_s / 2 if self.warntime_s is None else self.warntime_s

    @property
    def initdead(self) -> float:
        """The original's rule where none is given: long enough for slow networks to come up."""
        if self.initdead_s is not None:
            return self.initdead_s
        if self.deadtime_s > 10:
            return self.deadtime_s
        return 12.0 if self.deadtime_s < 6 else 2 * self.deadtime_s


@dataclass(frozen=True)
class _At:
    file: str
    line: int
    name: str
    words: list[str]

    def refuse(self, why: str) -> ConfigError:
        return ConfigError(file=self.file, line=self.line, why=f"{self.name}: {why}")

    def one(self) -> str:
        if len(self.words) != 1:
            raise self.refuse(f"one value is expected, {len(self.words)} were given")
        return self.words[0]

    def duration(self) -> float:
        try:
            return durations.parse(self.one())
        except ValueError as error:
            raise self.refuse(str(error)) from error

    def integer(self, low: int, high: int) -> int:
        word = self.one()
        if not word.isdigit() or not low <= int(word) <= high:
            raise self.refuse(f"{word!r}: a number from {low} to {high} is accepted")
        return int(word)

    def boolean(self) -> bool:
        word = self.one().lower()
        if word in ("on", "yes", "true", "y", "1"):
            return True
        if word in ("off", "no", "false", "n", "0"):
            return False
        raise self.refuse(f"{word!r}: on or off is accepted")


Handler = Callable[[HaCf, _At], None]


def _set_duration(name: str) -> Handler:
    def handler(found: HaCf, at: _At) -> None:
        setattr(found, name, at.duration())

    return handler


def _set_integer(name: str, low: int, high: int) -> Handler:
    def handler(found: HaCf, at: _At) -> None:
        setattr(found, name, at.integer(low, high))

    return handler


def _failback(found: HaCf, at: _At) -> None:
    word = at.one().lower()
    if word != "legacy":
        word = "on" if at.boolean() else "off"
    found.auto_failback = word


def _node(found: HaCf, at: _At) -> None:
    for word in at.words:
        name = word.lower()
        if not _NAME.fullmatch(name):
            raise at.refuse(f"{word!r} is not a node name")
        if name in found.nodes:
            raise at.refuse(f"{name} was given before")
        found.nodes.append(name)
    if len(found.nodes) > 2:
        raise at.refuse("haresources can manage two nodes, and this is the third")


def _device(at: _At, word: str) -> str:
    if not _DEVICE.fullmatch(word):
        raise at.refuse(f"{word!r} is not a device")
    return word


def _address(at: _At, word: str, version: int) -> str:
    try:
        found = ipaddress.ip_address(word)
    except ValueError as error:
        raise at.refuse(f"{word!r} is not an IPv{version} address (names are not looked up)") from error
    if found.version != version:
        raise at.refuse(f"{word} is not an IPv{version} address")
    return str(found)


def _ucast(version: int) -> Handler:
    def handler(found: HaCf, at: _At) -> None:
        if len(at.words) != 2:
            raise at.refuse("DEVICE and ADDRESS are expected")
        device = _device(at, at.words[0])
        found.media.append(Media("ucast", device, _address(at, at.words[1], version), at.line))

    return handler


def _bcast(found: HaCf, at: _At) -> None:
    if not at.words:
        raise at.refuse("at least one device is expected")
    for word in at.words:
        found.media.append(Media("bcast", _device(at, word), "", at.line))


def _mcast(found: HaCf, at: _At) -> None:
    if len(at.words) != 5:
        raise at.refuse("DEVICE GROUP PORT TTL LOOP are expected")
    device, group, port, ttl, loop = at.words
    address = _address(at, group, 4)
    if not ipaddress.ip_address(address).is_multicast:
        raise at.refuse(f"{group} is not a multicast group")
    if not port.isdigit() or not 0 < int(port) < 65536 or not ttl.isdigit() or int(ttl) > 255 or loop not in "01":
        raise at.refuse("the port is 1 to 65535, the ttl 0 to 255, the loop 0 or 1")
    media = Media("mcast", _device(at, device), address, at.line, int(port), int(ttl), loop == "1")
    found.media.append(media)


def _ping(found: HaCf, at: _At) -> None:
    if not at.words:
        raise at.refuse("at least one host is expected")
    found.pings += [word for word in at.words if word not in found.pings]


def _ping_group(found: HaCf, at: _At) -> None:
    # Any member that answers is a witness; the group's name has no other use here.
    if len(at.words) < 2:
        raise at.refuse("NAME and at least one host are expected")
    found.pings += [word for word in at.words[1:] if word not in found.pings]


def _realtime(found: HaCf, at: _At) -> None:
    found.realtime = at.boolean()


def _logfacility(found: HaCf, at: _At) -> None:
    word = at.one()
    found.logfacility = None if word == "none" else word


def _logfile(found: HaCf, at: _At) -> None:
    found.logfile = at.one()


def _crm(found: HaCf, at: _At) -> None:
    if at.one().lower() not in ("no", "off", "false", "n", "0"):
        raise at.refuse("haptk manages haresources only; a Pacemaker cluster stays with its own stack")


def _autojoin(found: HaCf, at: _At) -> None:
    if at.one().lower() != "none":
        raise at.refuse("with haresources every node is named; only 'none' is accepted (the original refuses it too)")


def _nothing_to_do(why: str) -> Handler:
    def handler(found: HaCf, at: _At) -> None:
        found.notes.append(f"{at.file}:{at.line}: {at.name} has nothing to act on here: {why}")

    handler.__doc__ = why
    return handler


def _refused(why: str) -> Handler:
    def handler(_found: HaCf, at: _At) -> None:
        raise at.refuse(why)

    handler.__doc__ = why
    return handler


@dataclass(frozen=True)
class Directive:
    """One row of the table: `fate` is works, idle (nothing to act on) or refused."""

    fate: str
    text: str
    handle: Handler


def _works(text: str, handle: Handler) -> Directive:
    return Directive("works", text, handle)


def _idle(why: str) -> Directive:
    return Directive("idle", why, _nothing_to_do(why))


def _no(why: str) -> Directive:
    return Directive("refused", why, _refused(why))


DIRECTIVES: dict[str, Directive] = {
    "apiauth": _idle("there is no client API; the control socket's file mode decides who may ask"),
    "auto_failback": _works("on, off or legacy", _failback),
    "autojoin": _works("only 'none'", _autojoin),
    "baud": _idle("there are no serial links"),
    "bcast": _works("DEVICE...", _bcast),
    "cluster": _idle("the name is used nowhere"),
    "compression": _idle("no message is large enough to be compressed"),
    "compression_threshold": _idle("no message is large enough to be compressed"),
    "conn_logd_time": _idle("there is no logging daemon"),
    "coredumps": _idle("a Python daemon leaves its traces in the log"),
    "coreroot": _idle("a Python daemon leaves its traces in the log"),
    "crm": _works("only off", _crm),
    "crm_daemon_dir": _no("haptk manages haresources only"),
    "crmd_spawns_pengine": _no("haptk manages haresources only"),
    "deadping": _works("silence after which a ping node is dead", _set_duration("deadping_s")),
    "deadtime": _works("silence after which a node is dead", _set_duration("deadtime_s")),
    "debug": _works("0 to 255; above 0 the log has debug lines", _set_integer("debug", 0, 255)),
    "debugfile": _idle("there is one log; with debug above 0 the debug lines are in it"),
    "delnode": _no("nodes are named by node lines; remove the line of the node"),
    "enable_config_writes": _no("haptk manages haresources only"),
    "env": _no("the environment of scripts is fixed; export it in the script itself"),
    "failfast": _no("haptk manages haresources only"),
    "hbaping": _no("Fibre Channel ping is not supported; use ping"),
    "hbgenmethod": _idle("the generation is kept in a file, as with 'file', and starts at the time"),
    "hbversion": _idle("haptk has a version of its own"),
    "hopfudge": _works("added to the number of nodes in ttl", _set_integer("hopfudge", 0, 255)),
    "initdead": _works("the dead time at our own start", _set_duration("initdead_s")),
    "keepalive": _works("time between two statuses", _set_duration("keepalive_s")),
    "log_badpack": _idle("a bad packet is reported once a minute"),
    "logfacility": _works("syslog facility, or none", _logfacility),
    "logfile": _works("log into this file", _logfile),
    "max_rexmit_delay": _idle("a lost message is asked for every 250 ms, as by default"),
    "mcast": _works("DEVICE GROUP PORT TTL LOOP", _mcast),
    "mcast6": _no("IPv6 multicast is not supported; use ucast6"),
    "memreserve": _idle("memory is locked as it is used"),
    "msgfmt": _idle("netstring frames are sent, both kinds are read"),
    "nice_failback": _no(
        "it is obsolete; write auto_failback off instead of 'on', and auto_failback on instead of 'off'"
    ),
    "node": _works("names of the two nodes", _node),
    "opt": _no("there are no options"),
    "pacemaker": _works("only off, like crm", _crm),
    "ping": _works("hosts that witness that we are not cut off", _ping),
    "ping6": _no("IPv6 ping is not supported; use ping"),
    "ping_group": _works("NAME HOST...: any one of them is a witness", _ping_group),
    "quorum_server": _no("there is no quorum server; use ping nodes as witnesses"),
    "realtime": _works("on or off: realtime priority and locked memory", _realtime),
    "record_config_changes": _no("haptk manages haresources only"),
    "record_pengine_inputs": _no("haptk manages haresources only"),
    "respawn": _no("start other programs with systemd; what ipfail did, ping lines alone do here"),
    "rtprio": _works("realtime priority, 1 to 99", _set_integer("rtprio", 1, 99)),
    "serial": _no("serial links are not supported; use ucast on a second network"),
    "stonith": _no("haptk does not switch machines off; an Elastic IP has one holder anyway"),
    "stonith_host": _no("haptk does not switch machines off; an Elastic IP has one holder anyway"),
    "syslogmsgfmt": _idle("the log has one format"),
    "traditional_compression": _idle("no message is large enough to be compressed"),
    "ucast": _works("DEVICE ADDRESS", _ucast(4)),
    "ucast6": _works("DEVICE ADDRESS", _ucast(6)),
    "udp": _no("it is obsolete; write bcast"),
    "udpport": _works("UDP port of ucast and bcast", _set_integer("udpport", 1, 65535)),
    "use_apphbd": _idle("systemd's watchdog takes its place"),
    "use_logd": _idle("there is no logging daemon"),
    "uuidfrom": _idle("nodes are told apart by name; the uuid is kept in a file"),
    "warntime": _works("silence that is worth a warning", _set_duration("warntime_s")),
    "watchdog": _no("use systemd's WatchdogSec= in the unit, which this daemon serves"),
}


def parse(text: str, file: str) -> HaCf:
    """A ha.cf; raises ConfigError with file and line."""
    found = HaCf(file)
    line = 0
    for line, raw in enumerate(text.splitlines(), 1):
        words = raw.split("#", 1)[0].replace(",", " ").split()
        if not words:
            continue
        directive = DIRECTIVES.get(words[0])
        if directive is None:
            raise ConfigError(file=file, line=line, why=_unknown(words[0]))
        directive.handle(found, _At(file, line, words[0], words[1:]))
    if not found.nodes:
        raise ConfigError(file=file, line=line, why="there is no node line")
    if not found.media:
        raise ConfigError(file=file, line=line, why="no heartbeat media defined: ucast, bcast or mcast is needed")
    return found


def _unknown(word: str) -> str:
    import difflib

    near = difflib.get_close_matches(word, DIRECTIVES, 1)
    hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(DIRECTIVES))}"
    return f"{word} is not a directive of ha.cf{hint}"

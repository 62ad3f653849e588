"""F1xx: faults that are copied from page to page, named when `haptk init --from` meets them. Generated files have none.

Each check reads what was parsed, or the bare text where the fault is in a comment, and yields warnings: a file that has
run for years is not refused, but its reader should know. The table FAULTS is the reference's list.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from haptk.cluster.problem import WARNING, Problem
from haptk.formats.ha_cf import HaCf
from haptk.formats.haproxy_cfg import Config
from haptk.formats.keepalived_conf import Block


def _listed(words: str) -> list[str]:
    return words.split()


FAULTS = {
    "F101": "An interval differs from the comment beside it.",
    "F102": "A misspelt keyword of keepalived, which is ignored or stops it.",
    "F103": "A weight that cannot change the master.",
    "F104": "nopreempt beside a weight: a failed check moves nothing.",
    "F105": "nopreempt with state MASTER, which keepalived ignores.",
    "F106": "No unicast_peer: a VPC carries no multicast.",
    "F107": "VRRP taken for TCP or UDP: it is IP protocol 112.",
    "F108": "No notify_master_rx_lower_pri: after a quarrel the address stays with the loser.",
    "F109": "A check that sees only that a process of some name exists.",
    "F111": "Heartbeat by broadcast or multicast: a VPC carries neither.",
    "F112": "UDP of the heartbeat is missing from the security group.",
    "F113": "auto_failback legacy, the default, is the old protocol.",
    "F114": "deadtime is not more than twice keepalive.",
    "F121": "appsession is gone since HAProxy 1.6.",
    "F122": "A server without a cookie in a farm that sticks by cookie.",
    "F123": "A check by HTTP/1.1 without a Host.",
    "F124": "option httpclose costs a connection for each request.",
}
VRRP_KEYWORDS = _listed(
    "state interface virtual_router_id priority advert_int nopreempt preempt_delay unicast_src_ip unicast_peer "
    "authentication virtual_ipaddress virtual_routes track_script track_interface track_process notify notify_master "
    "notify_backup notify_fault notify_stop notify_deleted notify_master_rx_lower_pri garp_master_delay "
    "garp_master_repeat garp_master_refresh garp_lower_prio_delay garp_lower_prio_repeat garp_master_refresh_repeat "
    "mcast_src_ip dont_track_primary version native_ipv6 preempt smtp_alert debug use_vmac vmac_xmit_base "
    "virtual_ipaddress_excluded virtual_rules promote_secondaries accept no_accept strict_mode check_unicast_src "
    "down_timer_adverts lower_prio_no_advert higher_prio_send_advert skip_check_adv_addr kernel_rx_buf "
    "linkbeat_use_polling track_file track_bfd track_src_ip lvs_sync_daemon_interface unicast_ttl"
)
SCRIPT_KEYWORDS = _listed("script interval timeout weight rise fall user init_fail")
_TAKEN_FOR_TCP = re.compile(r"\b(tcp|udp)\b.{0,40}\b112\b|\b112\b.{0,40}\b(tcp|udp)\b|vrrp.{0,20}\b(tcp|udp)\b", re.I)
_NOT_A_MIX_UP = re.compile(r"\b(no|not|neither|isn't)\b", re.I)
_SECONDS = re.compile(r"(\d+(?:\.\d+)?)\s*(?:s\b|sec|seconds?\b)")
_PROCESS_ONLY = re.compile(r"\b(killall|pkill)\s+-0|\bpidof\b|\bpgrep\b")


def _warning(file: str, line: int, code: str, why: str) -> Problem:
    return Problem(file, line, code, why, WARNING)


def in_text(text: str, file: str) -> Iterator[Problem]:
    """What is wrong in any file's words, comments included."""
    for number, line in enumerate(text.splitlines(), 1):
        if _TAKEN_FOR_TCP.search(line) and not _NOT_A_MIX_UP.search(line):
            why = "VRRP is IP protocol 112, not a TCP or UDP port: a rule for a port lets nothing through"
            yield _warning(file, number, "F107", why)


def in_keepalived(root: Block, file: str) -> Iterator[Problem]:
    """The faults of one keepalived.conf."""
    weights = {}
    for script in root.all("vrrp_script"):
        yield from _misspelt(script, SCRIPT_KEYWORDS, file)
        yield from _script(script, file)
        weight = script.get("weight")
        if weight is not None and weight.value.lstrip("-").isdigit():
            weights[script.value] = int(weight.value)
    for instance in root.all("vrrp_instance"):
        yield from _misspelt(instance, VRRP_KEYWORDS, file)
        yield from _instance(instance, weights, file)


def _misspelt(block: Block, known: list[str], file: str) -> Iterator[Problem]:
    for child in block.children:
        if child.keyword not in known:
            near = difflib.get_close_matches(child.keyword, known, 1)
            hint = f"; {near[0]} is meant?" if near else ""
            yield _warning(file, child.line, "F102", f"{child.keyword!r} is no word of {block.keyword}{hint}")


def _script(script: Block, file: str) -> Iterator[Problem]:
    interval = script.get("interval")
    if interval is not None:
        said = _SECONDS.search(interval.comment) or re.search(r"every\s+(\d+)", interval.comment)
        if said and said[1] != interval.value:
            why = f"interval {interval.value} runs every {interval.value} s, but its comment says {said[1]}"
            yield _warning(file, interval.line, "F101", why)
    command = script.get("script")
    if command is not None and _PROCESS_ONLY.search(" ".join(command.words)):
        why = "it sees that a process of that name exists, not that it answers: a hung proxy keeps the address"
        yield _warning(file, command.line, "F109", why)


def _instance(instance: Block, weights: dict[str, int], file: str) -> Iterator[Problem]:
    nopreempt, state = instance.get("nopreempt"), instance.get("state")
    track = instance.get("track_script")
    tracked = [child for child in track.children if weights.get(child.keyword)] if track else []
    if nopreempt is not None and tracked:
        why = "a backup with nopreempt ignores a master that a weight has lowered: a failed check moves nothing"
        yield _warning(file, nopreempt.line, "F104", why)
    if nopreempt is not None and state is not None and state.value == "MASTER":
        yield _warning(file, state.line, "F105", "keepalived ignores nopreempt with state MASTER: write BACKUP on both")
    if instance.get("unicast_peer") is None:
        why = "no unicast_peer: this instance speaks multicast, which a VPC does not carry; both nodes become master"
        yield _warning(file, instance.line, "F106", why)
    notified = [child for child in instance.children if child.keyword in ("notify", "notify_master")]
    if notified and instance.get("notify_master_rx_lower_pri") is None:
        why = "no notify_master_rx_lower_pri: after two masters have met, an Elastic IP stays with the lower one"
        yield _warning(file, notified[0].line, "F108", why)


def between_keepalived(files: list[tuple[Block, str]]) -> Iterator[Problem]:
    """What only two files together show: a weight that is smaller than the difference of priorities."""
    ranks: dict[str, list[int]] = {}
    for root, _ in files:
        for instance in root.all("vrrp_instance"):
            priority = instance.get("priority")
            if priority is not None and priority.value.isdigit():
                ranks.setdefault(instance.value, []).append(int(priority.value))
    apart = max((max(values) - min(values) for values in ranks.values() if len(values) > 1), default=0)
    for root, file in files:
        for script in root.all("vrrp_script"):
            weight = script.get("weight")
            if weight is None or not weight.value.lstrip("-").isdigit():
                continue
            if weight.value != "0" and abs(int(weight.value)) <= apart:
                why = f"weight {weight.value} cannot change the master: the priorities are {apart} apart"
                yield _warning(file, weight.line, "F103", why)


def in_ha_cf(found: HaCf, text: str) -> Iterator[Problem]:
    """The faults of a ha.cf."""
    for media in found.media:
        if media.kind != "ucast":
            why = f"{media.kind}: a VPC carries neither broadcast nor multicast, so no heartbeat arrives: write ucast"
            yield _warning(found.file, media.line, "F111", why)
    lines = {line.split()[0]: number for number, line in enumerate(text.splitlines(), 1) if line.split()}
    why = f"heartbeat speaks UDP {found.udpport}: the security group has to let it through between the nodes"
    yield _warning(found.file, lines.get("udpport", 1), "F112", why)
    if found.auto_failback == "legacy":
        why = "auto_failback legacy, the default, is the protocol of 1999: write on or off"
        yield _warning(found.file, lines.get("auto_failback", 1), "F113", why)
    if found.deadtime_s <= 2 * found.keepalive_s:
        why = f"deadtime {found.deadtime_s:g} s is not more than twice keepalive {found.keepalive_s:g} s"
        yield _warning(found.file, lines.get("deadtime", 1), "F114", why)


def in_haproxy(config: Config, text: str, file: str) -> Iterator[Problem]:
    """The faults of a haproxy.cfg."""
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if words[:1] == ["appsession"]:
            why = "appsession is gone since HAProxy 1.6: the design learn does the same with a stick table"
            yield _warning(file, number, "F121", why)
        if words[:2] in (["option", "httpclose"], ["option", "forceclose"]):
            why = f"option {words[1]} costs a connection for each request: keep-alive needs no change of the servers"
            yield _warning(file, number, "F124", why)
        if words[:2] == ["option", "httpchk"] and words[-1:] == ["HTTP/1.1"]:
            yield _warning(file, number, "F123", "a check by HTTP/1.1 without a Host: most servers answer 400")
    for section in config.proxies():
        if section.get("cookie"):
            for server in section.get("servers", ()):
                if not server.get("cookie"):
                    at = int(server["where"].rpartition(":")[2])
                    why = f"server {server['name']} has no cookie: its sessions do not stick"
                    yield _warning(file, at, "F122", why)

"""Lines that a section has and that nothing will use: they need another mode, or another line beside them.

HAProxy starts with such a file and warns; so does haptk, for the same lines (tests/diff/test_diff_table.py asks both).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptk.formats.haproxy_cfg import Section

if TYPE_CHECKING:
    from haptk.proxy.compile import _Compiler

# setting -> how its line is called
_HTTP_FRONT = {
    "monitor_uri": "monitor-uri",
    "capture_cookie": "capture",
    "option_accept_invalid_http_request": "option accept-invalid-http-request",
    "option_http_ignore_probes": "option http-ignore-probes",
}
_HTTP_BACK = {
    "option_accept_invalid_http_response": "option accept-invalid-http-response",
    "option_http_pretend_keepalive": "option http-pretend-keepalive",
    "option_prefer_last_server": "option prefer-last-server",
}


def report(work: _Compiler) -> None:
    """Warn of every such line of the proxies; what cannot be meant is an error, as in HAProxy."""
    for section in work.config.proxies():
        if section.kind != "backend":
            _frontend(work, section)
        if section.kind != "frontend":
            _backend(work, section)
        if section.get("mode", "tcp") != "http" and section.get("stats", {}).get("enabled"):
            work.warn(section, f"{section.title}: 'stats' needs mode http; ignored")


def _mode(work: _Compiler, section: Section, words: dict[str, str]) -> None:
    if section.get("mode", "tcp") == "http":
        return
    for word in dict.fromkeys(word for key, word in words.items() if section.get(key)):
        work.warn(section, f"{section.title}: '{word}' needs mode http; ignored")


def _frontend(work: _Compiler, section: Section) -> None:
    _mode(work, section, _HTTP_FRONT)
    if section.kind == "listen" and section.get("default_backend") and section.get("servers"):
        work.warn(section, f"{section.title}: 'default_backend' is taken; its own servers are never used")
    if (section.get("log_style") or section.get("log_format_sd")) and not section.get("logs"):
        work.warn(section, f"{section.title}: a log format without a 'log' line; nothing is logged")


def _backend(work: _Compiler, section: Section) -> None:
    _mode(work, section, _HTTP_BACK)
    kind = section.get("check_kind")
    said = ("http_rules", "disable_on_404", "check_send_state")
    if any(section.get(key) for key in said) and kind != "http":
        work.warn(section, f"{section.title}: 'http-check' needs 'option httpchk'; ignored")
    if section.get("tcp_steps") and kind != "tcp-check":
        work.warn(section, f"{section.title}: 'tcp-check' needs 'option tcp-check'; ignored")
    if section.get("load_server_state") == "global" and not work.top.get("server_state_file"):
        work.warn(section, f"{section.title}: 'load-server-state-from-file global' needs a global server-state-file")
    if section.get("mode", "tcp") == "http":
        return
    for record in section.get("servers", ()):
        if record.get("redir"):
            work.error(record["where"], f"server {record['name']}: redir needs mode http")
        elif record.get("cookie"):
            work.warn(record["where"], f"server {record['name']}: cookie needs mode http; ignored")
